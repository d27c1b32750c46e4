"""The generated shop: truth, titles and pictures agree; the log is biased as said; the bytes repeat."""

import hashlib
import io
import re
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from smar.core.errors import InputError
from smar.demo.shop import ShopSummary, draw_picture, generate_shop
from smar.demo.shop_items import CATEGORIES, COLOURS, NAMED, VISIBLE, Item, draw_items, words
from smar.demo.simulated_log import START, Query, draw_queries

TEST_FROM = START + timedelta(days=54)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ShopSummary]:
    out = tmp_path_factory.mktemp("demo") / "shop"
    return out, generate_shop(out, items=320, searches=4000)


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return draw_items(1600, np.random.default_rng(5))


@pytest.fixture(scope="module")
def queries(items: list[Item]) -> list[Query]:
    return draw_queries(items, 1200, np.random.default_rng(6))


def says(title: str, value: str) -> bool:
    """Slow twin of `named`: the title has one of the words for this value."""
    return any(re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", title, re.IGNORECASE) for word in words(value))


def test_tables_have_the_columns_and_the_halves(shop: tuple[Path, ShopSummary]) -> None:
    out, summary = shop
    table = pq.read_table(out / "items.parquet")
    columns = ["item_id", "title", "category", "brand", "price", "in_stock", "group", "image"]
    assert table.column_names == columns  # and so none of the truth
    assert table.num_rows == summary.items == len(set(table["item_id"].to_pylist())) == 320
    groups = table["group"].to_pylist()
    assert groups.count("Fashion") == groups.count("Not-fashion") == 160
    assert len(set(table["category"].to_pylist())) == len(CATEGORIES) >= 12
    readme = (out / "README.txt").read_text()
    assert "generated shop" in readme
    assert "simulated log" in readme


def test_holes_are_what_the_summary_says(shop: tuple[Path, ShopSummary]) -> None:
    out, summary = shop
    paths = [path for path in pq.read_table(out / "items.parquet")["image"].to_pylist() if path]
    broken = 0
    for path in paths:
        try:
            Image.open(out / path).load()
        except OSError:
            broken += 1
    assert (len(paths), broken) == (summary.pictures, summary.broken_pictures)
    assert summary.without_picture == round(0.02 * 320)
    assert broken == 2


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        generate_shop(tmp_path / name, items=64, searches=200, seed=seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    changed, first = digest(tmp_path / "c"), digest(tmp_path / "a")
    assert all(changed[name] != first[name] for name in ("items.parquet", "clicks.parquet", "qrels.parquet"))


def test_an_earlier_shop_is_replaced_and_anything_else_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "shop"
    generate_shop(out, items=64, searches=100)
    generate_shop(out, items=65, searches=100)
    assert pq.read_table(out / "items.parquet").num_rows == 65
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a generated shop"):
        generate_shop(mine, items=64, searches=100)
    assert (mine / "thesis.txt").exists()


@pytest.mark.parametrize(("items", "searches"), [(63, 100), (64, 99)])
def test_too_small_is_refused(tmp_path: Path, items: int, searches: int) -> None:
    with pytest.raises(InputError, match="64 items and 100 searches"):
        generate_shop(tmp_path / "shop", items=items, searches=searches)


def test_titles_name_what_named_says(items: list[Item]) -> None:
    for item in items:
        for name, value in item.attributes.items():
            assert says(item.title, value) == (name in item.named), (item.title, name, value)


def test_titles_leave_out_looks_only(items: list[Item]) -> None:
    fashion = [item for item in items if item.category.group == "Fashion"]
    for name in ("colour", "sleeve", "shape"):
        having = [item for item in fashion if name in item.attributes]
        assert sum(name in item.named for item in having) / len(having) == pytest.approx(NAMED, abs=0.06)
    assert all("material" in item.named for item in fashion)
    plain = [item for item in items if item.category.group == "Not-fashion"]
    assert all(item.named == {*item.attributes} for item in plain)


def test_needs_image_agrees_with_the_titles(items: list[Item], queries: list[Query]) -> None:
    seen = set()
    for query in queries:
        looks = [value for name, value in query.asked.items() if name in VISIBLE]
        titles = [items[row].title for row in query.relevant]
        lacking = [not all(says(title, value) for value in looks) for title in titles]
        if query.group == "Not-fashion":
            assert query.needs_image == 0
        assert query.needs_image == pytest.approx(np.mean(lacking))
        seen.add((query.group, query.needs_image in (0, 1), bool(looks)))
        if query.needs_image == 1 and len(looks) == 1:
            assert not any(says(title, looks[0]) for title in titles)
    assert {("Fashion", True, True), ("Fashion", False, True), ("Not-fashion", True, False)} <= seen


def test_hidden_is_what_the_title_does_not_say(items: list[Item], queries: list[Query]) -> None:
    seen = set()
    for query in queries:
        looks = [value for name, value in query.asked.items() if name in VISIBLE]
        slow = [not all(says(items[row].title, value) for value in looks) for row in query.relevant]
        assert query.hidden.tolist() == slow
        seen |= {*slow}
    assert seen == {True, False}


def test_relevant_items_have_everything_asked(items: list[Item], queries: list[Query]) -> None:
    for query in queries[::7]:
        category = items[query.relevant[0]].category.name
        slow = [
            row
            for row, item in enumerate(items)
            if item.category.name == category
            and all((item.brand if k == "brand" else item.attributes[k]) == v for k, v in query.asked.items())
        ]
        assert query.relevant.tolist() == slow


def test_truth_tables_match(shop: tuple[Path, ShopSummary]) -> None:
    out, summary = shop
    asked, qrels = pq.read_table(out / "queries.parquet"), pq.read_table(out / "qrels.parquet")
    assert asked.num_rows == summary.queries == len(set(asked["query"].to_pylist()))
    assert {*qrels["query"].to_pylist()} == {*asked["query"].to_pylist()}
    hidden = qrels.group_by("query").aggregate([("hidden", "mean")])
    shares = dict(zip(hidden["query"].to_pylist(), hidden["hidden_mean"].to_pylist(), strict=True))
    assert asked["needs_image"].to_pylist() == pytest.approx([shares[query] for query in asked["query"].to_pylist()])
    assert {*pq.read_table(out / "clicks.parquet")["query"].to_pylist()} <= {*asked["query"].to_pylist()}
    assert asked.schema.field("needs_image").type == pa.float64()


def pixels(item: Item, seed: int) -> np.ndarray:
    with Image.open(io.BytesIO(draw_picture(item, np.random.default_rng(seed)))) as picture:
        return np.asarray(picture.convert("RGB"), dtype=float)


def test_the_colour_can_be_seen(items: list[Item]) -> None:
    names = list(COLOURS)
    palette = np.array(list(COLOURS.values()), dtype=float)
    right = tried = 0
    for seed, item in enumerate(items):
        if item.attributes.get("pattern") == "plain" and item.category.name in ("Dress", "Sweater", "Skirt"):
            middle = np.median(pixels(item, seed)[60:90, 65:95].reshape(-1, 3), axis=0)
            tried += 1
            right += names[int(np.argmin(np.abs(palette - middle).sum(axis=1)))] == item.attributes["colour"]
    assert tried > 50
    assert right / tried > 0.97


def test_pictures_of_not_fashion_look_alike_whatever_the_item_is(items: list[Item]) -> None:
    kettles = [item for item in items if item.category.name == "Kettle"][:2]
    assert kettles[0].attributes != kettles[1].attributes
    np.testing.assert_array_equal(pixels(kettles[0], 1), pixels(kettles[1], 1))


def test_clicks_follow_position_and_relevance(shop: tuple[Path, ShopSummary]) -> None:
    out, summary = shop
    clicks = pq.read_table(out / "clicks.parquet")
    assert clicks.num_rows == summary.impressions
    assert pc.sum(clicks["clicked"]).as_py() == summary.clicks
    stamps = clicks["timestamp"].to_pylist()
    assert stamps == sorted(stamps)
    assert stamps[0] >= START
    assert stamps[-1] < START + timedelta(days=60)
    position, clicked = clicks["position"].to_numpy(), clicks["clicked"].to_numpy().astype(float)
    rates = [clicked[position == place].mean() for place in (1, 2, 4, 10)]
    assert rates == sorted(rates, reverse=True)
    truth = set(zip(*(pq.read_table(out / "qrels.parquet")[c].to_pylist() for c in ("query", "item_id")), strict=True))
    pairs = zip(clicks["query"].to_pylist(), clicks["item_id"].to_pylist(), strict=True)
    fits = np.array([pair in truth for pair in pairs])
    assert clicked[fits].mean() > 4 * clicked[~fits].mean() > 0
    assert not (clicks["ordered"].to_numpy() & (clicked == 0)).any()


def test_the_test_period_has_cold_items_and_unseen_queries(shop: tuple[Path, ShopSummary]) -> None:
    out, _ = shop
    clicks = pq.read_table(out / "clicks.parquet")
    clicked = clicks.filter(clicks["clicked"])
    late = pc.greater_equal(clicked["timestamp"], pa.scalar(TEST_FROM, pa.timestamp("ms")))
    before, after = clicked.filter(pc.invert(late)), clicked.filter(late)
    for column in ("item_id", "query"):
        assert len({*after[column].to_pylist()} - {*before[column].to_pylist()}) >= 10
    truth = pq.read_table(out / "truth.parquet")
    launch = dict(zip(truth["item_id"].to_pylist(), truth["available_after_seconds"].to_pylist(), strict=True))
    for item_id, stamp in zip(clicks["item_id"].to_pylist(), clicks["timestamp"].to_pylist(), strict=True):
        assert (stamp - START).total_seconds() >= launch[item_id]
