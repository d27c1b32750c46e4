"""Columns of an item as JSON gives them: what is taken as it is, and what is refused with what was wanted."""

import json
from datetime import date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smar.serving.writer.item_check import RefusedItem, check_columns

SCHEMA = pa.schema(
    {
        "item_id": pa.string(),
        "title": pa.string(),
        "price": pa.float64(),
        "stock": pa.int32(),
        "new": pa.bool_(),
        "since": pa.date32(),
        "seen": pa.timestamp("us"),
        "cost": pa.decimal128(9, 2),
        "tags": pa.list_(pa.string()),
        "group": pa.dictionary(pa.int32(), pa.string()),
        "size": pa.struct({"w": pa.int64()}),
        "image_status": pa.string(),
    }
)


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("price", 3, 3.0),
        ("stock", 3.0, 3),
        ("new", False, False),
        ("since", "2026-11-22", date(2026, 11, 22)),
        ("seen", "2026-11-22T10:00:00+02:00", datetime(2026, 11, 22, 8)),
        ("seen", "2026-11-22T10:00:00", datetime(2026, 11, 22, 10)),
        ("cost", 3.25, Decimal("3.25")),
        ("tags", ["a", None], ["a", None]),
        ("group", "x", "x"),
        ("size", {"w": 3}, {"w": 3}),
        ("price", None, None),
    ],
)
def test_values_that_fit(name: str, given: object, kept: object) -> None:
    row = check_columns("a", {"title": "T", name: given}, SCHEMA)
    assert row[name] == kept
    assert row.keys() == set(SCHEMA.names) - {"image_status"}
    pa.Table.from_pylist([row], SCHEMA)


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("title", 3, r"text \(string\)"),
        ("price", "3", r"number \(double\)"),
        ("price", True, "number"),
        ("price", float("nan"), "not finite"),
        ("price", float("inf"), "not finite"),
        ("stock", 3.5, r"number \(int32\)"),
        ("stock", 2**40, "number"),
        ("new", 1, "true or false"),
        ("since", "yesterday", "a date as ISO 8601"),
        ("since", 20260101, "a date as ISO 8601"),
        ("tags", "a", "a list"),
        ("tags", [1], "a list"),
        ("size", {"w": "x"}, "struct"),
        ("size", {"w": 1.5}, "no whole number"),
        ("size", {"w": 1, "h": 2}, "It has no h"),
        ("title", "\ud800", "text"),
    ],
)
def test_values_that_do_not_fit(name: str, given: object, wanted: str) -> None:
    with pytest.raises(RefusedItem, match=wanted) as refused:
        check_columns("a", {"title": "T", name: given}, SCHEMA)
    assert refused.value.code == "wrong_type"
    assert f"column {name}" in str(refused.value)


def test_unknown_columns_are_named_with_the_known_ones() -> None:
    with pytest.raises(RefusedItem, match=r"unknown column 'colour', 'x'; known: title, price, stock"):
        check_columns("a", {"title": "T", "x": 1, "colour": 1}, SCHEMA)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.dictionaries(st.sampled_from(SCHEMA.names), JSON), st.text())
def test_whatever_json_holds_is_a_row_of_the_index_or_refused(values: dict, item_id: str) -> None:
    values = json.loads(json.dumps(values))
    try:
        row = check_columns(item_id, values, SCHEMA)
    except RefusedItem:
        return
    (again,) = pa.Table.from_pylist([row], SCHEMA).to_pylist()
    assert again | row == again
    assert again["title"].split()


def test_texts_lose_their_html_as_in_tables() -> None:
    values = {"title": "<b>Red</b> &amp; blue", "group": "A &lt; B"}
    row = check_columns("a", values, SCHEMA, ("title",))
    assert (row["title"], row["group"]) == ("Red & blue", "A &lt; B")
    with pytest.raises(RefusedItem, match="title is missing or blank"):
        check_columns("a", {"title": "<br>"}, SCHEMA, ("title",))
