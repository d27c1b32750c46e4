"""Counts of values and price ranges among the items that a filter leaves."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from smar.index.columns import Columns, Kind, Mask

PRICE_RANGES = 6


@dataclass(frozen=True, slots=True)
class PriceCount:
    """Items with ``low <= price < high``; the last range includes its `high`."""

    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True)
class FacetCounts:
    """What was counted over `items` items.

    `values` holds, per text column, value -> (items, row of the first of them with a picture or None), most frequent
    first. `prices` has round borders, chosen once for the whole catalogue; it is empty without prices.
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
    """Count the `top` most frequent values of the text columns `names`, and prices between `borders`."""
    parts = list(parts)
    prices = np.concatenate([_prices(part.columns, part.mask) for part in parts])
    bins = np.histogram(prices, borders)[0].tolist() if borders else []
    return FacetCounts(
        items=sum(int(part.mask.sum()) for part in parts),
        pictures=sum(int((part.mask & part.pictured).sum()) for part in parts),
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
    inner = {_round(float(cut)) for cut in np.quantile(prices, np.linspace(0, 1, ranges + 1)[1:-1])}
    low, high = float(np.floor(prices.min())), float(np.ceil(prices.max()))
    return (low, *sorted(cut for cut in inner if low < cut < high), max(high, float(np.nextafter(low, np.inf))))


def _round(price: float) -> float:
    """The nearest number of the form 1, 1.5, 2, 2.5, 3, 4, 5, 6 or 8 times a power of ten."""
    if price <= 0:
        return 0.0
    power = 10.0 ** np.floor(np.log10(price))
    return float(power * min((1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10), key=lambda digit: abs(digit - price / power)))


def _prices(columns: Columns, mask: Mask) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if columns.kind("price") is not Kind.NUMBER:
        return np.empty(0)
    prices = columns.numbers("price")[mask & columns.present("price")].astype(np.float64)
    finite: np.ndarray[tuple[int], np.dtype[np.float64]] = prices[np.isfinite(prices)]
    return finite


def _values(parts: list[Part], name: str, top: int | None) -> dict[str, tuple[int, int | None]]:
    found: dict[str, tuple[int, int | None]] = {}
    for part in parts:
        codes = part.columns.codes(name) if part.columns.kind(name) is Kind.TEXT else None
        if codes is None:
            continue
        counts = np.bincount(codes.code[part.mask], minlength=len(codes.values) + 1)
        first = np.full(len(counts), -1)
        rows = np.flatnonzero(part.mask & part.pictured)[::-1]
        first[codes.code[rows]] = rows + part.first_row  # the last write is the first row
        for at in np.flatnonzero(counts[:-1]):
            value, (before, row) = codes.values[at], found.get(codes.values[at], (0, None))
            row = int(first[at]) if row is None and first[at] >= 0 else row
            found[value] = before + int(counts[at]), row
    ranked = sorted(found.items(), key=lambda entry: (-entry[1][0], entry[0]))
    return dict(ranked[:top])
