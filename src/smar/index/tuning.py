"""How many lists a query visits and how many candidates it scores, for a recall measured on held-out queries."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from smar.index.base import Mode, weigh
from smar.index.lists import Lists
from smar.index.query import QueryVectors
from smar.index.ranked import Queries, Vectors, in_blocks
from smar.index.vectors import Probes, VectorStore, exact_top
from smar.index.versions import MADE_BY

RECALL_AT = 50
_CANDIDATES = (2, 4, 6, 9, 13, 20)
_LOST_TO_CODES = 0.6  # the share of the allowed loss that the codes may take when all lists are visited
_KINDS = (Mode.TEXT, Mode.ADAPTIVE, Mode.MULTIMODAL)  # routing is the first or the last, query by query


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Held-out queries of one mode and their best items by an exact scan."""

    queries: Queries
    truth: list[set[int]]


def tuned(vectors: Vectors, folder: Path, sample: QueryVectors, target: float) -> tuple[Probes, float]:
    """The least effort that reaches recall@50 of `target` in each mode, and what the worst of them reaches.

    First the candidates: as many as keep the codes from losing more than their share when every list is visited. Then
    each mode's lists, to one part in eight.
    """
    lists = Lists(folder, len(vectors), vectors.shape[1], MADE_BY)
    trials = {}
    for mode in _KINDS:
        queries = Queries(sample.embedding, weigh(sample, mode))
        best = exact_top(in_blocks(vectors), queries.wide, min(RECALL_AT, len(vectors)))
        trials[mode] = _Trial(queries, [set(rows.tolist()) for rows in best])

    def reached(mode: Mode, nprobe: int, candidates: int) -> float:
        probes = Probes(text=nprobe, adaptive=nprobe, multimodal=nprobe, candidates=candidates)
        return recall(VectorStore(lists, vectors, probes), trials[mode])

    def enough(candidates: int) -> bool:
        wanted = 1 - _LOST_TO_CODES * (1 - target)
        return all(reached(mode, lists.count, candidates) >= wanted for mode in _KINDS)

    candidates = next((number for number in _CANDIDATES if enough(number)), _CANDIDATES[-1])
    nprobe = {mode: _least(lists.count, partial(reached, mode, candidates=candidates), target) for mode in _KINDS}
    worst = min(reached(mode, nprobe[mode], candidates) for mode in _KINDS)
    chosen = Probes(
        text=nprobe[Mode.TEXT],
        adaptive=nprobe[Mode.ADAPTIVE],
        multimodal=nprobe[Mode.MULTIMODAL],
        candidates=candidates,
    )
    return chosen, worst


def _least(lists: int, reached: Callable[[int], float], target: float) -> int:
    """The smallest number of lists that reaches the target, to one part in eight; all of them where none does."""
    high = 1
    while high < lists and reached(high) < target:
        high = min(2 * high, lists)
    low = high // 2
    while high - low > max(1, high // 8):
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= target else (middle, high)
    return high


def recall(store: VectorStore, trial: _Trial) -> float:
    """Mean share of the true best items that are found."""
    found = store.top(trial.queries, RECALL_AT)
    shares = [len(best & set(items.rows.tolist())) / len(best) for best, items in zip(trial.truth, found, strict=True)]
    return float(np.mean(shares))
