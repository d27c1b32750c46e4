"""How many lists a query visits and how many candidates it scores, for a recall measured on held-out queries."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from smar.index.base import Mode, weigh
from smar.index.lists import Lists
from smar.index.query import QueryVectors
from smar.index.ranked import Queries, Rows, Vectors, in_blocks
from smar.index.vectors import Effort, Probes

RECALL_AT = 50
_CANDIDATES = (20, 13, 9, 6, 4, 3, 2)
_CANDIDATE_COST = 40  # scoring a candidate exactly takes as long as reading this many codes (0.25 us, 6 ns)
_KINDS = (Mode.TEXT, Mode.ADAPTIVE, Mode.MULTIMODAL)  # routing is the first or the last, query by query
_FEWEST = 8  # lists tried first
_BLOCK = 32_768  # items scored at a time


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Held-out queries of one mode, as the lists see them, and their best items by an exact scan."""

    lists: Lists
    coarse: Vectors
    fine: Vectors
    truth: list[set[int]]
    known: dict[Effort, float] = field(default_factory=dict)

    def recall(self, effort: Effort) -> float:
        """Mean share of the true best items that a search with this effort finds; measured once."""
        if effort not in self.known:
            self.known[effort] = self._measured(effort)
        return self.known[effort]

    def _measured(self, effort: Effort) -> float:
        """Of the true best items, those among the candidates: scored exactly, none of them is lost any more."""
        lists, near = self.lists.nearest(self.coarse, effort.lists)
        candidates = min(effort.of(RECALL_AT), len(self.lists))
        found = [
            len(best.intersection(self.lists.visit(fine, visited, scores, candidates)[0].tolist())) / len(best)
            for best, fine, visited, scores in zip(self.truth, self.fine, lists, near, strict=True)
        ]
        return float(np.mean(found))

    def reached(self, candidates: int, lists: int) -> float:
        """The recall of an effort."""
        return self.recall(Effort(lists=lists, candidates=candidates))


def tuned(vectors: Vectors, lists: Lists, sample: QueryVectors, target: float) -> tuple[Probes, float]:
    """The least effort that reaches recall@50 of `target` in each mode, and what the worst of them reaches."""
    efforts, reached = {}, []
    asked = [Queries(sample.embedding, weigh(sample, mode)) for mode in _KINDS]
    truth = exact_for_shares(vectors, sample.embedding, [queries.share for queries in asked], RECALL_AT)
    for mode, queries, best in zip(_KINDS, asked, truth, strict=True):
        trial = _Trial(lists, *lists.aim(queries.wide), list(map(set, best.tolist())))
        efforts[str(mode)] = _cheapest(trial, target)
        reached.append(trial.recall(efforts[str(mode)]))
    return Probes(**efforts), min(reached)


def exact_for_shares(vectors: Vectors, queries: Vectors, shares: Sequence[Vectors], k: int) -> list[Rows]:
    """Rows of the `k` best items of each query [n, k] under each of `shares` [n] of the multimodal score.

    `vectors` [items, 2k] are read, and multiplied, once for all of them; what is not above the k-th best of the first
    block is left out at once. `k` is a block's items at most; fewer columns where there are fewer items.
    """
    k, start = min(k, len(vectors)), 0
    floors: list[Vectors] = []
    found: list[list[tuple[Rows, Rows, Vectors]]] = [[] for _ in shares]
    for block in in_blocks(vectors, _BLOCK):
        multimodal, text = (queries @ half.T for half in np.split(block, 2, axis=1))
        for at, share in enumerate(shares):
            scores = _mixed(text, multimodal, share)
            if start == 0:
                floors.append(np.partition(scores, -k, axis=1)[:, -k])
            places = np.flatnonzero(scores >= floors[at][:, None])
            query, row = np.divmod(places, len(block))
            found[at].append((query, row + start, scores.ravel()[places]))
        start += len(block)
    return [_first_of_each([np.concatenate(column) for column in zip(*parts, strict=True)], k) for parts in found]


def _mixed(text: Vectors, multimodal: Vectors, share: Vectors) -> Vectors:
    """Scores [n, items] under a share [n] of the multimodal one."""
    if not share.any():
        return text
    if (share == 1).all():
        return multimodal
    scores: Vectors = text + share[:, None] * (multimodal - text)
    return scores


def _first_of_each(parts: Sequence[Any], k: int) -> Rows:
    """Each query's `k` rows of highest score; `parts` are query, row and score [n]."""
    query, row, score = parts
    order = np.lexsort((row, -score, query))
    starts = np.flatnonzero(np.diff(query[order], prepend=-1))
    best: Rows = row[order][starts[:, None] + np.arange(k)]
    return best


def _cheapest(trial: _Trial, target: float) -> Effort:
    """Few candidates of many lists, or many of few: whichever costs less. Only what may cost less is tried."""
    count, first = trial.lists.count, _CANDIDATES[0]
    each = len(trial.lists) / count
    best = Effort(lists=_least(_FEWEST, count, partial(trial.reached, first), target), candidates=first)
    least = best.lists * each + first * RECALL_AT * _CANDIDATE_COST
    for candidates in _CANDIDATES[1:]:
        fixed = candidates * RECALL_AT * _CANDIDATE_COST
        most = min(int((least - fixed) / each), count)
        if most < best.lists:  # fewer lists than with more candidates never do
            break
        lists = _least(best.lists, most, partial(trial.reached, candidates), target)
        if trial.reached(candidates, lists) < target:
            break
        best, least = Effort(lists=lists, candidates=candidates), lists * each + fixed
    return best


def _least(first: int, most: int, reached: Callable[[int], float], target: float) -> int:
    """The smallest number of lists, `first` to `most`, that reaches the target, to one part in sixteen; else `most`."""
    low = high = min(first, most)
    while high < most and reached(high) < target:
        low, high = high, min(2 * high, most)
    while high - low > max(1, high // 16):
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= target else (middle, high)
    return high
