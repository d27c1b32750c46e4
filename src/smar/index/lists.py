"""The inverted file: lists of near items as 4-bit codes in one mapped file, and which lists a query should visit.

What costs time at 1 M items is memory, not arithmetic, so everything is kept small (2k = 256 dimensions):

- principal directions of the vectors come first (`basis`); lists are formed and ranked in the leading half of them,
  which ranks lists as well as all of them do for half the bytes. A list is ranked by its centre's direction: a centre
  of scattered items is short, though the best of them score as high (96 lists of 4,000 hold .96 of the best, else .92).
  Directions are codes, too, of 4 bits a dimension: the ranking errs by .011 and costs a third of an exact one;
- an item's code is its offset from its list's centre in the three quarters of the directions that vary most, 4 bits
  for each three of them (32 bytes instead of 256). Directions are dealt to the quantizers so that their product of
  variances is even: in their natural order the same 32 bytes find .28 of the best 50 among 200 candidates, dealt .95;
- codes lie in blocks of 32, as faiss's SIMD scan reads them: 1.4 ns an item where 8-bit codes took 30.

Items are numbered list by list: a list's rows, its vectors and its bits in a filter's mask lie side by side.
``lists.bin`` holds for each list its blocks of codes and then its rows; faiss reads it where it is mapped.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import faiss
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from smar.errors import InputError
from smar.index.ranked import Rows, Vectors, products
from smar.index.ready import write_npy
from smar.index.threads import each_block

LISTS_FILE = "lists.bin"
COARSE_FILE = "coarse.npz"
EXACT_FILE = "vectors.npy"
_PER_LIST = 20  # items in the mean at least, and training rows
_ROUNDS = 10  # of k-means in small parts, which is cheap
_TOGETHER = 2  # rounds over all lists
_CODE_SAMPLE = 16_384
_MANY_LISTS = 1000
_ROWS = 16_384  # written at a time
_ASSIGNED = 65_536  # given to lists at a time
_BLOCK = 32  # items whose codes lie interleaved
Bits = npt.NDArray[np.uint64]
_RESERVOIR_SCAN = 11  # faiss's way of scanning for one query at a time; what it would choose takes twice as long


def write_lists(vectors: Vectors, folder: Path) -> Rows:
    """Train on `vectors` [n, 2k] and write the files, the vectors list by list; returns their order, rows [n].

    `vectors` may be mapped, but not from the file that is written here.
    """
    with threadpool_limits(1):
        layout = _Layout.trained(vectors)
    list_of = np.concatenate(
        list(each_block(lambda block: layout.nearest(vectors[block] @ layout.leading.T), len(vectors), _ASSIGNED))
    )
    order = np.argsort(list_of, kind="stable")
    with threadpool_limits(1):
        write_npy(folder / EXACT_FILE, vectors.shape, _coded(vectors, layout, order, list_of))
    sizes = _write_blocks(faiss.IndexIVFPQFastScan(layout.coder.index), folder / LISTS_FILE)
    np.savez(
        folder / COARSE_FILE,
        turn=np.concatenate([layout.leading, layout.fine]),
        centres=layout.centres,
        ranking=faiss.serialize_index(layout.ranking),
        sizes=sizes,
        centroids=faiss.vector_to_array(layout.coder.index.pq.centroids),
    )
    return order


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """What was trained: directions that rank lists, [k, 2k], and that codes are of, [d, 2k]; `centres` [lists, k]."""

    leading: Vectors
    fine: Vectors
    centres: Vectors
    nearest: "Nearest"
    ranking: Any
    coder: "_Coder"

    @classmethod
    def trained(cls, vectors: Vectors) -> Self:
        """On some of `vectors` [n, 2k]."""
        count, dim = vectors.shape
        wanted: int = max(1, min(int(8 * count**0.5), count // _PER_LIST))
        rows = np.random.default_rng(0).permutation(count)[: max(wanted * _PER_LIST, min(count, _CODE_SAMPLE))]
        sample = np.ascontiguousarray(vectors[np.sort(rows)])
        some = sample[:: max(len(sample) // _CODE_SAMPLE, 1)]
        basis, half = _principal(sample[::4]), dim // 2
        centres = _clusters(sample @ basis[:half].T, wanted)
        coded, nearest = some @ basis.T, Nearest(centres)
        coded[:, :half] -= centres[nearest(coded[:, :half])]
        quantizers = _quantizers(dim)
        dealt = _dealt(coded.var(axis=0), quantizers, min(3, dim // quantizers))
        whole = np.pad(centres, ((0, 0), (0, dim - half)))
        coder = _Coder(whole[:, dealt], coded[:, dealt], quantizers)
        ranking = _ranking(centres / _lengths(centres)[:, None])
        return cls(basis[:half], basis[dealt], centres, nearest, ranking, coder)


def _coded(vectors: Vectors, layout: _Layout, order: Rows, list_of: Rows) -> Iterator[Vectors]:
    """The vectors in `order`, some at a time; the coder has been given them."""
    for start in range(0, len(order), _ROWS):
        places = order[start : start + _ROWS]
        block = vectors[places]
        layout.coder.add(block @ layout.fine.T, list_of[places], start)
        yield block


class _Coder:
    """Turns offsets from `centres` [lists, d] into 4-bit codes and collects them by list."""

    def __init__(self, centres: Vectors, sample: Vectors, quantizers: int) -> None:
        dim = centres.shape[1]
        self._centres = faiss.IndexFlatIP(dim)
        self._centres.add(np.ascontiguousarray(centres))
        self.index = faiss.IndexIVFPQ(self._centres, dim, len(centres), quantizers, 4, faiss.METRIC_INNER_PRODUCT)
        self.index.own_fields = False
        self.index.pq.cp.min_points_per_centroid = 1
        self.index.pq.train(np.ascontiguousarray(sample))
        self.index.pq.sync_transposed_centroids()  # codes are found in a third of the time
        self.index.is_trained = True

    def add(self, vectors: Vectors, lists: Rows, first: int) -> None:
        """The items `first`, `first + 1`, ...: their vectors [n, d] and lists [n]."""
        ids = np.arange(first, first + len(vectors))
        self.index.add_core(len(vectors), *(faiss.swig_ptr(array) for array in (vectors, ids, lists)))


def _lengths(centres: Vectors) -> Vectors:
    """Of centres [n, d]; none is zero."""
    lengths: Vectors = np.maximum(np.linalg.norm(centres, axis=1), 1e-9).astype(np.float32)
    return lengths


def _ranking(directions: Vectors) -> Any:
    """What finds the directions nearest to a query, best first; of thousands by codes of 4 bits a dimension.

    Of 8,000 of 128 dimensions the best 180 come in 40 us; by shorter codes and thrice as many exactly it would be 100.
    """
    dim = directions.shape[1]
    index = faiss.IndexFlatIP(dim)
    if len(directions) >= _MANY_LISTS:
        index = faiss.IndexPQFastScan(dim, dim, 4, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.niter = _ROUNDS
        index.train(directions)
    index.add(directions)
    return index


class Nearest:
    """Which of some centres [lists, d] each vector is nearest to, exactly where there are few of them.

    Of many, a vector is compared with the eighth of them around the centre of centres that it is nearest to: of 8,000
    in 7 us instead of 30, and 99 of 100 vectors come to the same list. All of it is products of matrices.
    """

    def __init__(self, centres: Vectors) -> None:
        count = len(centres)
        parents = _kmeans(centres, count // 20) if count >= _MANY_LISTS else centres[:1]
        some = count // 8 if len(parents) > 1 else count
        self._first = _Scores(parents)
        self._around = faiss.knn(parents, centres, some)[1]
        self._scores = [_Scores(centres[near]) for near in self._around]

    def __call__(self, vectors: Vectors) -> Rows:
        """The centre of each vector [n, d], int64 [n]."""
        parent = self._first.best(vectors)
        order = np.argsort(parent, kind="stable")
        ends = np.cumsum(np.bincount(parent, minlength=len(self._around)))
        found: Rows = np.empty(len(vectors), np.int64)
        for places, near, scores in zip(np.split(order, ends[:-1]), self._around, self._scores, strict=True):
            found[places] = near[scores.best(vectors[places])]
        return found


class _Scores:
    """Ranks some centres [m, d] as their squared distances do: ``x.c - c.c / 2``."""

    def __init__(self, centres: Vectors) -> None:
        self._centres, self._half = centres, np.square(centres).sum(axis=1) / 2

    def best(self, vectors: Vectors) -> Rows:
        """The nearest of each vector [n, d]."""
        scores = vectors @ self._centres.T
        scores -= self._half
        best: Rows = scores.argmax(axis=1)
        return best


def _clusters(sample: Vectors, lists: int) -> Vectors:
    """Centres of about `lists` clusters by k-means: large ones, each divided by itself, then all together once more.

    As good as eight rounds over all, for a sixth of the time.
    """
    large = _kmeans(sample, int(lists**0.5))
    part_of = faiss.knn(sample, large, 1)[1][:, 0]
    parts = [sample[part_of == at] for at in range(len(large))]
    centres = np.concatenate(
        [_kmeans(part, max(round(lists * len(part) / len(sample)), 1)) for part in parts if len(part)]
    )
    for _ in range(_TOGETHER):
        centres = _means(sample, Nearest(centres)(sample), centres)
    return centres


def _means(sample: Vectors, list_of: Rows, centres: Vectors) -> Vectors:
    """The mean of each list's vectors; where it has none, its centre as it was."""
    order = np.argsort(list_of, kind="stable")
    held, starts, sizes = np.unique(list_of[order], return_index=True, return_counts=True)
    centres[held] = np.add.reduceat(sample[order], starts, axis=0) / sizes[:, None]
    return centres


def _kmeans(sample: Vectors, clusters: int) -> Vectors:
    kmeans = faiss.Kmeans(sample.shape[1], clusters, niter=_ROUNDS, min_points_per_centroid=1)
    kmeans.train(np.ascontiguousarray(sample))
    centres: Vectors = kmeans.centroids
    return centres


def _principal(sample: Vectors) -> Vectors:
    """Orthonormal directions [d, d] by falling variance."""
    centred = sample - sample.mean(axis=0)
    _, directions = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    return np.ascontiguousarray(directions[:, ::-1].T, np.float32)


def _dealt(variance: npt.NDArray[np.floating[Any]], quantizers: int, each: int) -> npt.NDArray[np.int64]:
    """`each` directions for each quantizer, those of largest variance, so that all products of variances are alike."""
    best = np.argsort(-variance, kind="stable")[: quantizers * each]
    weight = np.log(np.maximum(variance[best], 1e-12)) - np.log(max(float(variance[best[-1]]), 1e-12))
    dealt: list[list[int]] = [[] for _ in range(quantizers)]
    held = np.zeros(quantizers)
    for direction, log in zip(best.tolist(), weight.tolist(), strict=True):
        to = min((at for at in range(quantizers) if len(dealt[at]) < each), key=lambda at: (held[at], len(dealt[at])))
        dealt[to].append(direction)
        held[to] += log
    return np.array(dealt).ravel()


def _write_blocks(index: Any, path: Path) -> npt.NDArray[np.int64]:
    """Each list's blocks of codes, then its rows, filled up to whole blocks; returns the lists' sizes."""
    lists = index.invlists
    sizes = np.array([lists.list_size(at) for at in range(index.nlist)], np.int64)
    with path.open("wb") as out:
        for at, size in enumerate(sizes.tolist()):
            if size:
                room = -(-size // _BLOCK) * _BLOCK
                rows = np.full(room, -1, np.int64)
                rows[:size] = faiss.rev_swig_ptr(lists.get_ids(at), size)
                out.write(faiss.rev_swig_ptr(lists.get_codes(at), room * index.code_size).tobytes())
                out.write(rows.tobytes())
    return sizes


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
        fine, self._half = len(self._turn) - dim // 2, dim // 2
        shapes = {centres.shape, (self._ranking.ntotal, self._ranking.d), (len(sizes), self._half)}
        if self._turn.shape[1] != dim or len(shapes) > 1 or sizes.sum() != items:
            raise InputError(f"{path} is not of {items:,} vectors of {dim} dimensions. Run `{made_by}` again.")
        self.count, self._sizes, self._ends = len(sizes), sizes, np.cumsum(sizes)
        self._across = np.ascontiguousarray(self._turn.T)  # for several queries in a fifth of the time: not packed anew
        self._centres, self._lengths = centres, _lengths(centres)
        self._unused = faiss.IndexFlatIP(fine)  # which lists to visit is decided here, not by faiss
        self._codes = faiss.IndexIVFPQFastScan(
            self._unused, fine, self.count, _quantizers(dim), 4, faiss.METRIC_INNER_PRODUCT
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
        """How many of the rows marked in `bits` lie in each list; 0.1 ms at 1 M.

        `bits` holds a bit for each row in words of 64, the lowest first, and one more word.
        """
        words, within = self._ends >> 6, (self._ends & 63).astype(np.uint64)
        before = np.cumsum(np.bitwise_count(bits), dtype=np.int32)[words]
        rest = np.bitwise_count(bits[words] >> within)  # in the last word, but not in the list
        counts: npt.NDArray[np.int32] = before - rest
        counts[1:] -= counts[:-1].copy()
        return counts

    def aim(self, wide: Vectors) -> tuple[Vectors, Vectors]:
        """Queries [n, 2k] as the lists see them: [n, k] ranks lists, [n, d] is compared with codes."""
        turned = wide @ (self._turn.T if len(wide) == 1 else self._across)
        return np.ascontiguousarray(turned[:, : self._half]), np.ascontiguousarray(turned[:, self._half :])

    def nearest(self, coarse: Vectors, most: int) -> tuple[Rows, Vectors]:
        """The `most` lists nearest in angle, best first, and their scores; [n, most] both, fewer if there are fewer."""
        most = min(most, self.count)
        scores: Vectors = np.empty((len(coarse), most), np.float32)
        lists: Rows = np.empty((len(coarse), most), np.int64)
        self._ranking.search_c(len(coarse), faiss.swig_ptr(coarse), most, faiss.swig_ptr(scores), faiss.swig_ptr(lists))
        return lists, scores

    def near(self, coarse: Vectors, lists: Rows) -> Vectors:
        """Inner products of one query [k] with the centres of `lists` [n], exactly."""
        return products(self._centres, coarse, lists)

    def ordered(self, coarse: Vectors) -> tuple[Rows, Vectors, Vectors]:
        """All lists for one query [k], nearest in angle first, their scores, and their `near`; [lists] each.

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
        found = rows >= 0
        return (rows, rough) if found.all() else (rows[found], rough[found])

    def lists_of(self, rows: Rows) -> Rows:
        """The list that each of `rows` lies in."""
        found: Rows = np.searchsorted(self._ends, rows, side="right")
        return found


def _quantizers(dim: int) -> int:
    return max(dim // 4, 1)


def _mapped(path: Path, sizes: npt.NDArray[np.int64], code_size: int, made_by: str) -> Any:
    """faiss's inverted lists over the file as it lies on disk, shared with every process that maps it."""
    room = -(-sizes // _BLOCK) * _BLOCK
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
