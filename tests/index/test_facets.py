"""Facet counts of what a filter leaves, against counting one by one."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from smar.index.columns import Columns
from smar.index.embedded import EmbeddedIndex
from smar.index.facets import count_facets, price_borders
from smar.index.filter_parser import parse_filter


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


def whole(columns: Columns):
    import numpy as np

    from smar.index.facets import Part

    return Part(columns, np.ones(len(columns), bool), np.zeros(len(columns), bool))
