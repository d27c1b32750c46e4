"""Vectors with the structure of a catalogue's: uneven clusters, a decaying spectrum, queries off the cloud."""

from collections.abc import Iterable

import faiss
import numpy as np

WITHIN = 0.6
"""Size of what is an item's own, in its words and once more in its picture, beside its cluster's part."""
OFFSET = 0.5
"""How far queries lie off the cloud, as a query tower's do: trained towers keep a gap between queries and items."""


def unit(matrix: np.ndarray) -> np.ndarray:
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def uneven_clusters(rng: np.random.Generator, items: int, clusters: int) -> np.ndarray:
    """The cluster of each item; sizes fall like a power law."""
    share = 1 / np.arange(1, clusters + 1) ** 0.8
    return rng.choice(clusters, items, p=share / share.sum())


def item_vectors(rng: np.random.Generator, centres: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """[S_m ; S_t] [n, 2 dim] of items around `centres` [n, dim], one each.

    `spread` is what random normals are multiplied by: deviations [dim] or a square root of a covariance [dim, dim].
    """
    text, picture = centres + _noise(rng, len(centres), spread), _noise(rng, len(centres), spread)
    return np.concatenate([unit(text + picture), unit(text)], axis=1)


def _noise(rng: np.random.Generator, rows: int, spread: np.ndarray) -> np.ndarray:
    normal = rng.standard_normal((rows, len(spread)), np.float32)
    return WITHIN * (normal * spread if spread.ndim == 1 else normal @ spread)


def exact(
    blocks: Iterable[np.ndarray], tasks: list[tuple[np.ndarray, np.ndarray | None]], k: int
) -> list[list[set[int]]]:
    """The best `k` rows of every query [n, 2 dim] of every task, among the rows that its mask [items] lets through.

    All tasks take one pass over the vectors, which come in blocks.
    """
    heaps = [faiss.ResultHeap(len(queries), k, keep_max=True) for queries, _ in tasks]
    start = 0
    for block in blocks:
        for (queries, mask), heap in zip(tasks, heaps, strict=True):
            rows = np.arange(len(block)) if mask is None else np.flatnonzero(mask[start : start + len(block)])
            if len(rows):
                part = np.ascontiguousarray(block if mask is None else block[rows])
                scores, found = faiss.knn(queries, part, min(k, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
                heap.add_result(scores, rows[found] + start)
        start += len(block)
    for heap in heaps:
        heap.finalize()
    return [[set(rows[rows >= 0].tolist()) for rows in heap.I] for heap in heaps]


def recall(found: Iterable[Iterable[int]], truth: list[set[int]]) -> float:
    """Mean share of the exact answer that was found; where there is none to find, 1 for an empty answer."""
    pairs = [(best, set(rows)) for best, rows in zip(truth, found, strict=True)]
    return float(np.mean([len(best & rows) / len(best) if best else float(not rows) for best, rows in pairs]))
