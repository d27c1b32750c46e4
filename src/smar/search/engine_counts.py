"""Facets of an engine's columns: counted here from their values, or put together from what the engine counted."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.search.column_values import Kind
from smar.search.counts import ColumnCounts, RangeCount, ValueCount, day
from smar.search.stored import Column, label

_FEW = 50  # different numbers whose values are counted


def counted_values(values: Sequence[Any], column: Column, top: int) -> ColumnCounts:
    """Values of texts, flags or lists; an entry that comes twice in a list counts once."""
    counts: Counter[Any] = Counter()
    missing = 0
    for own in values:
        entries = {one for one in (own.values() if isinstance(own, dict) else own or ()) if one is not None}
        counts.update(entries)
        missing += not entries
    return tallied(missing, counts, column, top)


def tallied(missing: int, counts: Mapping[Any, int], column: Column, top: int) -> ColumnCounts:
    """The `top` most frequent values, of equals the first in the alphabet."""
    named = {label(value, column): count for value, count in counts.items()}
    best = sorted(named.items(), key=lambda entry: (-entry[1], entry[0]))[:top]
    return ColumnCounts(missing, tuple(ValueCount(value, count) for value, count in best))


def unit_of(column: Column) -> float:
    """What a number of the engine is divided by to be one of the shop, days for dates."""
    return 86_400e6 if column.kind is Kind.MOMENT else 10.0**column.scale


def counted_ranges(values: pa.Array, column: Column, top: int, borders: Sequence[float]) -> ColumnCounts:
    """Numbers or moments of all rows that match, missing ones included."""
    held = values.drop_null()
    numbers = held.to_numpy(zero_copy_only=False) / unit_of(column)
    finite = numbers[np.isfinite(numbers)]
    counts = np.bincount(np.searchsorted(borders, finite, side="right"), minlength=len(borders) + 1)
    different = pc.value_counts(held)
    few = None
    if len(different) <= _FEW:
        few = {entry["values"]: entry["counts"] for entry in different.to_pylist()}
    ends = (float(finite.min()), float(finite.max())) if len(finite) else None
    return ranged(len(values) - len(finite), counts.tolist(), few, ends, column, top, borders)


def ranged(
    missing: int,
    counts: Sequence[int],
    few: Mapping[Any, int] | None,
    ends: tuple[float, float] | None,
    column: Column,
    top: int,
    borders: Sequence[float],
) -> ColumnCounts:
    """A facet of numbers: `counts` between `borders`, values where there are `few`, lowest and highest."""

    def shown(number: float) -> float | str:
        return day(number) if column.kind is Kind.MOMENT else float(number)

    edges = [None, *map(shown, borders), None]
    ranges = tuple(RangeCount(*each) for each in zip(edges[:-1], edges[1:], counts, strict=True))
    values = None if few is None else tallied(0, few, column, top).values
    low, high = (None, None) if ends is None else map(shown, ends)
    return ColumnCounts(missing, values, ranges if len(ranges) > 1 else None, low, high)
