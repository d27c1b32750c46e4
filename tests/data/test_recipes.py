"""configs/recipes: each on small files in the published layout, from the command's words to the dataset's values."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop_tables import picture, read, write_table

from tiny_line import Outcome, smar

RECIPES = Path(__file__).parents[2] / "configs" / "recipes"
QUICK = ("--set", "data.image_size=16", "--set", "data.workers=1")
Row = dict[str, Any]


def prepare(folder: Path, recipe: str, *words: object) -> Outcome:
    done = smar("prepare", "--config", RECIPES / f"{recipe}.yaml", *words, *QUICK, "--out", folder / "out")
    assert done.code == 0, done.err
    return done


def pairs(folder: Path, part: str) -> dict[tuple[str, str], float]:
    """(query, item_id) -> weight, relative to the largest of the part."""
    ids = [row["item_id"] for row in read(folder, "items.parquet")]
    rows = read(folder, f"pairs/{part}.parquet")
    top = max(row["weight"] for row in rows)
    return {(row["query"], ids[row["item_index"]]): round(row["weight"] / top, 4) for row in rows}


def qrels(folder: Path) -> dict[tuple[str, str], int]:
    return {(row["query"], row["item_id"]): row["relevance"] for row in read(folder, "qrels.parquet")}


def item(folder: Path, item_id: str) -> Row:
    return next(row for row in read(folder, "items.parquet") if row["item_id"] == item_id)


def lines(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def log(folder: Path, ids: list[str]) -> Path:
    """Pairs for catalogues that come without a log."""
    return write_table(folder / "log.csv", [{"query": f"query {n}", "item_id": ids[n % len(ids)]} for n in range(60)])


def test_every_recipe_is_tested() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert all(f'tmp_path, "{path.stem}"' in source for path in RECIPES.glob("*.yaml"))


def esci(folder: Path) -> list[str]:
    def example(number: int, query: str, product: str, label: str, split: str, **other: Any) -> Row:
        told = {"product_locale": "us", "small_version": 1, "large_version": 1, **other}
        return {"example_id": number, "query": query, "query_id": number // 4, "product_id": product, **told,
                "esci_label": label, "split": split}  # fmt: skip

    train = [example(4 * n + m, f"lamp {n}", f"B00{m}", "ESCI"[m], "train") for n in range(40) for m in range(4)]
    test = [example(200 + m, "desk", f"B00{m}", "ISEC"[m], "test") for m in range(4)]
    left_out = [
        example(300, "escritorio", "B000", "E", "test", product_locale="es"),
        example(301, "other desk", "B004", "E", "test", small_version=0),
    ]
    products = [
        {"product_id": f"B00{n}", "product_title": f"Lamp {n}", "product_description": "<p>of oak</p>",
         "product_bullet_point": "- a", "product_brand": "Oak & Co" if n else None, "product_color": "brown",
         "product_locale": locale}
        for n in range(5) for locale in ("us", "es")
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(train + test + left_out), folder / "shopping_queries_dataset_examples.parquet")
    pq.write_table(pa.Table.from_pylist(products), folder / "shopping_queries_dataset_products.parquet")
    return [
        "--items", f"{folder}/shopping_queries_dataset_products.parquet",
        "--clicks", f"{folder}/shopping_queries_dataset_examples.parquet",
    ]  # fmt: skip


def test_amazon_esci(tmp_path: Path) -> None:
    tables = esci(tmp_path)
    (tmp_path / "sqid").mkdir()
    address = "https://m.media-amazon.invalid/images"
    default = f"{address}/G/01/digital/video/web/Default_Background_Art_LTR._SX1080_FMjpg_.jpg"
    rows = [("B000", f"{address}/I/1.jpg"), ("B001", default), ("B002", "")]
    write_table(tmp_path / "sqid" / "product_image_urls.csv", [{"product_id": i, "image_url": u} for i, u in rows])
    more = [{"product_id": "B003", "image_url": f"{address}/I/3.jpg"}]
    write_table(tmp_path / "sqid" / "supp_product_image_urls.csv", more)
    pictures = ("--images", f"{tmp_path}/sqid/*product_image_urls.csv", "--set", "data.fetch.retries=0")
    done = prepare(tmp_path, "esci", *tables, *pictures)
    assert item(tmp_path, "B001")["title"] == "Lamp 1"
    assert item(tmp_path, "B001")["brand"] == "Oak & Co"
    assert {row["item_id"] for row in read(tmp_path, "items.parquet")} == {"B000", "B001", "B002", "B003"}
    train, valid = pairs(tmp_path, "train"), pairs(tmp_path, "valid")
    weights = {"B000": 1.0, "B001": 0.1, "B002": 0.01}
    assert train | valid == {(f"lamp {n}", i): weight for n in range(40) for i, weight in weights.items()}
    assert not {query for query, _ in train} & {query for query, _ in valid}
    assert set(pairs(tmp_path, "test")) == {("desk", "B001"), ("desk", "B002"), ("desk", "B003")}
    assert qrels(tmp_path) == {("desk", "B000"): 0, ("desk", "B001"): 2, ("desk", "B002"): 3, ("desk", "B003"): 1}
    tried = {(row["item_id"], row["status"]) for row in read(tmp_path, "images.parquet")}
    assert tried == {("B000", "fetch_failed"), ("B003", "fetch_failed")}
    assert "looks like a label" not in done.err


def test_amazon_esci_without_pictures(tmp_path: Path) -> None:
    done = prepare(tmp_path, "esci", *esci(tmp_path))
    assert done.says("data.select.images reads --images, which was not given")
    assert len(read(tmp_path, "items.parquet")) == 4


def test_esci_without_the_recipe_points_out_the_label(tmp_path: Path) -> None:
    tables = esci(tmp_path)
    maps = (
        "data.columns.items={item_id: product_id, title: product_title}",
        "data.columns.clicks={item_id: product_id}",
    )
    words = ("--set", "data.text_fields=[title]", "--set", maps[0], "--set", maps[1])
    done = smar("prepare", *tables, *words, *QUICK, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert done.says(
        "column 'esci_label' looks like a label", "E (43), C (41), I (41), S (41)", "relevance FROM clicks"
    )


def test_marqo_gs_10m(tmp_path: Path) -> None:
    def row(query: str, product: int, position: int) -> Row:
        return {"query": query, "product_id": product, "position": position, "title": f"dress {product}",
                "pair_id": f"{query}-{product}", "score_linear": 101 - position, "no_score": 1, "query_id": query,
                "score_reciprocal": 1 / position, "image_local": f"/publisher/images_wfash/{product}.webp"}  # fmt: skip

    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "7.webp").write_bytes(picture(kind="WEBP"))
    train = write_table(
        tmp_path / "query_0_product_id_0.csv",
        [row(f"red {n}", product, place) for n in range(40) for product, place in ((7, 1), (8, 51))],
    )
    test = write_table(
        tmp_path / "query_1_product_id_0.csv",
        [row("new", product, place) for product, place in ((7, 10), (8, 11), (9, 50), (10, 51))],
    )
    prepare(
        *(tmp_path, "marqo_gs", "--clicks", train, "--queries", test),
        *("--set", f"data.images_root={tmp_path / 'images'}"),
    )
    assert [(row["item_id"], row["title"]) for row in read(tmp_path, "items.parquet")] == [
        ("7", "dress 7"), ("8", "dress 8"), ("9", "dress 9"), ("10", "dress 10")
    ]  # fmt: skip
    assert item(tmp_path, "7")["image_status"] == "ok"
    assert set(pairs(tmp_path, "train").values()) == {1.0, 0.5}
    assert qrels(tmp_path) == {("new", "7"): 3, ("new", "8"): 2, ("new", "9"): 2, ("new", "10"): 1}
    assert [row["query"] for row in read(tmp_path, "queries.parquet")] == ["new"]


def test_amazon_reviews_2023(tmp_path: Path) -> None:
    base = "https://m.media-amazon.invalid/images/I"
    images = [
        {"thumb": f"{base}/1._SS40_.jpg", "large": f"{base}/1.jpg", "variant": "MAIN", "hi_res": None},
        {
            "thumb": f"{base}/2._SS40_.jpg",
            "large": f"{base}/2.jpg",
            "variant": "PT01",
            "hi_res": f"{base}/2._SL1500_.jpg",
        },
    ]
    first = {
        "main_category": "All Beauty", "title": "Leather Conditioner, 8-Ounce", "average_rating": 4.8,
        "rating_number": 10, "features": ["Cleans", "Protects"], "description": ["For leather."], "price": 14.99,
        "images": images, "videos": [], "store": "Howard Products", "categories": ["Beauty", "Care"],
        "details": {"UPC": "617390882781"},
        "parent_asin": "B01CUPMQZE", "bought_together": None,
    }  # fmt: skip
    empty = {"features": [], "description": [], "categories": [], "images": []}
    bare = {**first, **empty, "parent_asin": "B000000001", "price": None, "main_category": None, "store": None}
    odd = {**bare, "parent_asin": "B000000002", "price": "from 14.99"}
    table = lines(tmp_path / "meta_All_Beauty.jsonl", [first, bare, odd])
    clicks = log(tmp_path, ["B01CUPMQZE", "B000000001"])
    prepare(
        *(tmp_path, "amazon_reviews", "--items", table, "--clicks", clicks),
        *("--set", "data.fetch.retries=0", "--set", "data.pictures_per_item=2"),
    )
    seen = item(tmp_path, "B01CUPMQZE")
    told = {name: seen[name] for name in ("category", "brand", "price", "average_rating", "rating_number")}
    assert list(told.values()) == ["All Beauty", "Howard Products", 14.99, 4.8, 10]
    assert seen["title"] == "Leather Conditioner, 8-Ounce"
    assert (seen["features"], seen["description"], seen["categories"]) == (
        "Cleans Protects",
        "For leather.",
        "Beauty > Care",
    )
    assert item(tmp_path, "B000000001")["price"] is None
    assert item(tmp_path, "B000000001")["features"] is None
    tried = read(tmp_path, "images.parquet")
    assert [(row["item_id"], row["position"]) for row in tried] == [("B01CUPMQZE", 0), ("B01CUPMQZE", 1)]


SHOPIFY = """\
Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,Option2 Name,\
Option2 Value,Variant SKU,Variant Grams,Variant Inventory Tracker,Variant Inventory Qty,Variant Inventory Policy,\
Variant Price,Variant Compare At Price,Image Src,Image Position,Image Alt Text,Gift Card,Status
runner,Table Runner,<p>Woven</p>,Acme,Home & Garden,Linen,"table, woven",true,Size,S,Color,Red,\
R-1,100,shopify,0,deny,49.00,,b.jpg,2,,false,active
runner,,,,,,,,,L,,Red,R-2,100,shopify,3,deny,39.00,,a.jpg,1,,,
runner,,,,,,,,,,,,,,,,,,,c.jpg,3,,,
mug,Mug,,Acme,,,,true,Title,Default Title,,,M-1,300,shopify,0,deny,12,,,,,false,active
bowl,Bowl,,Acme,,,,true,Title,Default Title,,,B-1,300,shopify,0,continue,14,,,,,false,active
old,Old mug,,Acme,,,,false,Title,Default Title,,,O-1,300,,,deny,5,,,,,false,draft
"""


@pytest.mark.parametrize("short", [False, True], ids=["all columns", "only those that are always there"])
def test_shopify_export(tmp_path: Path, short: bool) -> None:
    kept = ["Handle", "Title", "Body (HTML)", "Vendor", "Variant Price", "Image Src"]
    rows = list(csv.DictReader(SHOPIFY.splitlines()))
    table = write_table(tmp_path / "products.csv", [{n: row[n] for n in kept} if short else row for row in rows])
    for name, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / f"{name}.jpg").write_bytes(picture(colour))
    prepare(tmp_path, "shopify", "--items", table, "--clicks", log(tmp_path, ["runner", "mug"]))
    ids = [row["item_id"] for row in read(tmp_path, "items.parquet")]
    assert sorted(ids) == ["bowl", "mug", *(["old"] if short else []), "runner"]
    runner = item(tmp_path, "runner")
    assert (runner["title"], runner["brand"], runner["price"], runner["image_status"]) == (
        "Table Runner",
        "Acme",
        39.0,
        "ok",
    )
    if short:
        return
    assert (runner["category"], runner["tags"], runner["options"]) == ("Linen", "table, woven", "L Red S Red")
    assert (runner["in_stock"], item(tmp_path, "mug")["in_stock"], item(tmp_path, "bowl")["in_stock"]) == (
        True,
        False,
        True,
    )
    assert runner["skus"] == ["R-1", "R-2"]
    assert item(tmp_path, "mug")["options"] is None
    tried = [(row["position"], row["status"]) for row in read(tmp_path, "images.parquet") if row["item_id"] == "runner"]
    assert tried[0] == (0, "ok")  # a.jpg, whose Image Position is 1


def test_google_shopping_feed(tmp_path: Path) -> None:
    names = "id title description link image_link additional_image_link availability price sale_price brand"
    rows = [
        ["007", 'Red "XL" dress', "Long", "https://shop.invalid/7", "a.jpg", "b.jpg, c.jpg", "in_stock", "15.00 USD",
         "12.50 USD", "Acme", "166", "0012345678905"],
        ["A8", "Blue dress", "Long", "https://a.invalid", "b.jpg", "", "out of stock", "15.00 USD", "", "Acme", "166"],
        ["A9", "Grey dress", "Long", "https://shop.invalid/9", "b.jpg", "", "in_stock", "ask us", "", "Acme", "166"],
    ]  # fmt: skip
    table = [[*names.split(), "google_product_category", "gtin"], *([*row, ""][:12] for row in rows)]
    (tmp_path / "feed.tsv").write_text("".join("\t".join(row) + "\n" for row in table))
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(picture())
    done = prepare(
        *(tmp_path, "google_shopping", "--items", tmp_path / "feed.tsv", "--clicks", log(tmp_path, ["007", "A8"])),
        *("--set", "data.pictures_per_item=3"),
    )
    dress = item(tmp_path, "007")
    assert (dress["title"], dress["price"], dress["currency"], dress["in_stock"]) == (
        'Red "XL" dress',
        12.5,
        "USD",
        True,
    )
    assert (dress["category"], dress["gtin"], dress["image_rows"]) == ("166", "0012345678905", 2)
    assert (item(tmp_path, "A8")["price"], item(tmp_path, "A8")["in_stock"]) == (15.0, False)
    assert item(tmp_path, "A9")["price"] is None
    assert done.says("1 prices are not numbers")


def test_user_behavior_insights(tmp_path: Path) -> None:
    def event(query: str, action: str, item_id: str | None, place: int, day: int) -> Row:
        told = {"position": {"ordinal": place}, "object": {"object_id": item_id, "object_id_field": "sku"}}
        if item_id is None:
            told = {"position": {"xy": {"x": 3.5, "y": 4}}}
        time = f"2026-01-{day:02d}T10:00:00+02:00"
        return {"application": "shop", "action_name": action, "query_id": query, "session_id": "s", "client_id": "c",
                "timestamp": time, "message_type": "QUERY", "event_attributes": told}  # fmt: skip

    queries = [
        {"application": "shop", "query_id": f"q{n}", "client_id": "c", "user_query": f"Red  shoe {n % 7}",
         "timestamp": f"2026-01-{1 + n:02d}T09:00:00Z", "query_response_hit_ids": ["i0", "i1"]}
        for n in range(28)
    ]  # fmt: skip
    events = [event(f"q{n}", action, "i0", 1, 1 + n) for n in range(28) for action in ("impression", "click")]
    events += [event(f"q{n}", "impression", "i1", 2, 1 + n) for n in range(28)]
    events += [
        event("q27", "purchase", "i1", 2, 28),
        event("q27", "login", None, 1, 28),
        event("q27", "click", None, 1, 28),
        event("nobody's", "click", "i0", 1, 28),
    ]
    items = write_table(tmp_path / "items.csv", [{"item_id": f"i{n}", "title": f"shoe {n}"} for n in range(3)])
    done = prepare(
        *(tmp_path, "ubi", "--items", items, "--set", "data.text_fields=[title]", "--set", "data.slice_columns=[]"),
        *("--clicks", lines(tmp_path / "events.ndjson", events)),
        *("--queries", lines(tmp_path / "queries.ndjson", queries)),
    )
    assert done.says("log rows 56", "clicks 29")
    assert qrels(tmp_path)[("red shoe 6", "i1")] == 2
    assert ("red shoe 6", "i0") in pairs(tmp_path, "train")
    assert max(row["last_click"] for row in read(tmp_path, "pairs/test.parquet")).isoformat() == "2026-01-28T08:00:00"
    assert {(row["query"], row["searches"]) for row in read(tmp_path, "queries.parquet")} == {
        (f"red shoe {n}", 4) for n in range(7)
    }


def test_jd_pairs(tmp_path: Path) -> None:
    text = "".join(f"{n} 17\t{n % 5} 900 17\n" for n in range(80))
    (tmp_path / "finetune_data_er.tsv").write_text(text)
    done = prepare(tmp_path, "jd_pairs", "--clicks", tmp_path / "finetune_data_er.tsv")
    assert sorted(row["title"] for row in read(tmp_path, "items.parquet")) == [f"{n} 900 17" for n in range(5)]
    assert done.says("log rows 80", "clicks 80")
    titles = {row["item_id"]: row["title"] for row in read(tmp_path, "items.parquet")}
    seen = {(query, titles[i]) for part in ("train", "valid", "test") for query, i in pairs(tmp_path, part)}
    assert seen == {(f"{n} 17", f"{n % 5} 900 17") for n in range(80)}
