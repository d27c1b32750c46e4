"""Facet counts of what a filter leaves, against counting one by one."""

from collections import Counter
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smar.search.column_values import Columns
from smar.search.filter_parser import parse_filter
from smar.search.local import facets
from smar.search.local.facets import Part, count_facets, price_borders
from smar.search.local.open_version import EmbeddedIndex


@pytest.fixture(scope="module")
def index(index_path: Path) -> EmbeddedIndex:
    return EmbeddedIndex.open(index_path)


@pytest.mark.parametrize("text", [None, "price<100", "brand=Nike or not exists(price)", "category=Kettle", "price<0"])
def test_counts_equal_counting(index: EmbeddedIndex, text: str | None) -> None:
    chosen = None if text is None else parse_filter(text, index.schema)
    counts = index.facets(chosen, 30)
    table = index.catalogue.table
    rows = list(range(len(index))) if chosen is None else [at for at, kept in enumerate(chosen.mask(table)) if kept]
    kept = [table.slice(row, 1).to_pylist()[0] for row in rows]
    assert counts.items == len(rows)
    assert counts.pictures == sum(map(index.catalogue.has_picture, rows))
    for name in ("category", "brand"):
        expected = Counter(item[name] for item in kept if item[name] is not None)
        assert {value: count for value, (count, _) in counts.values[name].items()} == expected
        for value, (_, row) in counts.values[name].items():
            with_picture = [at for at in rows if table[name][at].as_py() == value and index.catalogue.has_picture(at)]
            assert row == (with_picture[0] if with_picture else None)
    prices = [item["price"] for item in kept if item["price"] is not None]
    assert sum(part.count for part in counts.prices) == len(prices)
    for part in counts.prices[:-1]:
        assert part.count == sum(part.low <= price < part.high for price in prices)
    assert (counts.price_low, counts.price_high) == ((min(prices), max(prices)) if prices else (None, None))


def test_most_frequent_first_and_top(index: EmbeddedIndex) -> None:
    counts = [count for count, _ in index.facets(None, 2).values["brand"].values()]
    assert len(counts) == 2
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    "prices", [[], [None], [5.0], [5.0, 5.0], [0.0, 0.0, 9.0], [float("nan"), 3.0], [1.0, 10.0, 100.0, 1e6]]
)
def test_price_ranges_of_odd_catalogues(prices: list) -> None:
    columns = Columns(
        pa.table({"item_id": [str(at) for at in range(len(prices))], "price": pa.array(prices, pa.float64())})
    )
    part = whole(columns)
    borders = price_borders([part])
    assert list(borders) == sorted(set(borders))
    known = [price for price in prices if price is not None and price == price]
    assert sum(part.count for part in count_facets([part], (), borders).prices) == len(known)


ITEMS = st.lists(
    st.tuples(st.none() | st.sampled_from("abcdefg"), st.booleans(), st.booleans()), min_size=1, max_size=12
)


@given(parts=st.lists(ITEMS, min_size=1, max_size=3), top=st.none() | st.integers(1, 5))
def test_the_most_frequent_of_several_parts(parts: list[list[tuple]], top: int | None) -> None:
    """Equally frequent values by the alphabet, each with its first row that counts and has a picture."""
    made, first_row = [], 0
    for items in parts:
        brands, counted, pictured = zip(*items, strict=True)
        columns = Columns(pa.table({"brand": pa.array(brands, pa.string())}))
        made.append(Part(columns, np.array(counted), np.array(pictured), first_row))
        first_row += len(items)
    rows = [(row, *item) for row, item in enumerate(item for items in parts for item in items)]
    counts = Counter(brand for _, brand, counted, _ in rows if counted and brand is not None)
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:top]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facets, "_BLOCK", 3)
        values = count_facets(made, ("brand",), (), top).values["brand"]
    assert [(value, count) for value, (count, _) in values.items()] == ranked
    for value, (_, found) in values.items():
        assert found == next((row for row, *item in rows if item == [value, True, True]), None)


def test_decimal_prices() -> None:
    columns = Columns(pa.table({"price": pa.array([100, None, 250, 399], pa.int32()).cast(pa.decimal128(12, 2))}))
    counts = count_facets([whole(columns)], (), price_borders([whole(columns)]))
    assert (counts.price_low, counts.price_high) == (100.0, 399.0)
    assert sum(part.count for part in counts.prices) == 3


def test_columns_without_values() -> None:
    """Neither texts nor prices are counted where no item has any."""
    part = whole(Columns(pa.table({"brand": pa.nulls(2), "price": pa.nulls(2)})))
    assert price_borders([part]) == ()
    assert count_facets([part], ("brand",), ()).values == {"brand": {}}


@pytest.mark.parametrize(
    ("values", "kind", "labels"),
    [
        ([3, 12, 3, None, 3], pa.int64(), {"3": 3, "12": 1}),
        ([3, 12, 3, None, 3], pa.uint8(), {"3": 3, "12": 1}),
        ([2**63 - 1, -(2**63), 2**63 - 1], pa.int64(), {"9223372036854775807": 2, "-9223372036854775808": 1}),
        ([3.0, 0.5, 3.0, float("nan"), None], pa.float64(), {"3": 2, "0.5": 1}),
        ([0.1, 0.1, 1e22], pa.float32(), {"0.1": 2, "1e+22": 1}),
        ([True, False, True, None], pa.bool_(), {"true": 2, "false": 1}),
        ([Decimal("4.50"), Decimal("4.50"), Decimal("-1")], pa.decimal128(5, 2), {"4.50": 2, "-1.00": 1}),
        ([date(2026, 9, 27), None, date(2026, 9, 27)], pa.date32(), {"2026-09-27": 2}),
        ([datetime(2026, 9, 27, 8)] * 2, pa.timestamp("us"), {"2026-09-27 08:00:00.000000": 2}),
        ([datetime(2026, 9, 27, 8)] * 2, pa.timestamp("ms", "UTC"), {"2026-09-27 08:00:00.000Z": 2}),
        (["a", "", None, "a"], pa.string(), {"a": 2, "": 1}),
        (["a", "b", "a"], pa.dictionary(pa.int8(), pa.string()), {"a": 2, "b": 1}),
        ([3, 4, 3], pa.dictionary(pa.int8(), pa.int64()), {"3": 2, "4": 1}),
        ([["a"], ["a", "b"]], pa.list_(pa.string()), {}),
    ],
)
def test_columns_of_every_type_are_counted_in_the_words_of_filters(
    values: list[Any], kind: pa.DataType, labels: dict[str, int]
) -> None:
    """Each label, asked for as the page does, leaves as many items as were counted."""
    table = pa.table({"category": pa.array(values, kind)})
    columns = Columns(table)
    counts = count_facets([whole(columns)], ("category",), ()).values["category"]
    assert {label: count for label, (count, _) in counts.items()} == labels
    for label, count in labels.items():
        assert parse_filter(f'category in ("{label}")', table.schema).mask(columns).sum() == count


def test_a_value_counts_once_however_its_accents_are_stored() -> None:
    parts = [
        whole(Columns(pa.table({"brand": names})))
        for names in (["Müller", "Mu\u0308ller", "Bosch", None], ["Mu\u0308ller"])
    ]
    assert count_facets(parts, ("brand",), ()).values == {"brand": {"Müller": (3, None), "Bosch": (1, None)}}


def whole(columns: Columns) -> Part:
    return Part(columns, np.ones(len(columns), bool), np.zeros(len(columns), bool))
