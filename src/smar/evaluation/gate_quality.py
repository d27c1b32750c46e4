"""How good the gate is: whom it sends to the pictures, and whether these are the queries that need them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smar.evaluation.bootstrap import Interval, draw_counts, interval_of
from smar.evaluation.metrics import Floats, Integers, Mask, Relevance
from smar.evaluation.slices import Slice


@dataclass(frozen=True)
class Gate:
    """The gate of one model on the test queries.

    model: its name; probability: [n_queries]; threshold: a query goes to the pictures above it; routed: slice ->
    share of its queries that do; needs_image: truth [n_queries], NaN where unknown, None where nothing is known;
    auc: of the probability for that truth over the `known` queries, None where queries of one kind are missing.
    """

    model: str
    probability: Floats
    threshold: float
    routed: Mapping[str, float]
    needs_image: Floats | None
    auc: Interval | None = None
    known: int = 0


def judge_gate(
    model: str,
    probability: Floats,
    threshold: float,
    relevance: Relevance,
    slices: Sequence[Slice],
    truth: Floats | None,
    needs_image: float,
    resamples: int,
) -> Gate:
    """Shares and AUC of a gate; positive are queries whose `truth` [n_queries] is `needs_image` or more, negative 0."""
    routed = routed_shares(probability, threshold, relevance, slices)
    auc, known = None, np.zeros(len(probability), dtype=bool)
    if truth is not None:
        positive, negative = truth >= needs_image, truth == 0
        known = positive | negative
        if positive.any() and negative.any():
            auc = auc_interval(probability[known], positive[known], resamples)
    return Gate(model, probability, threshold, routed, truth, auc, int(known.sum()))


def routed_shares(
    probability: Floats, threshold: float, relevance: Relevance, slices: Sequence[Slice]
) -> dict[str, float]:
    """Share of each slice's queries whose probability [n_queries] is above the threshold."""
    query = relevance.query
    return {s.name: float((probability[np.unique(query[s.entries])] > threshold).mean()) for s in slices}


def auc_interval(score: Floats, positive: Mask, resamples: int, seed: int = 0) -> Interval:
    """Area under the ROC curve with its 95 % bootstrap interval over queries.

    Args:
        score: [n]; positive: bool [n] with both values.
        resamples: draws of n queries; one that draws a single kind (only in tiny samples) counts 0.5.
        seed: the same seed gives the same interval.
    """
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf) > 0)
    positive, n = positive[order], len(score)
    value = auc_of(np.ones((1, n), dtype=np.int64), positive, starts)[0]
    draws = [auc_of(counts, positive, starts) for counts in draw_counts(n, resamples, seed)]
    return interval_of(float(value), np.concatenate(draws))


def auc_of(counts: Integers, positive: Mask, starts: Integers) -> Floats:
    """Probability that a positive scores above a negative, equal scores counting half.

    Args:
        counts: how often each query was drawn, [b, n], queries by rising score.
        positive: [n] in the same order.
        starts: where a new score begins, ascending from 0.

    Returns:
        [b]; 0.5 where only one kind was drawn.
    """
    ours = np.add.reduceat(counts * positive, starts, axis=1)
    theirs = np.add.reduceat(counts * ~positive, starts, axis=1)
    below = np.cumsum(theirs, axis=1) - theirs
    pairs = ours.sum(axis=1) * theirs.sum(axis=1)
    better = (ours * (below + theirs / 2)).sum(axis=1)
    return np.asarray(np.divide(better, pairs, out=np.full(len(counts), 0.5), where=pairs > 0))
