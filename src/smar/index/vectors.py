"""Nearest vectors by inner product: exact for small catalogues, IVF with exact re-scoring for large ones.

Above `EXACT_LIMIT` items an inverted file with 8-bit codes proposes candidates, whose exact inner products are then
taken from the memory-mapped float vectors. Under a filter an inverted file loses recall when matching items
lie far from the query, so the planner chooses by how many items the filter leaves:

- few (`SCAN_FLOATS`): their vectors are scanned exactly;
- more: the inverted file with the filter as a bitmap. Lists are visited nearest first, those without a match left out:
  first as many lists as without a filter, then as many again, then twice as many, until a step changes at most two
  hits in fifty. A filter that has to do with the query stops there; one that leaves only far items,
  whose best are spread over all lists, ends with an exact scan of what matches.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from smar.index.ranked import Found, Queries, Query, Rows, Vectors, exact_best

EXACT_LIMIT = 100_000
SCAN_FLOATS = 6_400_000  # 25,000 rows of 2 x 128: 3 to 4 ms
_REFINE = 2  # candidates per wanted hit; 4 gained nothing in recall@50 (8-bit codes rank almost exactly)
_MIN_CANDIDATES = 100
_BLOCK = 65_536  # rows given to faiss at a time
_TRAINING_PER_LIST = 20  # with 5 rounds: 1 M x 256 trained in 12 CPU s; 40 and 8 take 35 for 0.5 points of recall
_ROUNDS = 5
_JUDGED = 50  # hits by which a filtered search judges whether it may stop
_SETTLED = 0.04
_STEPS = 4
_FIRST = 10  # matching items for each judged hit that the first step looks at

Mask = npt.NDArray[np.bool_]


@dataclass(eq=False)
class Allowed:
    """The items that may be found: `mask` [items] and how many it lets through."""

    mask: Mask
    count: int
    _per_list: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(cls, mask: Mask) -> "Allowed":
        """From a boolean mask [items]."""
        return cls(mask, int(np.count_nonzero(mask)))

    @cached_property
    def bitmap(self) -> npt.NDArray[np.uint8]:
        """The mask as faiss reads it, one bit an item."""
        return np.packbits(self.mask, bitorder="little")

    @cached_property
    def rows(self) -> Rows:
        """The items' rows, ascending."""
        return np.flatnonzero(self.mask)

    def per_list(self, list_of: npt.NDArray[np.int32], lists: int) -> npt.NDArray[np.int64]:
        """How many of the items lie in each inverted list [lists]; counted once."""
        if self._per_list is None:
            self._per_list = np.bincount(list_of[self.mask], minlength=lists)
        return self._per_list


def train(vectors: Vectors, exact_limit: int) -> Any:
    """A faiss index over `vectors` [n, 2k]: Flat up to `exact_limit` rows, IVF-SQ8 above."""
    count, dim = vectors.shape
    if count <= exact_limit:
        index = faiss.IndexFlatIP(dim)
    else:
        lists = max(1, min(int(4 * count**0.5), count // _TRAINING_PER_LIST))
        index = faiss.index_factory(dim, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
        index.cp.niter = _ROUNDS
        index.cp.min_points_per_centroid = 1  # else faiss warns
        sample = np.random.default_rng(0).permutation(count)[: lists * _TRAINING_PER_LIST]
        index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    for block in in_blocks(vectors):
        index.add(block)
    return index


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


def in_blocks(vectors: Vectors) -> Iterator[Vectors]:
    """The rows [n, 2k] in blocks of contiguous memory."""
    for start in range(0, len(vectors), _BLOCK):
        yield np.ascontiguousarray(vectors[start : start + _BLOCK])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Searching is served by more processes, not more threads: they wait for each other by spinning.

    Measured on two busy cores, 44 k items: 2 ms of CPU for a query with one thread, 20 ms with two.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


class VectorStore:
    """A faiss index and the exact float32 vectors [n, 2k] behind it; without an index, everything is scanned."""

    def __init__(self, index: Any, vectors: Vectors, nprobe: int | None) -> None:
        self.index = index
        self.vectors = vectors
        self.nprobe = nprobe  # None: every search is exact

    def __len__(self) -> int:
        return len(self.vectors)

    def top(
        self, queries: Queries, k: int, allowed: Allowed | None = None, alive: Allowed | None = None
    ) -> list[Found]:
        """Each query's `k` items of largest score, best first; fewer only when fewer are allowed.

        `allowed` holds the rows that a filter leaves; `alive`, where there is no filter, those that are not deleted.
        """
        if alive is not None:
            return self._top_alive(queries, k, alive)
        count = len(self) if allowed is None else allowed.count
        scanned = k if self.nprobe is None else max(k, SCAN_FLOATS // self.vectors.shape[1])
        if self.index is None or (allowed is not None and count <= scanned):
            return self._scan_all(queries, k, allowed)
        if self.nprobe is None:
            selector = None if allowed is None else faiss.IDSelectorBitmap(allowed.bitmap)
            return self._search(queries, k, min(k, len(self)), faiss.SearchParameters(sel=selector))
        if allowed is not None:
            return self._probe_matching(queries, k, self.nprobe, allowed)
        found = self._search(queries, k, self._candidates(k), faiss.SearchParametersIVF(nprobe=self.nprobe))
        for at, items in enumerate(found):
            if len(items) < min(k, count):
                found[at] = self._scan_all(queries.part(slice(at, at + 1)), k, None)[0]
        return found

    def _top_alive(self, queries: Queries, k: int, alive: Allowed) -> list[Found]:
        """Dead rows are dropped from a longer answer, which costs less than asking faiss about every row.

        `nprobe` was tuned for the best k. Where more than a third of what comes before the k-th living row is dead,
        the answer lies deeper than that, and the lists are visited until it settles.
        """
        found = []
        for at, items in enumerate(self.top(queries, k + k // 2)):
            living = items.pick(np.flatnonzero(alive.mask[items.rows])[:k])
            found.append(living if len(living) == k else self.top(queries.part(slice(at, at + 1)), k, alive)[0])
        return found

    def _candidates(self, k: int) -> int:
        return min(max(_REFINE * k, _MIN_CANDIDATES), len(self))

    def _probe_matching(self, queries: Queries, k: int, nprobe: int, allowed: Allowed) -> list[Found]:
        matching = allowed.per_list(self._list_of, self.index.nlist)
        near = queries.wide @ self._centroids.T
        with _one_thread():
            return [
                self._until_settled(queries[at], scores, k, nprobe, matching, allowed) for at, scores in enumerate(near)
            ]

    def _until_settled(
        self,
        query: Query,
        near: Vectors,
        k: int,
        nprobe: int,
        matching: npt.NDArray[np.int64],
        allowed: Allowed,
    ) -> Found:
        """Visit lists with matches, nearest first, in steps that double, until a step hardly changes the answer.

        An answer that does not settle in `_STEPS` has its best items everywhere, at scores so dense that 8-bit codes
        cannot order them: that is scanned exactly.
        """
        lists = np.argsort(-near)
        lists = lists[matching[lists] > 0]
        held = np.cumsum(matching[lists])
        judged = max(k, _JUDGED)
        best: Rows = np.empty(0, np.int64)
        start, wanted = 0, _FIRST * judged
        for _ in range(_STEPS):
            stop = max(start + nprobe, int(np.searchsorted(held, wanted)) + 1)
            part = lists[start:stop]
            new = self._visit(query.wide, part, near[part], self._candidates(k), allowed)
            together = self._best(query, np.concatenate([best, new]), max(self._candidates(k), judged))
            gained = np.isin(together.rows[:judged], new, assume_unique=True).sum()
            if start > 0 and len(together) >= k and gained <= _SETTLED * judged:
                return together.pick(slice(k))
            best, start = together.rows, stop
            if start >= len(lists):
                break
            nprobe, wanted = start, 2 * max(wanted, int(held[start - 1]))
        return self._best(query, allowed.rows, k)

    def _visit(self, query: Vectors, lists: Rows, near: Vectors, candidates: int, allowed: Allowed) -> Rows:
        """Rows of the candidates in `lists`; faiss's Python wrapper of this call takes no parameters."""
        parameters = faiss.SearchParametersIVF(nprobe=len(lists), sel=faiss.IDSelectorBitmap(allowed.bitmap))
        scores, rows = np.empty(candidates, np.float32), np.empty(candidates, np.int64)
        query = np.ascontiguousarray(query)
        into = [faiss.swig_ptr(array) for array in (lists, near, scores, rows)]
        self.index.search_preassigned_c(1, faiss.swig_ptr(query), candidates, *into, False, parameters)
        return rows[rows >= 0]

    @cached_property
    def _centroids(self) -> Vectors:
        quantizer = faiss.downcast_index(self.index.quantizer)
        size = quantizer.ntotal * quantizer.d
        centroids: Vectors = faiss.rev_swig_ptr(quantizer.get_xb(), size).reshape(-1, quantizer.d)
        return centroids

    @cached_property
    def _list_of(self) -> npt.NDArray[np.int32]:
        """The inverted list of each row [n]."""
        lists = np.zeros(len(self), np.int32)
        for number in range(self.index.nlist):
            size = self.index.invlists.list_size(number)
            if size:
                lists[faiss.rev_swig_ptr(self.index.invlists.get_ids(number), size)] = number
        return lists

    def _search(self, queries: Queries, k: int, candidates: int, parameters: Any) -> list[Found]:
        with _one_thread():
            _, found = self.index.search(queries.wide, candidates, params=parameters)
        return [self._best(queries[at], rows[rows >= 0], k) for at, rows in enumerate(found)]

    def _scan_all(self, queries: Queries, k: int, allowed: Allowed | None) -> list[Found]:
        rows = np.arange(len(self)) if allowed is None else allowed.rows
        return [self._best(queries[at], rows, k) for at in range(len(queries))]

    def _best(self, query: Query, rows: Rows, k: int) -> Found:
        return exact_best(self.vectors, query, rows, k)
