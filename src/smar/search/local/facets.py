"""Counts of values and price ranges among the items that a filter leaves."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from smar.search.column_values import Codes, Columns, Kind, Mask
from smar.search.counts import PRICE_RANGES, round_borders

_BLOCK = 65_536


@dataclass(frozen=True, slots=True)
class PriceCount:
    """Items with ``low <= price < high``; the last range includes its `high`."""

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class FacetCounts:
    """What was counted over `items` items.

    `values` holds, per column, value as a filter names it -> (items, row of the first of them with a picture or None),
    most frequent first. `prices` has round borders, chosen once for the whole catalogue; it is empty without prices.

    >>> from smar.serving.engine import Engine
    >>> counts = Engine.open("index").facets("price<500", top=2)
    >>> counts.items <= 300, len(counts.values["category"])
    (True, 2)
    """

    items: int
    pictures: int
    values: dict[str, dict[str, tuple[int, int | None]]] = field(default_factory=dict)
    prices: tuple[PriceCount, ...] = ()
    price_low: float | None = None
    price_high: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the counted items: a table, the items of it that count, those with pictures, and its first row number."""

    columns: Columns
    mask: Mask
    pictured: Mask
    first_row: int = 0


def count_facets(
    parts: Iterable[Part], names: tuple[str, ...], borders: tuple[float, ...], top: int | None = None
) -> FacetCounts:
    """Count the `top` most frequent values of the columns `names`, and prices between `borders`."""
    parts = list(parts)
    prices = np.concatenate([_prices(part.columns, part.mask) for part in parts])
    below = [np.count_nonzero(prices < low) for low in borders[:-1]]  # np.histogram sorts: 60 ms for 1 M
    below += [np.count_nonzero(prices <= high) for high in borders[-1:]]
    bins = np.diff(below).tolist()
    return FacetCounts(
        items=sum(int(np.count_nonzero(part.mask)) for part in parts),
        pictures=sum(int(np.count_nonzero(part.mask & part.pictured)) for part in parts),
        values={name: _values(parts, name, top) for name in names},
        prices=tuple(PriceCount(low, high, n) for low, high, n in zip(borders[:-1], borders[1:], bins, strict=True)),
        price_low=float(prices.min()) if len(prices) else None,
        price_high=float(prices.max()) if len(prices) else None,
    )


def price_borders(parts: Iterable[Part], ranges: int = PRICE_RANGES) -> tuple[float, ...]:
    """Round numbers that cut the prices into at most `ranges` parts of about equal size; () without prices."""
    prices = np.concatenate([_prices(part.columns, part.mask) for part in parts])
    if not len(prices):
        return ()
    inner = round_borders(prices, ranges)
    low, high = float(np.floor(prices.min())), float(np.ceil(prices.max()))
    return (low, *inner[(inner > low) & (inner < high)].tolist(), max(high, float(np.nextafter(low, np.inf))))


def _prices(columns: Columns, mask: Mask) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if columns.kind("price") is not Kind.NUMBER:
        return np.empty(0)
    numbers = columns.numbers("price")
    rows = np.flatnonzero(mask & columns.present("price") & np.isfinite(numbers))  # half the time of picking by a mask
    prices: np.ndarray[tuple[int], np.dtype[np.float64]] = numbers[rows].astype(np.float64, copy=False)
    return prices / 10.0 ** columns.scale("price")


def _values(parts: list[Part], name: str, top: int | None) -> dict[str, tuple[int, int | None]]:
    coded = []
    for part in parts:
        codes = part.columns.labels(name)
        if codes is None:
            return {}
        code = codes.code[np.flatnonzero(part.mask)]
        coded.append((part, codes, np.bincount(code, minlength=len(codes.values) + 1)[:-1]))
    # a value of the first part, mostly the largest by far, is among the best of all if it is among its own best or
    # another part has it, too
    likely = {
        codes.values[at]
        for number, (_, codes, counts) in enumerate(coded)
        for at in _best(codes, counts, None if number else top)
    }
    counted = {
        value: sum(int(counts[codes.places[value]]) for _, codes, counts in coded if value in codes.places)
        for value in likely
    }
    ranked = sorted(counted, key=lambda value: (-counted[value], value))[:top]
    rows: dict[str, int] = {}
    for part, codes, _ in coded:
        rows = _first_pictured(part, codes, ranked) | rows
    return {value: (counted[value], rows.get(value)) for value in ranked}


def _best(codes: Codes, counts: npt.NDArray[np.int64], top: int | None) -> npt.NDArray[np.int64]:
    """Places of the `top` most frequent values, of equals the first in the alphabet; in any order."""
    some = np.flatnonzero(counts)
    if top is None or len(some) <= top:
        return some
    return some[np.argpartition(codes.ranks[some] - counts[some] * len(counts), top)[:top]]


def _first_pictured(part: Part, codes: Codes, values: list[str]) -> dict[str, int]:
    """The first counted row with a picture of each value that has one; mostly they are all among the first rows."""
    places = np.array([codes.places[value] for value in values if value in codes.places], np.int64)
    first = np.full(len(codes.values) + 1, -1)
    rows = np.flatnonzero(part.mask & part.pictured)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK][::-1]
        fresh = np.full_like(first, -1)
        fresh[codes.code[block]] = block + part.first_row  # the last write is the first row
        first = np.where(first < 0, fresh, first)
        if (first[places] >= 0).all():
            break
    return {codes.values[at]: int(first[at]) for at in places if first[at] >= 0}
