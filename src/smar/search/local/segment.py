"""Segments: an index is one of them, or a base and what changed since; each has its own vectors and columns."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from smar.search.column_values import Mask
from smar.search.filters import Filter
from smar.search.local.facets import Part
from smar.search.local.item_store import Catalogue
from smar.search.local.postings import Postings
from smar.search.local.vectors import Allowed, VectorStore
from smar.search.ranked import Found, Near, Queries, Rows

T = TypeVar("T")
_CACHED_FILTERS = 32  # a mask of 1 M items is 1 MB


class Segment:
    """Vectors and items of one part; row r of it is row ``first_row + r`` of the index.

    `dead` marks rows that were deleted or replaced since, boolean [rows]; None when all are alive. Hybrid search needs
    `words`; None in a version that was built without them.
    """

    def __init__(
        self,
        store: VectorStore,
        catalogue: Catalogue,
        first_row: int = 0,
        dead: Mask | None = None,
        words: Postings | None = None,
    ) -> None:
        self.store = store
        self.catalogue = catalogue
        self.first_row = first_row
        self.words = words
        self.dead = dead if dead is not None and dead.any() else None
        self._everything = None if self.dead is None else Allowed.of(~self.dead)
        self._matching = _finder(catalogue, self.dead)

    def allowed(self, filter: Filter | None) -> Allowed | None:
        """Rows that are alive and match; None when that is all of them."""
        return self._everything if filter is None else self._matching(filter)

    def top(self, queries: Queries, k: int, filter: Filter | None) -> list[Found]:
        """Each query's `k` items of largest score in this segment, best first."""
        if filter is None:
            return self.store.top(queries, k, alive=self._everything)
        return self.store.top(queries, k, self.allowed(filter))

    def around(self, queries: Queries, k: int, filter: Filter | None) -> list[Near]:
        """Items around each query, `k` at least; see `VectorStore.around`."""
        if filter is None:
            return self.store.around(queries, k, alive=self._everything)
        return self.store.around(queries, k, self.allowed(filter))

    def part(self, filter: Filter | None) -> Part:
        """What facets count here."""
        allowed = self.allowed(filter)
        mask = np.ones(len(self.store), np.bool_) if allowed is None else allowed.mask
        return Part(self.catalogue.columns, mask, self.catalogue.has_pictures, self.first_row)

    @property
    def alive(self) -> int:
        """Number of items."""
        return len(self.store) if self._everything is None else self._everything.count


def _finder(catalogue: Catalogue, dead: Mask | None) -> Callable[[Filter], Allowed]:
    """What matches a filter, for the latest filters.

    It knows nothing of its segment: in a circle of references, each of some updates a second would leave a segment
    with all changes behind until Python looks for circles.
    """

    @lru_cache(maxsize=_CACHED_FILTERS)
    def find(filter: Filter) -> Allowed:
        mask = filter.mask(catalogue.columns)
        return Allowed.of(mask if dead is None else mask & ~dead)

    return find


def top_of(segments: Sequence[Segment], queries: Queries, k: int, filter: Filter | None) -> list[Found]:
    """Each query's best `k` of all segments; a row of a later segment counts from its `first_row`."""
    found = [segment.top(queries, k, filter) for segment in segments]
    if len(segments) == 1:
        return found[0]
    moved = [[items.moved(segment.first_row) for items in own] for segment, own in zip(segments, found, strict=True)]
    return [Found.joined(parts).best(k) for parts in zip(*moved, strict=True)]


def around_of(segments: Sequence[Segment], queries: Queries, k: int, filter: Filter | None) -> list[Near]:
    """Items around each query in all segments, by row; see `Segment.around`."""
    found = [segment.around(queries, k, filter) for segment in segments]
    rows = [[near.rows + segment.first_row for near in own] for segment, own in zip(segments, found, strict=True)]
    scores = [[near.score for near in own] for own in found]
    together = [
        Near(np.concatenate(own), np.concatenate(score))
        for own, score in zip(zip(*rows, strict=True), zip(*scores, strict=True), strict=True)
    ]
    return [near.pick(np.argsort(near.rows)) for near in together]


def place(segments: Sequence[Segment], row: int) -> tuple[Segment, int]:
    """The segment that holds a row of the index, and where in it."""
    segment = next(segment for segment in reversed(segments) if row >= segment.first_row)
    return segment, row - segment.first_row


class CatalogueView:
    """The items of all segments by the index's row numbers; deleted ones are not found by id.

    >>> from smar.search.local import EmbeddedIndex
    >>> catalogue = EmbeddedIndex.open("index").catalogue
    >>> len(catalogue), catalogue.row_of("no such item")
    (300, None)
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = segments

    def __len__(self) -> int:
        return sum(segment.alive for segment in self._segments)

    @cached_property
    def table(self) -> pa.Table:
        """All rows of the index, those that were deleted or replaced since among them."""
        return pa.concat_tables([segment.catalogue.table for segment in self._segments])

    def _place(self, row: int) -> tuple[Catalogue, int]:
        segment, at = place(self._segments, row)
        return segment.catalogue, at

    def row_of(self, item_id: str) -> int | None:
        """Row of an item, None when there is none of that id."""
        for segment in self._segments:
            row = segment.catalogue.row_of(item_id)
            if row is not None and (segment.dead is None or not segment.dead[row]):
                return segment.first_row + row
        return None

    def following(self, item_id: str, most: int, filter: Filter | None) -> Rows:
        """Rows of the first `most` items after an id that match, by ascending id (UTF-8), int64 [n].

        Whoever goes on with the last id of each answer meets every item once that is there all the while.
        """
        found: list[tuple[str, int]] = []
        for segment in self._segments:
            allowed = segment.allowed(filter)
            some = segment.catalogue.following(item_id, most, None if allowed is None else allowed.mask)
            found += [(name, segment.first_row + row) for name, row in some]
        return np.array([row for _, row in sorted(found)[:most]], np.int64)

    def items(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The columns of some rows, in their order."""
        if len(self._segments) == 1:
            return self._segments[0].catalogue.items(rows)
        return [catalogue.items([at])[0] for catalogue, at in map(self._place, rows)]

    def json(self, rows: Rows) -> list[bytes]:
        """Some items (rows int64 [n]) as JSON objects, in their order; made once, not for each answer."""
        return self._each(rows, lambda catalogue, places: catalogue.json(places))

    def pictured(self, rows: Rows) -> Mask:
        """Which of some rows (int64 [n]) have a picture, boolean [n]."""
        return np.array(self._each(rows, lambda catalogue, places: catalogue.pictured(places).tolist()), np.bool_)

    def _each(self, rows: Rows, ask: Callable[[Catalogue, Rows], list[T]]) -> list[T]:
        """Ask each segment for its rows at once, and put the answers in the order of `rows`."""
        base = self._segments[0]
        if len(self._segments) == 1 or not len(rows) or rows.max() < len(base.store):
            return ask(base.catalogue, rows)
        answers: list[T | None] = [None] * len(rows)
        for segment in self._segments:
            places = np.flatnonzero((rows >= segment.first_row) & (rows < segment.first_row + len(segment.store)))
            for place, answer in zip(places, ask(segment.catalogue, rows[places] - segment.first_row), strict=True):
                answers[place] = answer
        return answers  # type: ignore[return-value]  # every row lies in one segment

    def item_id(self, row: int) -> str:
        """Id of the item at `row`."""
        catalogue, at = self._place(row)
        return catalogue.item_id(at)

    def has_picture(self, row: int) -> bool:
        """Whether `picture` would return one."""
        catalogue, at = self._place(row)
        return catalogue.has_picture(at)

    def picture(self, row: int) -> bytes | None:
        """The encoded picture of an item, None when it has none."""
        catalogue, at = self._place(row)
        return catalogue.picture(at)

    def first(self) -> int:
        """Row of some item."""
        segment = next(segment for segment in self._segments if segment.alive)
        return segment.first_row + (0 if segment.dead is None else int(np.argmin(segment.dead)))
