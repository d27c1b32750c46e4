"""Nearest vectors by inner product: exact for small catalogues, IVF with exact re-scoring for large ones.

Above `EXACT_LIMIT` items an inverted file with 8-bit codes proposes candidates, whose exact inner products are then
taken from the memory-mapped float vectors. Under a filter an inverted file loses recall when matching items
lie far from the query, so the planner chooses by how many items the filter leaves:

- up to `SCAN_LIMIT`: their vectors are scanned exactly;
- more: the inverted file with the filter as a bitmap. Lists are visited nearest first, those without a match left out,
  until they hold as many matching items as an unfiltered search would look at. So a filter that has nothing to do with
  the query costs no recall, and one that keeps half of the items visits twice the lists.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

EXACT_LIMIT = 100_000
SCAN_LIMIT = 50_000
_REFINE = 2  # candidates per wanted hit; 4 gained nothing in recall@50 (8-bit codes rank almost exactly)
_MIN_CANDIDATES = 100
_BLOCK = 65_536  # rows added to faiss at a time
_TRAINING_PER_LIST = 20  # with 5 rounds: 1 M x 256 trained in 12 CPU s; 40 and 8 take 35 for 0.5 points of recall
_ROUNDS = 5
_FILTERED = 2  # a filter may leave only far items, whose best are spread over more lists

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
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
            object.__setattr__(self, "_per_list", np.bincount(list_of[self.mask], minlength=lists))
        return self._per_list  # type: ignore[return-value]


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
    for start in range(0, count, _BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))
    return index


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

    def top(self, queries: Vectors, k: int, allowed: Allowed | None = None) -> list[Rows]:
        """Rows of each query's `k` largest inner products, best first; fewer only when fewer are allowed."""
        count = len(self) if allowed is None else allowed.count
        if self.index is None or (allowed is not None and count <= max(k, SCAN_LIMIT if self.nprobe else 0)):
            return self._scan_all(queries, k, allowed)
        if self.nprobe is None:
            selector = None if allowed is None else faiss.IDSelectorBitmap(allowed.bitmap)
            return self._search(queries, k, min(k, len(self)), faiss.SearchParameters(sel=selector))
        return self._probe(queries, k, self.nprobe, allowed)

    def _probe(self, queries: Vectors, k: int, nprobe: int, allowed: Allowed | None) -> list[Rows]:
        candidates = min(max(_REFINE * k, _MIN_CANDIDATES), len(self))
        if allowed is None:
            parameters = faiss.SearchParametersIVF(nprobe=nprobe)
            found = self._search(queries, k, candidates, parameters)
        else:
            found = self._probe_matching(queries, k, candidates, nprobe, allowed)
        count = len(self) if allowed is None else allowed.count
        short = [at for at, rows in enumerate(found) if len(rows) < min(k, count)]
        for at in short:
            found[at] = self._scan_all(queries[at : at + 1], k, allowed)[0]
        return found

    def _probe_matching(self, queries: Vectors, k: int, candidates: int, nprobe: int, allowed: Allowed) -> list[Rows]:
        matching = allowed.per_list(self._list_of, self.index.nlist)
        budget = _FILTERED * nprobe * len(self) / self.index.nlist
        near = queries @ self._centroids.T
        found = []
        with _one_thread():
            for query, scores in zip(queries, near, strict=True):
                lists = np.argsort(-scores)
                held = matching[lists]
                enough = int(np.searchsorted(np.cumsum(held), budget)) + 1
                lists = lists[:enough][held[:enough] > 0]
                rows = self._visit(query, lists, scores[lists], candidates, allowed)
                found.append(self._best(query, rows, k))
        return found

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

    def _search(self, queries: Vectors, k: int, candidates: int, parameters: Any) -> list[Rows]:
        with _one_thread():
            _, found = self.index.search(queries, candidates, params=parameters)
        return [self._best(query, rows[rows >= 0], k) for query, rows in zip(queries, found, strict=True)]

    def _scan_all(self, queries: Vectors, k: int, allowed: Allowed | None) -> list[Rows]:
        rows = np.arange(len(self)) if allowed is None else allowed.rows
        return [self._best(query, rows, k) for query in queries]

    def scores(self, query: Vectors, rows: Rows) -> Vectors:
        """Exact inner products of `query` [2k] with some rows.

        They are read where they lie: 4.5 ms for 45 k of 256 dimensions; gathered first, 3 to 15 times that.
        """
        rows, query = np.ascontiguousarray(rows, np.int64), np.ascontiguousarray(query, np.float32)
        scores = np.empty(len(rows), np.float32)
        pointers = [faiss.swig_ptr(array) for array in (scores, query, self.vectors, rows)]
        faiss.fvec_inner_products_by_idx(*pointers, len(query), 1, len(rows))
        return scores

    def _best(self, query: Vectors, rows: Rows, k: int) -> Rows:
        """The best `k` of `rows` in exact order; equal scores by row, so that a repeated search repeats its answer."""
        scores = self.scores(query, rows)
        if len(rows) > 4 * k:
            best = np.argpartition(-scores, k - 1)[:k]
            rows, scores = rows[best], scores[best]
        return rows[np.lexsort((rows, -scores))[:k]]
