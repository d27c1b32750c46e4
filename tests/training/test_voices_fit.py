"""Which held-out pairs the shares of the voices are fitted on."""

from types import SimpleNamespace

import numpy as np

from smar.training.batches import Pairs
from smar.training.heldout import FEWEST_QUERIES
from smar.training.voices_fit import of_new_queries


def pairs(queries: list[int]) -> Pairs:
    return Pairs(np.array(queries), np.arange(len(queries)), np.ones(len(queries), np.float32))


def trained_on(queries: list[int]) -> SimpleNamespace:
    """All pairs of a run, the last of which is held out and so no reason to call its query known."""
    every = pairs([*queries, 99])
    return SimpleNamespace(pairs=every, rows=np.arange(len(queries)))


def test_known_queries_are_left_aside():
    new = list(range(10, 10 + FEWEST_QUERIES))
    kept = of_new_queries(pairs([3, *new, 3, 99]), trained_on([1, 2, 3]))
    assert kept.query.tolist() == [*new, 99]
    assert kept.item.tolist() == [*range(1, 1 + FEWEST_QUERIES), FEWEST_QUERIES + 2]


def test_all_serve_where_new_ones_are_too_few():
    held = pairs([3, 10, 11, 3])
    assert of_new_queries(held, trained_on([1, 2, 3])).query.tolist() == held.query.tolist()
