"""How many lists a query visits and how many candidates it scores, for a recall measured on held-out queries."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from smar.index.base import Mode, weigh
from smar.index.lists import Lists
from smar.index.query import QueryVectors
from smar.index.ranked import Queries, Vectors, in_blocks
from smar.index.vectors import Effort, Probes, VectorStore, exact_top

RECALL_AT = 50
_CANDIDATES = (20, 13, 9, 6, 4, 3, 2)
_CANDIDATE_COST = 80  # scoring a candidate exactly takes as long as reading this many codes (0.4 us, 5 ns)
_KINDS = (Mode.TEXT, Mode.ADAPTIVE, Mode.MULTIMODAL)  # routing is the first or the last, query by query


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Held-out queries of one mode and their best items by an exact scan."""

    lists: Lists
    vectors: Vectors
    queries: Queries
    truth: list[set[int]]
    known: dict[Effort, float] = field(default_factory=dict)

    def recall(self, effort: Effort) -> float:
        """Mean share of the true best items that a search with this effort finds; measured once."""
        if effort not in self.known:
            self.known[effort] = self._measured(effort)
        return self.known[effort]

    def _measured(self, effort: Effort) -> float:
        store = VectorStore(self.lists, self.vectors, Probes(text=effort, adaptive=effort, multimodal=effort))
        found = store.top(self.queries, RECALL_AT)
        pairs = zip(self.truth, found, strict=True)
        return float(np.mean([len(best & set(items.rows.tolist())) / len(best) for best, items in pairs]))

    def reached(self, candidates: int, lists: int) -> float:
        """The recall of an effort."""
        return self.recall(Effort(lists=lists, candidates=candidates))


def tuned(vectors: Vectors, lists: Lists, sample: QueryVectors, target: float) -> tuple[Probes, float]:
    """The least effort that reaches recall@50 of `target` in each mode, and what the worst of them reaches."""
    efforts, reached = {}, []
    for mode in _KINDS:
        queries = Queries(sample.embedding, weigh(sample, mode))
        best = exact_top(in_blocks(vectors), queries.wide, min(RECALL_AT, len(vectors)))
        trial = _Trial(lists, vectors, queries, [set(rows.tolist()) for rows in best])
        efforts[str(mode)] = _cheapest(trial, target)
        reached.append(trial.recall(efforts[str(mode)]))
    return Probes(**efforts), min(reached)


def _cheapest(trial: _Trial, target: float) -> Effort:
    """Few candidates of many lists, or many of few: whichever costs less. Only what may cost less is tried."""
    each = len(trial.vectors) / trial.lists.count
    best, least = None, float("inf")
    for candidates in _CANDIDATES:
        fixed = candidates * RECALL_AT * _CANDIDATE_COST
        most = trial.lists.count if best is None else min(int((least - fixed) / each), trial.lists.count)
        effort = Effort(lists=_least(most, partial(trial.reached, candidates), target), candidates=candidates)
        if best is not None and trial.recall(effort) < target:
            break
        best, least = effort, effort.lists * each + fixed
    assert best is not None  # the first is always taken
    return best


def _least(lists: int, reached: Callable[[int], float], target: float) -> int:
    """The smallest number of lists that reaches the target, to one part in eight; all of them where none does."""
    high = min(8, lists)
    while high < lists and reached(high) < target:
        high = min(2 * high, lists)
    low = high // 2 if high > 8 else 0
    while high - low > max(1, high // 8):
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= target else (middle, high)
    return high
