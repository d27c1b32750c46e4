"""Cards: one hit for all variants of a product, and not too many of one brand among the first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.core.errors import InputError
from smar.search.local.groups import Groups, found_in, groups_of
from smar.search.local.segment import Segment
from smar.search.local.taken import by_segment, kind_in
from smar.search.local.vectors import Allowed
from smar.search.ranked import Rows

MOST_IDS = 100
"""Ids of other variants that a card names."""
COUNTED = 100_000
"""Matching items among which cards are counted."""


@dataclass(frozen=True, slots=True)
class Collapse:
    """One card for all items with the same value of `column`; `ids` also tells those of the others.

    >>> Collapse("brand", ids=True).column
    'brand'
    """

    column: str
    ids: bool = False


@dataclass(frozen=True, slots=True)
class Diversify:
    """At most `most` hits with the same value of `column` among the first `among`.

    >>> Diversify("brand", most=2).among
    24
    """

    column: str
    most: int
    among: int = 24


def check_cards(collapse: Collapse | None, diversify: Diversify | None, schema: pa.Schema) -> None:
    """Raise InputError where a column is unknown or cannot be grouped by, or a number is out of range."""
    if collapse is not None:
        kind_in(schema, collapse.column, "collapse")
    if diversify is None:
        return
    kind_in(schema, diversify.column, "diversify")
    if not (1 <= diversify.most <= 1000 and 1 <= diversify.among <= 1000):
        raise InputError(
            f"diversify: most is {diversify.most} and among {diversify.among}; allowed: 1 to 1000 for either."
        )


def card_ids(segments: Sequence[Segment], column: str, rows: Rows) -> Rows:
    """Numbers of the cards that some rows belong to [n]: by the column's value; a row without one is a card itself."""
    parts = list(by_segment(segments, rows))
    if len(parts) == 1:
        ((segment, _, own),) = parts
        groups = groups_of(segment.catalogue.columns, column)
        code = groups.code[own]
        return np.where(code < 0, len(groups) + own, code)
    numbers: dict[object, int] = {}
    ids = np.empty(len(rows), np.int64)
    for segment, places, own in parts:
        groups = groups_of(segment.catalogue.columns, column)
        for place, row, code in zip(places.tolist(), rows[places].tolist(), groups.code[own].tolist(), strict=True):
            ids[place] = numbers.setdefault((row,) if code < 0 else groups.value(code), len(numbers))
    return ids


def best_of_each(ids: Rows) -> Rows:
    """Places of the first hit of each card."""
    order = np.argsort(ids, kind="stable")  # `np.unique` takes twice as long
    return np.sort(order[np.diff(ids[order], prepend=-1) != 0])


def diverse(ids: Sequence[int], most: int, among: int) -> Rows:
    """Places so that at most `most` of an id are among the first `among`; those held back follow in their order.

    Where others do not suffice, those held back come earlier.
    """
    counts: dict[int, int] = {}
    first: list[int] = []
    for at, value in enumerate(ids):
        if len(first) == among:
            break
        counts[value] = counts.get(value, 0) + 1
        if counts[value] <= most:
            first.append(at)
    rest = np.ones(len(ids), np.bool_)
    rest[first] = False
    return np.concatenate([np.array(first, np.int64), np.flatnonzero(rest)])


@dataclass(frozen=True, slots=True)
class Others:
    """Items that match beside the one on a card: how many, and some of their ids where they were asked for.

    >>> Others(2, ("F001", "F002")).count
    2
    """

    count: int
    ids: tuple[str, ...] | None = None


_without_ids = lru_cache(maxsize=1024)(Others)


class Variants:
    """Which items of an index belong together by a column; `allowed` are those of each segment that match."""

    def __init__(self, segments: Sequence[Segment], column: str, allowed: Sequence[Allowed | None]) -> None:
        self._segments, self._allowed = segments, allowed
        self._groups = [groups_of(segment.catalogue.columns, column) for segment in segments]

    def others(self, shown: Rows, ranking: Rows | None) -> list[Others]:
        """Of each card; with a `ranking` also their ids, in its order, those that it lacks after the others."""
        codes = self._codes(shown)
        sizes = [groups.sizes(codes[:, at], allowed) for at, (groups, allowed) in enumerate(self._parts())]
        counts = (np.sum(sizes, axis=0) - (codes >= 0).any(axis=1)).tolist()
        if ranking is None:
            return list(map(_without_ids, counts))
        ranks = {row: at for at, row in enumerate(ranking.tolist())}
        each = zip(shown.tolist(), codes, counts, strict=True)
        return [Others(count, self._ids(row, own, ranks)) for row, own, count in each]

    def _parts(self) -> Iterator[tuple[Groups, Allowed | None]]:
        return zip(self._groups, self._allowed, strict=True)

    def _codes(self, rows: Rows) -> Rows:
        """The group in each segment that some rows belong to [n, segments], -1 for none."""
        codes = np.full((len(rows), len(self._segments)), -1, np.int64)
        for segment, places, own in by_segment(self._segments, rows):
            at = self._segments.index(segment)
            codes[places, at] = self._groups[at].code[own]
            if len(self._segments) > 1:
                for place in places[codes[places, at] >= 0].tolist():
                    codes[place] = found_in(self._groups, at, int(codes[place, at]))
        return codes

    def _ids(self, shown: int, codes: npt.NDArray[np.int64], ranks: dict[int, int]) -> tuple[str, ...]:
        named: list[tuple[int, int, str]] = []
        for segment, (groups, allowed), code in zip(self._segments, self._parts(), codes.tolist(), strict=True):
            rows = groups.rows(code)
            for at in rows.tolist() if allowed is None else rows[allowed.mask[rows]].tolist():
                if (row := at + segment.first_row) != shown:
                    named.append((ranks.get(row, len(ranks)), row, segment.catalogue.item_id(at)))
        return tuple(name for _, _, name in sorted(named)[:MOST_IDS])

    def count(self) -> int:
        """Cards of all items that match, which should be `COUNTED` at most."""
        cards, seen = 0, set[object]()
        for groups, allowed in self._parts():
            codes = groups.code if allowed is None else groups.code[np.flatnonzero(allowed.mask)]
            own = np.unique(codes[codes >= 0])
            cards += int(np.count_nonzero(codes < 0)) + len(own)
            if len(self._groups) > 1:
                values = {groups.value(code) for code in own.tolist()}
                cards -= len(values & seen)
                seen |= values
        return cards
