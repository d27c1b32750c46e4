"""Forming the lists of `lists`: which items lie near each other, their codes, and the files of both."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import faiss
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from smar.search.local.lists import BLOCK, COARSE_FILE, EXACT_FILE, LISTS_FILE, lengths_of, quantizers_of
from smar.search.local.parallel_blocks import each_block
from smar.search.local.ready import write_npy
from smar.search.ranked import Rows, Vectors

_PER_LIST = 20  # items in the mean at least, and training rows
_ROUNDS = 10  # of k-means in small parts, which is cheap
_TOGETHER = 6  # rounds over all lists; after two a query would read a tenth more items
_CODE_SAMPLE = 16_384
_HELD = 0.94  # of the variance: with 80 of 256 directions lists are formed and ranked in four fifths of the time of 128
_FEWEST = 64  # directions; vectors of the real catalogue would come with 24, and visit up to two fifths more lists
_MANY_LISTS = 1000
_PARENTS, _NEAR = 6.4, 5.6  # for the root of the number of lists: above 8,000, comparing would grow with their number
_ROWS = 16_384  # written at a time
_UNWRITTEN = 1 << 20  # items whose codes are held
_ASSIGNED = 65_536  # given to lists at a time
_SCORED = 2_048  # so that their scores stay in the processor's cache


def write_lists(vectors: Vectors, folder: Path, memory: int | None = None) -> Rows:
    """Train on `vectors` [n, 2k] and write the files, the vectors list by list; returns their order, rows [n].

    `vectors` may be mapped, but not from the file that is written here. With `memory` (bytes) for them a mapped file
    is read from its beginning to its end, once for each part of the lists that fits; without, as the lists need it,
    which is slow where the file is larger than the system's cache. The files are the same.
    """
    with threadpool_limits(1):
        layout = _Layout.trained(vectors)
    list_of = np.concatenate(
        list(each_block(lambda block: layout.nearest(vectors[block] @ layout.leading.T), len(vectors), _ASSIGNED))
    )
    order = np.argsort(list_of, kind="stable")
    sizes = np.bincount(list_of, minlength=len(layout.centres))
    with threadpool_limits(1), (folder / LISTS_FILE).open("wb") as out:
        del list_of
        blocks = _gathered(vectors, order, memory)
        write_npy(folder / EXACT_FILE, vectors.shape, _coded(blocks, layout, np.cumsum(sizes), out))
    np.savez(
        folder / COARSE_FILE,
        turn=np.concatenate([layout.leading, layout.fine]),
        centres=layout.centres,
        ranking=faiss.serialize_index(layout.ranking),
        sizes=sizes,
        centroids=layout.coder.centroids,
    )
    return order


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """What was trained: directions that rank lists, [l, 2k], and that codes are of, [d, 2k]; `centres` [lists, l]."""

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
        wanted = _wanted(count)
        sample = vectors[np.sort(np.random.default_rng(0).permutation(count)[: sampled(count)])]
        some = sample[:: max(len(sample) // _CODE_SAMPLE, 1)].copy()
        basis, leading = _principal(sample[::4])
        turned = sample @ basis[:leading].T
        del sample
        centres = _clusters(turned, wanted)
        coded, nearest = some @ basis.T, Nearest(centres)
        coded[:, :leading] -= centres[nearest(coded[:, :leading])]
        quantizers = quantizers_of(dim)
        dealt = _dealt(coded.var(axis=0), quantizers)
        whole = np.pad(centres, ((0, 0), (0, dim - leading)))
        coder = _Coder(whole[:, dealt], coded[:, dealt], quantizers)
        ranking = _ranking(centres / lengths_of(centres)[:, None])
        return cls(basis[:leading], basis[dealt], centres, nearest, ranking, coder)


def _wanted(items: int) -> int:
    """Number of lists."""
    return max(1, min(int(8 * items**0.5), items // _PER_LIST))


def sampled(items: int) -> int:
    """Number of vectors that lists are formed of."""
    return max(_wanted(items) * _PER_LIST, min(items, _CODE_SAMPLE))


def _gathered(vectors: Vectors, order: Rows, memory: int | None) -> Iterator[Vectors]:
    """The vectors in `order`, `_ROWS` at a time; of so many as fit `memory` the file is read in its own order.

    A block holds until the next is asked for.
    """
    fit = len(order) if memory is None else max(memory // vectors[:1].nbytes // _ROWS, 1) * _ROWS
    if fit >= len(order):
        yield from (vectors[order[at : at + _ROWS]] for at in range(0, len(order), _ROWS))
        return
    together = np.empty((fit, vectors.shape[1]), vectors.dtype)  # one for all: who reads holds a part of it
    for start in range(0, len(order), fit):
        places = order[start : start + fit]
        ascending = np.argsort(places)
        for at in range(0, len(places), _ROWS):
            some = ascending[at : at + _ROWS]
            together[some] = vectors[places[some]]
        yield from (together[at : min(at + _ROWS, len(places))] for at in range(0, len(places), _ROWS))


def _coded(blocks: Iterable[Vectors], layout: _Layout, ends: Rows, out: BinaryIO) -> Iterator[Vectors]:
    """The vectors as they come, list by list up to `ends` [lists]; their codes are written whenever lists are whole."""
    start = 0
    for block in blocks:
        own = np.searchsorted(ends, np.arange(start, start + len(block)), side="right")
        turned, rest = block @ layout.fine.T, int(np.searchsorted(own, own[-1]))  # the last list may go on
        for first, stop in ((0, rest), (rest, len(block))):
            layout.coder.add(turned[first:stop], own[first:stop], start + first)
            if 0 < stop == rest and layout.coder.index.ntotal >= _UNWRITTEN:
                layout.coder.write(out)
        start += len(block)
        yield block
    layout.coder.write(out)


class _Coder:
    """Turns offsets from `centres` [lists, d] into 4-bit codes and collects them by list."""

    def __init__(self, centres: Vectors, sample: Vectors, quantizers: int) -> None:
        self._centres = faiss.IndexFlatIP(centres.shape[1])
        self._centres.add(np.ascontiguousarray(centres))
        self._quantizers = quantizers
        trained = faiss.ProductQuantizer(centres.shape[1], quantizers, 4)
        trained.cp.min_points_per_centroid = 1
        trained.train(np.ascontiguousarray(sample))
        self.centroids = faiss.vector_to_array(trained.centroids)
        self.index = self._empty()

    def _empty(self) -> Any:
        dim, lists = self._centres.d, self._centres.ntotal
        index = faiss.IndexIVFPQ(self._centres, dim, lists, self._quantizers, 4, faiss.METRIC_INNER_PRODUCT)
        index.own_fields = False
        faiss.copy_array_to_vector(self.centroids, index.pq.centroids)
        index.pq.sync_transposed_centroids()  # codes are found in a third of the time
        index.is_trained = True
        return index

    def add(self, vectors: Vectors, lists: Rows, first: int) -> None:
        """The items `first`, `first + 1`, ...: their vectors [n, d] and lists [n]."""
        ids = np.arange(first, first + len(vectors))
        self.index.add_core(len(vectors), *(faiss.swig_ptr(array) for array in (vectors, ids, lists)))

    def write(self, out: BinaryIO) -> None:
        """Write the blocks of codes of each list that has been added to, and its rows, filled up to whole blocks."""
        packed = faiss.IndexIVFPQFastScan(self.index)
        for at in range(packed.nlist):
            if size := packed.invlists.list_size(at):
                room = -(-size // BLOCK) * BLOCK
                rows = np.full(room, -1, np.int64)
                rows[:size] = faiss.rev_swig_ptr(packed.invlists.get_ids(at), size)
                out.write(faiss.rev_swig_ptr(packed.invlists.get_codes(at), room * packed.code_size).tobytes())
                out.write(rows.tobytes())
        self.index = self._empty()  # the same one packed again ends the process


def _ranking(directions: Vectors) -> Any:
    """What finds the directions nearest to a query, best first; of thousands by codes of 4 bits a dimension.

    Shorter codes would need several times as many exact scores, which cost more than they save.
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

    Of many, a vector is compared with the sixteenth of them around the centre of centres that it is nearest to: with
    500 of 8,000, and 99 of 100 vectors come to the same list; of more, with a share that falls as their root grows. All
    of it is products of matrices.
    """

    def __init__(self, centres: Vectors) -> None:
        count = len(centres)
        root = count**0.5
        parents = _kmeans(centres, min(count // 14, int(_PARENTS * root))) if count >= _MANY_LISTS else centres[:1]
        self._parents, self._centres = _ranking_by_distance(parents), _ranking_by_distance(centres)
        self._around = faiss.knn(parents, centres, min(count // 16, int(_NEAR * root)) if len(parents) > 1 else count)[
            1
        ]

    def __call__(self, vectors: Vectors) -> Rows:
        """The centre of each vector [n, d], int64 [n]."""
        vectors = np.pad(vectors, ((0, 0), (0, 1)), constant_values=1)
        parent = _best(vectors, self._parents)
        order = np.argsort(parent, kind="stable")
        ends = np.cumsum(np.bincount(parent, minlength=len(self._around)))
        found: Rows = np.empty(len(vectors), np.int64)
        for places, near in zip(np.split(order, ends[:-1]), self._around, strict=True):
            found[places] = near[_best(vectors[places], self._centres[near])]
        return found


def _ranking_by_distance(centres: Vectors) -> Vectors:
    """Centres [m, d] with a number more, [m, d + 1]: products with vectors rank as distances, ``x.c - c.c / 2``."""
    return np.column_stack([centres, np.square(centres).sum(axis=1) / -2])


def _best(vectors: Vectors, centres: Vectors) -> Rows:
    """The place of the largest product of each vector [n, d] with `centres` [m, d], some vectors at a time."""
    starts = range(0, max(len(vectors), 1), _SCORED)
    return np.concatenate([(vectors[start : start + _SCORED] @ centres.T).argmax(axis=1) for start in starts])


def _clusters(sample: Vectors, lists: int) -> Vectors:
    """Centres of about `lists` clusters by k-means: large ones, each divided by itself, then all together once more."""
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


def _principal(sample: Vectors) -> tuple[Vectors, int]:
    """Orthonormal directions [d, d] by falling variance, and how many of them lists are formed in."""
    centred = sample - sample.mean(axis=0)
    variance, directions = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    held = np.cumsum(variance[::-1]) / max(variance.sum(), 1e-9)
    leading = min(max(8 * round(np.searchsorted(held, _HELD) / 8), _FEWEST), len(variance) // 2)
    return np.ascontiguousarray(directions[:, ::-1].T, np.float32), leading


def _dealt(variance: npt.NDArray[np.floating[Any]], quantizers: int) -> npt.NDArray[np.int64]:
    """As many directions for each quantizer, of `variance` [d] each, so that all products of variances are alike."""
    each = len(variance) // quantizers
    best = np.argsort(-variance, kind="stable")[: quantizers * each]
    weight = np.log(np.maximum(variance[best], 1e-12)) - np.log(max(float(variance[best[-1]]), 1e-12))
    dealt: list[list[int]] = [[] for _ in range(quantizers)]
    held = np.zeros(quantizers)
    for direction, log in zip(best.tolist(), weight.tolist(), strict=True):
        to = min((at for at in range(quantizers) if len(dealt[at]) < each), key=lambda at: (held[at], len(dealt[at])))
        dealt[to].append(direction)
        held[to] += log
    return np.array(dealt).ravel()
