"""The inverted file: lists of near items as 4-bit codes in one mapped file, and which lists a query should visit.

What costs time at a million items is memory, not arithmetic, so everything is kept small (figures: 0010 in
docs/decisions):

- principal directions of the vectors come first; lists are formed and ranked in the leading ones, a quarter to half,
  which rank lists nearly as well as all of them do. A list is ranked by its centre's direction: a centre of scattered
  items is short, though the best of them score as high. Directions are codes, too, of 4 bits a dimension: the ranking
  errs little and costs a third of an exact one;
- an item's code is its offset from its list's centre, 4 bits for each four directions (an eighth of a byte a dimension;
  of four there are faster loops than of three). Directions are dealt to the quantizers so that their product of
  variances is even: in their natural order the same bytes find much less;
- codes lie in blocks of 32, as faiss's SIMD scan reads them.

Items are numbered list by list: a list's rows, its vectors and its bits in a filter's mask lie side by side.
``lists.bin`` holds for each list its blocks of codes and then its rows; faiss reads it where it is mapped.
"""

import ctypes
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import faiss
import numpy as np
import numpy.typing as npt

from smar.core.errors import InputError
from smar.search.ranked import Rows, Vectors, products

LISTS_FILE = "lists.bin"
COARSE_FILE = "coarse.npz"
EXACT_FILE = "vectors.npy"
BLOCK = 32
"""Items whose codes lie interleaved."""
_RESERVOIR_SCAN = 11  # faiss's way of scanning for one query at a time; what it would choose takes twice as long

Bits = npt.NDArray[np.uint64]


class Lists:
    """The lists of `items` vectors of `dim` = 2k numbers, mapped from a version folder.

    Raises:
        InputError: a file is missing or does not fit the others; the message names it.
    """

    def __init__(self, folder: Path, items: int, dim: int, made_by: str) -> None:
        path = folder / COARSE_FILE
        try:
            with np.load(path, allow_pickle=False) as parts:
                self._turn, centres, ranking, sizes, centroids = (
                    np.ascontiguousarray(parts[name]) for name in ("turn", "centres", "ranking", "sizes", "centroids")
                )
            self._ranking = faiss.deserialize_index(ranking)
        except (OSError, ValueError, KeyError, BadZipFile, RuntimeError) as error:
            raise InputError(f"{path} cannot be read: {error}. Run `{made_by}` again.") from None
        self._leading = centres.shape[-1]
        fine = len(self._turn) - self._leading
        shapes = {centres.shape, (self._ranking.ntotal, self._ranking.d), (len(sizes), self._leading)}
        if self._turn.shape[1] != dim or fine < 1 or len(shapes) > 1 or sizes.sum() != items:
            raise InputError(f"{path} is not of {items:,} vectors of {dim} dimensions. Run `{made_by}` again.")
        self.count, self._sizes, self._ends = len(sizes), sizes, np.cumsum(sizes)
        self._across = np.ascontiguousarray(self._turn.T)  # for several queries in a fifth of the time: not packed anew
        self._centres, self._lengths = centres, lengths_of(centres)
        self._unused = faiss.IndexFlatIP(fine)  # which lists to visit is decided here, not by faiss
        self._codes = faiss.IndexIVFPQFastScan(
            self._unused, fine, self.count, quantizers_of(dim), 4, faiss.METRIC_INNER_PRODUCT
        )
        if len(centroids) != self._codes.pq.centroids.size():
            raise InputError(f"{path} is not of {items:,} vectors of {dim} dimensions. Run `{made_by}` again.")
        faiss.copy_array_to_vector(centroids, self._codes.pq.centroids)
        self._codes.by_residual = True  # codes are offsets from the centres
        self._codes.is_trained, self._codes.ntotal, self._codes.implem = True, items, _RESERVOIR_SCAN
        self._lists = _mapped(folder / LISTS_FILE, sizes, self._codes.code_size, made_by)
        self._codes.replace_invlists(self._lists, False)
        self._parameters: dict[int, Any] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def counts(self, bits: Bits) -> npt.NDArray[np.int32]:
        """How many of the rows marked in `bits` lie in each list.

        `bits` holds a bit for each row in words of 64, the lowest first, and one more word.
        """
        words, within = self._ends >> 6, (self._ends & 63).astype(np.uint64)
        before = np.cumsum(np.bitwise_count(bits), dtype=np.int32)[words]
        rest = np.bitwise_count(bits[words] >> within)  # in the last word, but not in the list
        counts: npt.NDArray[np.int32] = before - rest
        counts[1:] -= counts[:-1].copy()
        return counts

    def aim(self, wide: Vectors) -> tuple[Vectors, Vectors]:
        """Queries [n, 2k] as the lists see them: [n, l] in the leading directions ranks lists, [n, d] meets codes."""
        turned = wide @ (self._turn.T if len(wide) == 1 else self._across)
        return np.ascontiguousarray(turned[:, : self._leading]), np.ascontiguousarray(turned[:, self._leading :])

    def nearest(self, coarse: Vectors, most: int) -> tuple[Rows, Vectors]:
        """The `most` lists nearest in angle, best first, and their scores; [n, most] both, fewer if there are fewer."""
        most = min(most, self.count)
        scores: Vectors = np.empty((len(coarse), most), np.float32)
        lists: Rows = np.empty((len(coarse), most), np.int64)
        self._ranking.search_c(len(coarse), faiss.swig_ptr(coarse), most, faiss.swig_ptr(scores), faiss.swig_ptr(lists))
        return lists, scores

    def near(self, coarse: Vectors, lists: Rows) -> Vectors:
        """Inner products of one query [l] with the centres of `lists` [n], exactly."""
        return products(self._centres, coarse, lists)

    def ordered(self, coarse: Vectors) -> tuple[Rows, Vectors, Vectors]:
        """All lists for one query [l], nearest in angle first, their scores, and their `near`; [lists] each.

        Ordered to one part in 30,000 of the best score, which takes an eighth of the time.
        """
        near = self._centres @ coarse
        scores = near / self._lengths
        steps = scores * np.float32(-30_000 / max(float(np.abs(scores).max()), 1e-9))
        lists = np.argsort(steps.astype(np.int16), kind="stable")
        return lists, scores[lists], near[lists]

    def visit(
        self, fine: Vectors, lists: Rows, near: Vectors, candidates: int, selector: Any = None
    ) -> tuple[Rows, Vectors]:
        """The best `candidates` of some lists by their codes: rows and rough scores, in no certain order.

        `fine` [d], `lists` and `near` [number of lists] are of one query; `selector` is a faiss IDSelector.
        """
        rough: Vectors = np.empty(candidates, np.float32)
        rows: Rows = np.empty(candidates, np.int64)
        if selector is not None:
            parameters = faiss.SearchParametersIVF(nprobe=len(lists), sel=selector)
        elif (parameters := self._parameters.get(len(lists))) is None:
            parameters = self._parameters[len(lists)] = faiss.SearchParametersIVF(nprobe=len(lists))
        into = [faiss.swig_ptr(array) for array in (lists, near, rough, rows)]
        self._codes.search_preassigned_c(1, faiss.swig_ptr(fine), candidates, *into, False, parameters)
        if rows[-1] >= 0:  # what was not found comes last
            return rows, rough
        return rows[rows >= 0], rough[rows >= 0]

    def lists_of(self, rows: Rows) -> Rows:
        """The list that each of `rows` lies in."""
        found: Rows = np.searchsorted(self._ends, rows, side="right")
        return found


def lengths_of(centres: Vectors) -> Vectors:
    """Lengths of centres [n, d]; none is zero."""
    lengths: Vectors = np.maximum(np.linalg.norm(centres, axis=1), 1e-9).astype(np.float32)
    return lengths


def quantizers_of(dim: int) -> int:
    """How many numbers of 4 bits a code of `dim` = 2k dimensions has."""
    return max(dim // 4, 1)


def _mapped(path: Path, sizes: npt.NDArray[np.int64], code_size: int, made_by: str) -> Any:
    """faiss's inverted lists over the file as it lies on disk, shared with every process that maps it."""
    room = -(-sizes // BLOCK) * BLOCK
    ends = np.cumsum(room * (code_size + np.dtype(np.int64).itemsize))
    if not path.is_file():
        raise InputError(f"{path} is missing. Run `{made_by}` again.")
    if path.stat().st_size != ends[-1]:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes, expected {ends[-1]:,}. Run `{made_by}` again.")
    lists = faiss.OnDiskInvertedLists()
    lists.nlist, lists.code_size, lists.filename, lists.totsize = len(sizes), code_size, str(path), int(ends[-1])
    lists.read_only, lists.prefetch_nthread = True, 0  # else faiss starts 32 threads for a query
    lists.lists.resize(len(sizes))
    # a C struct of three numbers for each list: size, capacity, offset; setting them one by one changes copies
    places = np.stack([sizes, room, np.concatenate([[0], ends[:-1]])], axis=1).astype(np.uint64)
    ctypes.memmove(int(lists.lists.data().this), places.ctypes.data, places.nbytes)
    lists.do_mmap()
    return lists
