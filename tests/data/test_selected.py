"""A SELECT of the configuration makes a table: any layout becomes ours."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop_tables import click, items, log, picture, read, rejects, run, settings, write_table

from smar.core.errors import InputError
from smar.data.changes import prepare_changes
from smar.data.database import connect
from smar.data.prepare import PrepareSummary, prepare
from smar.data.selected import Tables

PRODUCTS = [{"sku": f"00{n}", "name": f"Chair {n}", "cents": 100 * n + 99, "terms": ["red", "chair"]} for n in range(4)]
ITEMS = "SELECT sku AS item_id, name AS title, cents / 100 AS price FROM items"
CLICKS = "SELECT array_to_string(terms, ' ') || ' ' || n AS query, sku AS item_id FROM items, range(10) AS t(n)"


def made(folder: Path, select: dict[str, str], products: Any = PRODUCTS, **given: Any) -> PrepareSummary:
    """Prepare the products with these SELECTs; the other tables are rows or paths."""
    folder.mkdir(exist_ok=True)
    paths = {name: write_table(folder / f"{name}.parquet", rows) for name, rows in given.items() if rows}
    table = products if isinstance(products, Path) else write_table(folder / "products.parquet", products)
    return prepare(settings(select=select), table, **{"clicks": (), **paths}, out=folder / "out")


def test_tables_are_made_out_of_others(tmp_path: Path) -> None:
    summary = made(
        tmp_path,
        {"items": ITEMS, "clicks": f"{CLICKS};", "queries": "SELECT 'red chair 1' AS query, 0.5 AS needs_image"},
    )
    assert [(row["item_id"], row["title"], row["price"]) for row in read(tmp_path, "items.parquet")] == [
        ("000", "Chair 0", 0.99), ("001", "Chair 1", 1.99), ("002", "Chair 2", 2.99), ("003", "Chair 3", 3.99)
    ]  # fmt: skip
    assert (summary.counts["log_rows"], summary.counts["clicks"], summary.counts["queries"]) == (40, 40, 1)
    assert not list((tmp_path / "out").rglob("*selected*"))


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl"])
def test_the_views_have_the_types_of_the_table(tmp_path: Path, kind: str) -> None:
    """Numbers are numbers, codes keep their zeros, in every format."""
    rows = [{name: value for name, value in row.items() if name != "terms"} for row in PRODUCTS]
    products = write_table(tmp_path / f"products.{kind}", rows)
    made(tmp_path, {"items": ITEMS}, products, clicks=[{"query": f"q{n}", "item_id": f"00{n % 4}"} for n in range(30)])
    assert [(row["item_id"], row["price"]) for row in read(tmp_path, "items.parquet")][1] == ("001", 1.99)


def test_rejected_rows_are_those_of_the_result(tmp_path: Path) -> None:
    select = {
        "items": "SELECT * FROM items ORDER BY item_id DESC",
        "clicks": "SELECT * FROM clicks WHERE query <> 'hat'",
    }
    rows = [*items(3), {"item_id": "a", "title": " "}]
    entries = [click("x", "i0", day) for day in range(9)]
    run(tmp_path, rows, [click("hat", "i0", 1), click("x", "nowhere", 1), *entries], select=select)
    assert rejects(tmp_path) == [("clicks", 0, "nowhere", "unknown item"), ("items", 3, "a", "no title")]


def test_mapping_and_bad_lines_stay(tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text('item_id,name\ni0,a\ni1,b\n"i2",c,d,e\ni3,d\n')
    summary = run(
        tmp_path, tmp_path / "products.csv", [click("x", "i0", day) for day in range(9)],
        select={"items": "SELECT item_id, upper(name) AS label FROM items"}, columns={"items": {"title": "label"}},
    )  # fmt: skip
    assert [row["title"] for row in read(tmp_path, "items.parquet")] == ["A", "B", "D"]
    assert summary.rejects == {"items: unreadable line": 1}


def test_pictures_start_at_the_table(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    select = {
        "items": "SELECT *, [file, file] AS image FROM items",
        "images": "SELECT 'i1' AS item_id, 'a.jpg' AS image",
    }
    summary = run(tmp_path, items(2, file="a.jpg"), [click("x", "i0", day) for day in range(9)], select=select)
    assert (summary.image_status["ok"], summary.counts["pictures"]) == (2, 5)


def test_equal_tables_give_equal_rows(tmp_path: Path) -> None:
    """Several threads would make these groups in another order each time."""
    number = np.arange(300_000)
    sku = pa.array(number * 7919 % 150_001).cast(pa.string())
    pq.write_table(pa.table({"sku": sku, "name": sku}), tmp_path / "products.parquet", row_group_size=30_000)
    select = {"items": "SELECT sku AS item_id, any_value(name) AS title FROM items GROUP BY sku"}
    tables = []
    for turn in range(2):
        work = tmp_path / str(turn)
        work.mkdir()
        with connect(settings(), work) as con:
            given = Tables.of(con, settings(select=select), {"items": tmp_path / "products.parquet"}, work)
            tables.append(pq.read_table(given.open("items", ()).parquet[0]))
    assert tables[0].num_rows == 150_001
    assert tables[0].equals(tables[1])


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("SELECT nme FROM items", r"data.select.items: .*\"nme\" not found(.|\n)*items \(sku, name, cents, terms\)"),
        ("SELECT * FROM products", r"products does not exist(.|\n)*given and their columns: .*items \(sku, name"),
        ("SELEC 1", r"data.select.items: Parser Error: syntax error at or near \"SELEC\""),
        ("SELECT 1 AS title; SELECT 2", r"must be one SELECT; seen: SELECT, SELECT"),
        ("DELETE FROM items", r"must be one SELECT; seen: DELETE"),
        ("COPY items TO 'x.csv'", r"must be one SELECT; seen: COPY"),
        ("-- nothing", r"must be one SELECT; seen: nothing"),
        ("SELECT name AS title, Name AS TITLE FROM items", r"gives two columns the name title"),
        ("SELECT * FROM items WHERE false", r"data.select.items gives no row"),
        ("SELECT * FROM read_csv('{}/secret.csv')", r"Cannot access file .*secret.csv"),
        ("SELECT * FROM '{}/secret.csv'", r"Cannot access file .*secret.csv"),
        ("SELECT content AS title FROM read_text('/etc/hosts')", r"Cannot access file"),
        ("SELECT sku FROM items", r"--items: no column 'item_id', 'title'. Columns seen: sku"),
    ],
)  # fmt: skip
def test_a_select_that_cannot_be(tmp_path: Path, select: str, message: str) -> None:
    (tmp_path / "secret.csv").write_text("item_id,title\na,b\n")
    with pytest.raises(InputError, match=message):
        made(tmp_path, {"items": select.format(tmp_path)}, clicks=log())
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x.csv").exists()


def test_a_table_that_was_not_given(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--clicks: no file was given. Give a path, or a data.select.clicks"):
        made(tmp_path, {"items": ITEMS})
    summary = made(tmp_path, {"items": ITEMS, "clicks": CLICKS, "images": "SELECT * FROM images"})
    assert any("data.select.images reads --images, which was not given" in note for note in summary.notes)


def test_updates_are_selected_too(tmp_path: Path) -> None:
    table = write_table(tmp_path / "new.parquet", PRODUCTS)
    select = {"items": ITEMS, "clicks": CLICKS, "images": "SELECT sku AS item_id, 'a.jpg' AS image FROM items"}
    (tmp_path / "a.jpg").write_bytes(picture())
    dataset, rejected, _ = prepare_changes(settings(select=select), [str(table)], [], tmp_path / "update")
    assert dataset.items["price"].to_pylist() == [0.99, 1.99, 2.99, 3.99]
    assert dataset.items["image_status"].to_pylist() == ["ok"] * 4
    assert not rejected
    with pytest.raises(InputError, match=r"clicks does not exist(.|\n)*items \(sku"):
        prepare_changes(settings(select={"items": "SELECT * FROM clicks"}), [str(table)], [], tmp_path / "other")
