"""Nearest vectors by inner product: exact for small catalogues, lists of codes with exact re-scoring for large ones.

Above `EXACT_LIMIT` items `lists` proposes candidates by 4-bit codes, whose exact inner products are then
taken from the memory-mapped float vectors. Under a filter lists lose recall when matching items
lie far from the query, so the planner chooses by how many items the filter leaves:

- few (`SCAN_FLOATS`): their vectors are scanned exactly;
- more: lists are visited nearest first, those without a match left out, with the filter as a bitmap: twice as many as
  without a filter, and if the second half of them brought more than six hits in fifty, as many again. A filter that has
  to do with the query stops there;
- one that leaves only far items, whose best are spread over all lists: all lists are visited. Where the codes could not
  tell the best items from those left out, what matches is scanned exactly.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from smar.search.local.lists import Bits, Lists
from smar.search.ranked import Found, Near, Queries, Query, Rows, Vectors, exact_best

EXACT_LIMIT = 100_000
SCAN_FLOATS = 2_560_000  # 10,000 rows of 2 x 128
_JUDGED = 50  # hits by which a filtered search judges whether it may stop
_SETTLED = 0.12  # less finds no more, and takes much longer where few match
_STEPS = 2
_FILTERED = 6  # at least so many candidates a hit: far from the query scores lie closer together than codes tell
_NEARLY_ALL = 0.9
"""Share of the items from which on those that a filter leaves out are dropped from a longer answer."""
_MIN_CANDIDATES = 100
_FEW_DEAD = 20
"""Spare hits where fewer than one item in a hundred is dead or hidden."""
_EQUAL = 16
"""Hits beyond the last one that are looked at for equal scores, as variants of one title have."""
_FEW_OTHERS = 64
_NARROW = 200 + _FEW_DEAD  # hits up to which lists are left out by the margin, which is tuned for 50
_NTH = 4  # list that the others are compared with; the best may be alone
_FIRST = 10  # matching items for each judged hit that the first step looks at
_DEEP = 2_000  # candidates of a visit to all lists
CANDIDATE_COST = 40
"""Scoring an item exactly takes as long as reading so many codes."""
_DOUBT = 3.0  # standard deviations of the codes' error

Mask = npt.NDArray[np.bool_]


class Effort(BaseModel):
    """What one search spends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    lists: int = Field(ge=1, description="lists visited at most")
    margin: float = Field(ge=0, description="how much less than the fourth best list a visited one may score")
    candidates: int = Field(ge=1, description="scored exactly for each of the first 50 hits; two for each after them")

    def of(self, k: int) -> int:
        """Candidates for `k` hits."""
        first = min(k, _JUDGED)
        return max(self.candidates * first + 2 * (k - first), _MIN_CANDIDATES)

    def __str__(self) -> str:
        return f"{self.lists} lists at most, margin {self.margin:.3f}, {self.candidates} candidates a hit"

    def reach(self, scores: Vectors) -> int:
        """How many lists one query visits, of those with `scores` [lists], best first."""
        lowest = scores[min(_NTH, len(scores)) - 1] - self.margin
        return int(np.count_nonzero(scores[: self.lists] >= lowest))


class Probes(BaseModel):
    """Each kind of search has its own effort, as each needs another for the same recall."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: Effort = Field(description="for the text score alone")
    adaptive: Effort = Field(description="for both")
    multimodal: Effort = Field(description="for the multimodal score alone")

    def __str__(self) -> str:
        return "; ".join(f"{kind} {effort}" for kind, effort in self)

    def of(self, share: float) -> Effort:
        """For a query with this share of the multimodal score, 0..1."""
        return self.text if share == 0 else self.multimodal if share == 1 else self.adaptive


@dataclass(eq=False)
class Allowed:
    """The items that may be found: `mask` [items] and how many it lets through."""

    mask: Mask
    count: int
    _per_list: npt.NDArray[np.int32] | None = None

    @classmethod
    def of(cls, mask: Mask) -> "Allowed":
        """From a boolean mask [items]."""
        return cls(mask, int(np.count_nonzero(mask)))

    @cached_property
    def bits(self) -> Bits:
        """The mask at one bit an item, the lowest first; whole words, and one more."""
        words = np.zeros(len(self.mask) // 64 + 1, np.uint64)
        packed = np.packbits(self.mask, bitorder="little")
        words.view(np.uint8)[: len(packed)] = packed
        return words

    @cached_property
    def selector(self) -> Any:
        """The mask as faiss reads it."""
        return faiss.IDSelectorBitmap(self.bits.view(np.uint8))

    @cached_property
    def rows(self) -> Rows:
        """The items' rows, ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def few_others(self) -> Rows | None:
        """The rows that it does not let through, where they are few: what a shop hides."""
        return np.flatnonzero(~self.mask) if len(self.mask) - self.count <= _FEW_OTHERS else None

    def per_list(self, lists: Lists) -> npt.NDArray[np.int32]:
        """How many of the items lie in each list; counted once."""
        if self._per_list is None:
            self._per_list = lists.counts(self.bits)
        return self._per_list


def exact_top(blocks: Iterable[Vectors], queries: Vectors, k: int) -> Rows:
    """Rows of each query's `k` largest inner products over all blocks, best first, [queries, k]; -1 fills up.

    A block at a time: the vectors together may exceed memory.
    """
    heap, start = faiss.ResultHeap(len(queries), k, keep_max=True), 0
    for block in blocks:
        scores, rows = faiss.knn(queries, block, min(k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        heap.add_result(scores, rows + start)
        start += len(block)
    heap.finalize()
    found: Rows = heap.I
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Searching is served by more processes, not more threads: they wait for each other by spinning."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


class VectorStore:
    """Exact float32 vectors [n, 2k] and what finds its way among them.

    `index` is a Flat index of faiss, or lists (then with `probes`); without, everything is scanned.
    """

    def __init__(self, index: Any, vectors: Vectors, probes: Probes | None) -> None:
        self.index = index
        self.vectors = vectors
        self.probes = probes  # None: every search is exact

    def __len__(self) -> int:
        return len(self.vectors)

    def top(
        self, queries: Queries, k: int, allowed: Allowed | None = None, alive: Allowed | None = None
    ) -> list[Found]:
        """Each query's `k` items of largest score, best first; fewer only when fewer are allowed.

        `allowed` holds the rows that a filter leaves; `alive`, where there is no filter, those that are not deleted.
        """
        count = len(self) if allowed is None else allowed.count
        if alive is None and self.probes is not None and len(self) > count >= _NEARLY_ALL * len(self):
            alive = allowed  # such as all but what a shop hides
        if alive is not None:
            return self._top_alive(queries, k, alive)
        return self._filtered(queries, k, allowed)

    def _filtered(self, queries: Queries, k: int, allowed: Allowed | None) -> list[Found]:
        count = len(self) if allowed is None else allowed.count
        scanned = k if self.probes is None else max(k, SCAN_FLOATS // self.vectors.shape[1])
        if self.index is None or (allowed is not None and count <= scanned):
            return [self._scan(queries[at], k, allowed) for at in range(len(queries))]
        with _one_thread():
            if self.probes is None:
                return self._search_flat(queries, k, allowed)
            return self._search_lists(queries, k, self.probes, allowed)

    def around(
        self, queries: Queries, k: int, allowed: Allowed | None = None, alive: Allowed | None = None
    ) -> list[Near]:
        """`k` items at least about each query, those of largest score as far as codes tell; fewer where there are not.

        Their vectors are not read, which would cost more than all else.
        """
        if self.index is None or self.probes is None or allowed is not None:
            return [Near.of(found) for found in self.top(queries, k, allowed, alive)]
        with _one_thread():
            near = list(self._candidates(queries, k, self.probes))
        if alive is None:
            return near
        living = [items.pick(alive.mask[items.rows]) for items in near]
        return [
            items if len(items) >= k else Near.of(self.top(queries.part(slice(at, at + 1)), k, alive)[0])
            for at, items in enumerate(living)
        ]

    def _top_alive(self, queries: Queries, k: int, alive: Allowed) -> list[Found]:
        """Dead rows are dropped from a longer answer, which costs less than asking faiss about every row.

        The probes were tuned for the best k. Where more of what comes before the k-th living row is dead than there are
        spare hits, the answer lies deeper than that, and the lists are visited until it settles.
        """
        found, dead = [], len(self) - alive.count
        spare = min(k // 2, dead if 100 * dead > len(self) else min(dead, _FEW_DEAD))
        for at, items in enumerate(self.top(queries, k + spare)):
            living = items.pick(np.flatnonzero(alive.mask[items.rows])[:k])
            found.append(living if len(living) == k else self._filtered(queries.part(slice(at, at + 1)), k, alive)[0])
        return found

    def _search_flat(self, queries: Queries, k: int, allowed: Allowed | None) -> list[Found]:
        parameters = faiss.SearchParameters(sel=None if allowed is None else allowed.selector)
        _, found = self.index.search(queries.wide, min(k + _EQUAL, len(self)), params=parameters)
        return [self._best_of_all(queries[at], rows[rows >= 0], k, allowed) for at, rows in enumerate(found)]

    def _best_of_all(self, query: Query, rows: Rows, k: int, allowed: Allowed | None) -> Found:
        """The best `k` of `rows`, beyond which others may be as good as the last: which of these are found is ours to
        decide, always alike, as faiss's choice depends on `k`, and pages would repeat items and lack others."""
        found = self._best(query, rows, len(rows))
        if len(rows) == k + _EQUAL and found.score[k - 1] == found.score[-1]:
            return self._scan(query, k, allowed)
        return found.pick(slice(k))

    def _search_lists(self, queries: Queries, k: int, probes: Probes, allowed: Allowed | None) -> list[Found]:
        if allowed is None:
            return [
                self._best(queries[at], near.rows, k) for at, near in enumerate(self._candidates(queries, k, probes))
            ]
        coarse, fine = self.index.aim(queries.wide)
        wanted = [probes.of(float(share)) for share in queries.share]
        return [
            self._until_settled(queries[at], fine[at], coarse[at], k, effort, allowed)
            for at, effort in enumerate(wanted)
        ]

    def _candidates(self, queries: Queries, k: int, probes: Probes) -> Iterator[Near]:
        """What the codes propose for each query, `k` at least."""
        coarse, fine = self.index.aim(queries.wide)
        wanted = [probes.of(float(share)) for share in queries.share]
        lists, scores = self.index.nearest(coarse, max((effort.lists for effort in wanted), default=1))
        least = min(k, len(self))

        def visit(at: int, lists: Rows) -> Near:
            candidates = min(wanted[at].of(k), len(self))
            return Near(*self.index.visit(fine[at], lists, self.index.near(coarse[at], lists), candidates))

        for at, effort in enumerate(wanted):
            reach = effort.reach(scores[at]) if k <= _NARROW else effort.lists
            near = visit(at, lists[at, :reach])
            if len(near) < least:
                near = visit(at, lists[at])
            yield near if len(near) >= least else Near.of(self._scan(queries[at], len(self), None))

    def _until_settled(
        self, query: Query, fine: Vectors, coarse: Vectors, k: int, effort: Effort, allowed: Allowed
    ) -> Found:
        """Visit lists with matches, nearest first, twice as many each time, until the later half hardly counts."""
        matching = allowed.per_list(self.index)
        lists, scores, near = self.index.ordered(coarse)
        first = max(effort.reach(scores), effort.lists // 2)
        some = matching[lists] > 0
        lists, near = lists[some], near[some]
        held = np.cumsum(matching[lists])
        judged = max(k, _JUDGED)
        candidates = min(max(effort.of(k), _FILTERED * judged), len(self))
        best: Rows = np.empty(0, np.int64)
        start, half = 0, max(first, int(np.searchsorted(held, _FIRST * judged)) + 1)
        before = np.zeros(self.index.count, np.bool_)
        for _ in range(_STEPS):
            if half >= len(lists):
                break
            stop = max(2 * half, int(np.searchsorted(held, 2 * held[half - 1])) + 1)
            new, _ = self.index.visit(fine, lists[start:stop], near[start:stop], candidates, allowed.selector)
            together = self._best(query, np.concatenate([best, new]), judged)
            before[lists[:half]] = True
            gained = np.count_nonzero(~before[self.index.lists_of(together.rows)])
            if len(together) >= k and gained <= _SETTLED * judged:
                return together.pick(slice(k))
            best, start, half = together.rows, stop, stop
        return self._visit_all(query, fine, lists, near, k, max(_DEEP, candidates), allowed)

    def _visit_all(
        self, query: Query, fine: Vectors, lists: Rows, near: Vectors, k: int, deep: int, allowed: Allowed
    ) -> Found:
        """The best by codes of all that match, if the codes could not have kept a better one out; else the exact scan.

        Far from the query scores can be so dense that no code orders them.
        """
        codes = len(lists) * len(self) / self.index.count
        if CANDIDATE_COST * allowed.count > codes + 2 * CANDIDATE_COST * deep:  # doubting may end in the scan, too
            rows, rough = self.index.visit(fine, lists, near, deep, allowed.selector)
            found = self._best(query, rows, len(rows))
            order = np.argsort(rows)
            error = found.score - rough[order[np.searchsorted(rows, found.rows, sorter=order)]]
            if found.score[k - 1] >= rough.min() + error.mean() + _DOUBT * error.std():
                return found.pick(slice(k))
        return self._scan(query, k, allowed)

    def _scan(self, query: Query, k: int, allowed: Allowed | None) -> Found:
        return self._best(query, np.arange(len(self)) if allowed is None else allowed.rows, k)

    def _best(self, query: Query, rows: Rows, k: int) -> Found:
        return exact_best(self.vectors, query, rows, k)
