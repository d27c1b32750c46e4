"""Hidden R@k: what only the picture can find.

A judgement is *hidden* where the item's text does not name what the query asks; judgements say so in a boolean
column `hidden`. Of these count the cold ones: a text tower memorises what the pictures of clicked items show, because
their titles are unique. Hidden R@k is the share of a query's hidden, cold items that stand in the top k once its other
relevant items are taken out of the ranking, averaged over queries.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from smar.evaluation.metrics import Integers, Mask, QueryMetrics, Relevance

HIDDEN = "hidden"
"""Name of the slice."""


@dataclass(frozen=True)
class Hidden:
    """pairs: entries of the relevance, hidden and cold; places: model -> place of each, from 1; both [pairs]."""

    pairs: Integers
    places: Mapping[str, Integers]


def hidden_pairs(hidden: Mask | None, clicked_in_train: Mask, relevance: Relevance) -> Integers:
    """Entries that are hidden [m] and whose item [n] was never clicked in training; none where nothing is known."""
    if hidden is None:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(hidden & ~clicked_in_train[relevance.items])


def hidden_metrics(found: Integers, pairs: Integers, relevance: Relevance, k: int) -> QueryMetrics:
    """Share of each query's hidden items in the top k.

    Args:
        found: place of every pair, from 1, [pairs].
        pairs: entries of `relevance`.
        relevance: says which query a pair is of.
        k: cut-off.

    Returns:
        Of the queries that have a hidden item; the metrics beside recall have no meaning once relevant items are taken
        out, and are NaN.
    """
    rows, query, counts = np.unique(relevance.query[pairs], return_inverse=True, return_counts=True)
    nothing = np.full(len(rows), np.nan)
    return QueryMetrics(rows, np.bincount(query, weights=found <= k) / counts, nothing, nothing, nothing)
