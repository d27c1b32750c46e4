"""Facets of a search: how often each value of some columns occurs among what was found, or among all that matches.

A column of texts, lists, or true and false has values; one of numbers or dates ranges with round borders, chosen once
for the whole catalogue, and values, too, where it has few different ones. An item with several entries of one value
counts once. Where items are shown as cards, cards are counted.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import starmap, zip_longest
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.core.errors import InputError
from smar.data.text import compose
from smar.data.words import folded
from smar.search.column_values import Columns, Kind, Mask, inner_kind, kind_of
from smar.search.counts import ColumnCounts, RangeCount, ValueCount, column_borders, day
from smar.search.filters import Filter
from smar.search.local.cards import COUNTED, card_ids
from smar.search.local.segment import Segment
from smar.search.local.taken import by_segment, matching, take
from smar.search.local.vectors import Allowed
from smar.search.ranked import Rows

MOST_COLUMNS = 20
MOST_VALUES = 200
_FEW = 50
"""Different numbers or dates that a column may have for its values to be counted."""
_READ = 5_000
"""Rows up to which values are read one by one."""

Of = Literal["hits", "matches"]
_CARDS = 2**40  # numbers of cards are smaller


@dataclass(frozen=True, slots=True)
class Facets:
    """Which `columns` to count, the `top` most frequent values of each, among the `hits` or all `matches`.

    A facet is counted as if nothing had been chosen of it, unless `within`. Only values that hold the letters of
    `contains` are listed, whatever their case and accents.

    >>> Facets(("brand", "category"), of="matches", top=5).top
    5
    """

    columns: tuple[str, ...]
    of: Of = "hits"
    top: int = 30
    within: bool = False
    contains: str = ""


def check_facets(wanted: Facets | None, schema: pa.Schema) -> None:
    """Raise InputError where a column is unknown or cannot be counted, or there are too many."""
    if wanted is None:
        return
    if len(wanted.columns) > MOST_COLUMNS or not 1 <= wanted.top <= MOST_VALUES:
        seen = f"{len(wanted.columns)} columns and top {wanted.top}"
        raise InputError(f"facets: {seen}; allowed: up to {MOST_COLUMNS} columns, top 1 to {MOST_VALUES}.")
    for name in wanted.columns:
        if name not in schema.names:
            raise InputError(f"facets: unknown column {name[:100]!r}. Columns: {', '.join(schema.names)}.")
        if (kind := kind_of(schema.field(name).type)) is Kind.OTHER:
            raise InputError(f"facets: {name} holds {kind}, which is not counted.")


def count_column(
    segments: Sequence[Segment], rows: Rows, name: str, top: int, cards: Rows | None = None, contains: str = ""
) -> ColumnCounts:
    """One facet among some `rows` of the index, of which `cards` [n] says what card each belongs to."""
    kind = segments[0].catalogue.columns.kind(name)
    if kind in (Kind.NUMBER, Kind.MOMENT):
        return _ranges(segments, rows, name, top, cards, contains)
    parts = list(by_segment(segments, rows))
    codes = parts[0][0].catalogue.columns.labels(name) if len(parts) == 1 else None
    if codes is not None:
        counts, missing = _bins_counted(codes.code[parts[0][2]], len(codes.values), cards)
        found = np.flatnonzero(counts)
        named = {codes.values[at]: count for at, count in zip(found.tolist(), counts[found].tolist(), strict=True)}
        return ColumnCounts(missing, values=_best(named, top, contains))
    values = _values(segments, rows, name)
    held = np.array([bool(own) for own in values], np.bool_)
    return ColumnCounts(_missing(held, cards), values=_best(_count(values, cards), top, contains))


def _bins_counted(bins: npt.NDArray[Any], missing: int, cards: Rows | None) -> tuple[Rows, int]:
    """How often each of the numbers `bins` [n] occurs, and how many are `missing`, the largest number."""
    if cards is None:
        counts = np.bincount(bins, minlength=1)
        return counts[:missing], int(counts[missing:].sum())
    held = bins < missing
    return np.bincount(_pairs(bins[held].astype(np.int64), cards[held])), _missing(held, cards)


def _pairs(values: Rows, cards: Rows) -> Rows:
    """The value of each distinct pair of value and card."""
    pairs: Rows = np.sort(values * _CARDS + cards)
    distinct: Rows = pairs[np.diff(pairs, prepend=-1) != 0] // _CARDS
    return distinct


def _values(segments: Sequence[Segment], rows: Rows, name: str) -> list[tuple[str, ...]]:
    """The values of each row, each once, as a filter names them."""
    found: list[tuple[str, ...]] = [()] * len(rows)
    for segment, places, own in by_segment(segments, rows):
        columns = segment.catalogue.columns
        for place, value in zip(places.tolist(), _named(columns, name, own), strict=True):
            found[place] = value
    return found


def _named(columns: Columns, name: str, rows: Rows) -> list[tuple[str, ...]]:
    kind = columns.kind(name)
    if kind is Kind.EMPTY:
        return [()] * len(rows)
    if kind in (Kind.TEXT, Kind.LIST):
        taken = take(columns, name, rows)
        if kind is Kind.LIST and inner_kind(taken.type) is not Kind.TEXT:
            taken = taken.cast(pa.list_(pa.string()))
        lists = taken.to_pylist() if kind is Kind.LIST else [[value] for value in taken.to_pylist()]
        return [tuple({compose(one): None for one in own or () if one is not None}) for own in lists]
    codes = columns.labels(name)
    assert codes is not None
    names = [*((value,) for value in codes.values), ()]
    return [names[code] for code in codes.code[rows].tolist()]


def _count(values: Sequence[tuple[str, ...]], cards: Rows | None) -> Counter[str]:
    if cards is None:
        return Counter(value for own in values for value in own)
    pairs = {(value, card) for own, card in zip(values, cards.tolist(), strict=True) for value in own}
    return Counter(value for value, _ in pairs)


def _missing(held: Mask, cards: Rows | None) -> int:
    """Items, or cards all of whose items, have no value."""
    if held.all():
        return 0
    if cards is None:
        return int(np.count_nonzero(~held))
    return len(np.unique(cards)) - len(np.unique(cards[held]))


def _best(counts: Mapping[str, int], top: int, contains: str) -> tuple[ValueCount, ...]:
    wanted = folded(contains)
    named = [entry for entry in counts.items() if wanted in folded(entry[0])] if wanted else counts.items()
    ranked = sorted([(-count, value) for value, count in named])[:top]
    return tuple([ValueCount(value, -count) for count, value in ranked])


def _ranges(
    segments: Sequence[Segment], rows: Rows, name: str, top: int, cards: Rows | None, contains: str
) -> ColumnCounts:
    base = segments[0].catalogue.columns
    borders = base.keep("borders", name, lambda: column_borders(base, name))
    bins, extremes = np.empty(len(rows), np.int64), list[float]()
    for segment, places, own in by_segment(segments, rows):
        columns = segment.catalogue.columns
        bins[places] = within = columns.keep("bins", name, partial(_bins, columns, name, borders))[own]
        if len(held := columns.numbers(name)[own][within <= len(borders)]):
            extremes += [held.min() / columns.unit(name), held.max() / columns.unit(name)]
    counts, missing = _bins_counted(bins, len(borders) + 1, cards)
    shown: Callable[[float], float | str] = day if base.kind(name) is Kind.MOMENT else float
    ends = base.keep("ends", name, lambda: [None, *map(shown, borders.tolist()), None])
    each = zip_longest(ends[:-1], ends[1:], counts.tolist(), fillvalue=0)
    ranges = tuple(starmap(RangeCount, each))
    labels = [segment.catalogue.columns.labels(name) for segment in segments]
    few = len(rows) <= _READ and all(codes is not None and len(codes.values) <= _FEW for codes in labels)
    values = _best(_count(_values(segments, rows, name), cards), top, contains) if few else None
    low, high = (shown(min(extremes)), shown(max(extremes))) if extremes else (None, None)
    return ColumnCounts(missing, values, ranges if len(ranges) > 1 else None, low, high)


def _bins(columns: Columns, name: str, borders: npt.NDArray[np.float64]) -> npt.NDArray[np.unsignedinteger[Any]]:
    """The range of each row's number [rows], the last and one more for none."""
    values = columns.numbers(name) / columns.unit(name)
    found = np.searchsorted(borders, values, side="right").astype(np.min_scalar_type(len(borders) + 1))
    found[~(columns.present(name) & np.isfinite(values))] = len(borders) + 1
    return found


def matches_counter(segments: Sequence[Segment]) -> Callable[..., ColumnCounts]:
    """Counts of a column among all that match a filter, kept for the latest 128 questions.

    A function of the segments alone: see `smar.search.local.segment` on circles of references.
    """

    @lru_cache(maxsize=128)
    def count(name: str, filter: Filter | None, top: int, collapse: str | None, contains: str = "") -> ColumnCounts:
        allowed = [segment.allowed(filter) for segment in segments]
        rows = matching(segments, allowed)
        cards = None
        if collapse is not None:
            if len(rows) > COUNTED:
                raise InputError(
                    f"facets: {len(rows):,} items match, and cards are counted among at most {COUNTED:,}. Count them "
                    "among hits, filter further, or leave collapse out."
                )
            cards = card_ids(segments, collapse, rows)
        kind = segments[0].catalogue.columns.kind(name)
        if len(rows) <= _READ or kind in (Kind.NUMBER, Kind.MOMENT, Kind.EMPTY) or cards is not None:
            return count_column(segments, rows, name, top, cards, contains)
        return _count_all(segments, allowed, name, top, contains)

    return count


def _count_all(
    segments: Sequence[Segment], allowed: Sequence[Allowed | None], name: str, top: int, contains: str
) -> ColumnCounts:
    """Values among very many rows, by codes."""
    counts, missing = Counter[str](), 0
    for segment, part in zip(segments, allowed, strict=True):
        columns = segment.catalogue.columns
        lists = columns.kind(name) is Kind.LIST
        rows, entries = columns.entries(name) if lists else (None, columns)
        codes = entries.labels(name)
        if codes is None:
            raise InputError(
                f"facets: {name} has too many different texts to count among matches; count them among hits."
            )
        if rows is None:
            code = codes.code if part is None else codes.code[np.flatnonzero(part.mask)]
            missing += int(np.count_nonzero(code == len(codes.values)))
        else:
            kept = np.arange(len(rows)) if part is None else np.flatnonzero(part.mask[rows])
            pairs = np.unique(rows[kept] * (len(codes.values) + 1) + codes.code[kept])  # an entry may come twice
            code = pairs % (len(codes.values) + 1)
            with_value = np.unique(pairs[code < len(codes.values)] // (len(codes.values) + 1))
            missing += (len(columns) if part is None else part.count) - len(with_value)
        for value, count in zip(codes.values, np.bincount(code, minlength=len(codes.values)).tolist(), strict=False):
            if count:
                counts[value] += count
    return ColumnCounts(missing, _best(counts, top, contains))
