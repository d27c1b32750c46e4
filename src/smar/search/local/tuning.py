"""How many lists a query visits and how many candidates it scores, for a recall measured on held-out queries.

Each query is searched once, in far more lists than it will need; what any effort would have found is read off that.
Lists that score much less than the best ones are left out, query by query, which spares a third of them in the mean
(query-aware pruning, SPANN, NeurIPS 2021).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from smar.search.local.lists import Lists
from smar.search.local.parallel_blocks import each_block
from smar.search.local.vectors import CANDIDATE_COST, Effort, Probes
from smar.search.protocol import Mode, weigh
from smar.search.query import QueryVectors
from smar.search.ranked import Queries, Rows, Vectors

RECALL_AT = 50
_CANDIDATES = (2, 3, 4, 6, 9, 13, 20)
_KINDS = (Mode.TEXT, Mode.ADAPTIVE, Mode.MULTIMODAL)  # routing is the first or the last, query by query
_FIRST_LISTS = 256  # searched at first; twice as many until the target is reached
_DEEP = 2 * _CANDIDATES[-1] * RECALL_AT  # candidates kept, so that fewer lists still have as many as any effort scores
_MOST = 1.5  # times the lists that all queries would need: what the hardest may visit
_STEPS = 256  # in which the margin is chosen
_NO_MARGIN = 100.0  # scores of unit vectors are within -2 and 2
_BLOCK = 2_048  # items scored at a time, so that the scores stay in the processor's cache
_FLOOR_ITEMS = 62_500  # of more, the scores would take gigabytes
_ASKED = 50  # queries at a time, of so many items
_FLOOR = 16  # the best of every 16th item are the least that others must reach

Some = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """What held-out queries of one mode find in many lists, best first by the codes.

    `scores` [queries, lists] of the lists, best first; `place` [queries, found] of the list that each item lies in;
    `true` [queries, found] marks those that an exact scan finds, too, of which there are `wanted`.
    """

    lists: Lists
    scores: Vectors
    place: npt.NDArray[np.int32]
    true: Some
    wanted: int

    @classmethod
    def of(cls, lists: Lists, wide: Vectors, truth: Rows, visited: int) -> Self:
        """Search queries [n, 2k] whose best items are `truth` [n, k] in `visited` lists."""
        coarse, fine = lists.aim(wide)
        ranked, scores = lists.nearest(coarse, visited)
        deep = min(_DEEP, len(lists))
        place = np.full((len(wide), deep), visited, np.int32)
        true = np.zeros(place.shape, np.bool_)
        places = np.empty(lists.count, np.int32)
        for at, best in enumerate(truth):
            rows, rough = lists.visit(fine[at], ranked[at], lists.near(coarse[at], ranked[at]), deep)
            rows = rows[np.argsort(-rough, kind="stable")]
            places[ranked[at]] = np.arange(len(ranked[at]))
            place[at, : len(rows)] = places[lists.lists_of(rows)]
            true[at, : len(rows)] = np.isin(rows, best)
        return cls(lists, scores, place, true, truth.size)

    def reach(self, effort: Effort) -> npt.NDArray[np.int64]:
        """How many lists each query visits."""
        return np.array([effort.reach(scores) for scores in self.scores])

    def recall(self, effort: Effort) -> float:
        """Share of the true best items among the candidates; scored exactly, none of them is lost any more."""
        seen = self.place < self.reach(effort)[:, None]
        candidates = np.cumsum(seen, axis=1, dtype=np.int16) <= effort.of(RECALL_AT)
        return float(np.count_nonzero(seen & candidates & self.true) / self.wanted)

    def cost(self, effort: Effort) -> float:
        """Codes read for a query in the mean, and what its candidates cost in that unit."""
        each = len(self.lists) / self.lists.count
        return float(self.reach(effort).mean() * each + effort.of(RECALL_AT) * CANDIDATE_COST)


def tuned(vectors: Vectors, lists: Lists, sample: QueryVectors, target: float) -> tuple[Probes, float]:
    """The least effort that reaches recall@50 of `target` in each mode, and what the worst of them reaches."""
    efforts, reached = {}, []
    asked = [Queries(sample.embedding, weigh(sample, mode)) for mode in _KINDS]
    truth = exact_for_shares(vectors, sample.embedding, [queries.share for queries in asked], RECALL_AT)
    for mode, queries, best in zip(_KINDS, asked, truth, strict=True):
        trial = _deep_enough(lists, queries.wide, best, target)
        efforts[str(mode)] = _cheapest(trial, target)
        reached.append(trial.recall(efforts[str(mode)]))
    return Probes(**efforts), min(reached)


def exact_for_shares(vectors: Vectors, queries: Vectors, shares: Sequence[Vectors], k: int) -> list[Rows]:
    """Rows of the `k` best items of each query [n, k] under each of `shares` [n] of the multimodal score.

    `vectors` [items, 2k] are read, and multiplied, once for all of them; what is not above the k-th best of some items
    is left out at once. Fewer columns where there are fewer items.
    """
    k = min(k, len(vectors))
    every = max(_FLOOR, len(vectors) // _FLOOR_ITEMS)
    some = vectors[:: every if len(vectors) > every * k else 1].copy()
    floors = [np.empty((len(queries), 1), np.float32) for _ in shares]
    for start in range(0, len(queries), _ASKED):
        asked = slice(start, start + _ASKED)
        scored = _scores(some, queries[asked], [share[asked] for share in shares])
        for floor, scores in zip(floors, scored, strict=True):
            floor[asked] = np.partition(scores, -k, axis=1)[:, -k, None]

    def above(block: slice) -> list[tuple[Rows, Rows, Vectors]]:
        found = []
        for scores, floor in zip(_scores(vectors[block], queries, shares), floors, strict=True):
            places = np.flatnonzero(scores >= floor)
            query, row = np.divmod(places, scores.shape[1])
            found.append((query, row + block.start, scores.ravel()[places]))
        return found

    parts = list(each_block(above, len(vectors), _BLOCK))
    columns = [zip(*(part[at] for part in parts), strict=True) for at in range(len(shares))]
    return [_first_of_each([np.concatenate(column) for column in found], k) for found in columns]


def _scores(vectors: Vectors, queries: Vectors, shares: Sequence[Vectors]) -> list[Vectors]:
    """Scores [n, items] of queries [n, k] under each of `shares` [n]."""
    multimodal, text = (queries @ half.T for half in np.split(vectors, 2, axis=1))
    return [_mixed(text, multimodal, share) for share in shares]


def _mixed(text: Vectors, multimodal: Vectors, share: Vectors) -> Vectors:
    """Scores [n, items] under a share [n] of the multimodal one."""
    if not share.any():
        return text
    if (share == 1).all():
        return multimodal
    scores: Vectors = multimodal - text
    scores *= share[:, None]
    scores += text
    return scores


def _first_of_each(parts: Sequence[Any], k: int) -> Rows:
    """Each query's `k` rows of highest score; `parts` are query, row and score [n]."""
    query, row, score = parts
    order = np.lexsort((row, -score, query))
    starts = np.flatnonzero(np.diff(query[order], prepend=-1))
    best: Rows = row[order][starts[:, None] + np.arange(k)]
    return best


def _deep_enough(lists: Lists, wide: Vectors, truth: Rows, target: float) -> _Trial:
    """A trial in twice as many lists as hold the target with the most candidates; in all, if that is what it takes."""
    visited = min(_FIRST_LISTS, lists.count)
    while True:
        trial = _Trial.of(lists, wide, truth, visited)
        if visited == lists.count or trial.recall(_effort(visited // 2, _CANDIDATES[-1])) >= target:
            return trial
        visited = min(2 * visited, lists.count)


def _effort(lists: int, candidates: int, margin: float = _NO_MARGIN) -> Effort:
    return Effort(lists=lists, margin=margin, candidates=candidates)


def _cheapest(trial: _Trial, target: float) -> Effort:
    """Few candidates of many lists, or many of few; the most of both where even they do not suffice."""
    best = most = _effort(trial.scores.shape[1], _CANDIDATES[-1])
    for candidates in _CANDIDATES:
        if candidates * RECALL_AT * CANDIDATE_COST > trial.cost(best):
            break
        if candidates == most.candidates or trial.recall(_effort(most.lists, candidates)) >= target:
            best = min(best, _with_margin(trial, candidates, target), key=trial.cost)
    return best


def _with_margin(trial: _Trial, candidates: int, target: float) -> Effort:
    """The smallest margin that reaches the target where the hardest queries may visit `_MOST` times the lists."""

    def enough(lists: int, margin: float = _NO_MARGIN) -> bool:
        return trial.recall(_effort(lists, candidates, margin)) >= target

    most = min(math.ceil(_MOST * _least(1, trial.scores.shape[1], enough)), trial.scores.shape[1])
    step = float(np.ptp(trial.scores[:, :most], axis=1).max()) / _STEPS
    return _effort(most, candidates, step * _least(1, _STEPS, lambda steps: enough(most, step * steps)))


def _least(low: int, high: int, enough: Callable[[int], bool]) -> int:
    """The smallest number, `low` to `high`, that is enough; `high` if none is."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high
