"""Both directions and Matryoshka prefixes against slow, obvious twins."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smar.core.sections.losses import LossSettings
from smar.training.losses.contrastive import prefix
from smar.training.losses.objective import Objective


def some_batch(seed, queries, items, pairs):
    """Cosines [u, n], distinct pairs (query, item), known positives [u, n] that hold the pairs and a few more."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(queries, items, generator=generator, dtype=torch.float64) * 2 - 1
    chosen = torch.randperm(queries * items, generator=generator)[: min(pairs, queries * items)]
    rows, target = chosen // items, chosen % items
    liked = torch.rand(queries, items, generator=generator) < 0.2
    liked[rows, target] = True
    blocked = liked[rows]
    blocked[torch.arange(len(rows)), target] = False
    return scores, rows, target, blocked, liked


batches = st.tuples(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))


def softmax_loss(own, others, temperature):
    total = sum(math.exp(score / temperature) for score in [own, *others])
    return -math.log(math.exp(own / temperature) / total)


@settings(max_examples=30, deadline=None)
@given(shape=batches)
def test_both_directions_equal_the_slow_twin(shape):
    scores, rows, target, blocked, liked = some_batch(*shape)
    loss = LossSettings(symmetric=0.5)
    objective = Objective(loss, 0.2, rows, target, blocked, liked)
    got = objective.by_query(scores[rows]) + 0.5 * objective.by_item(scores.T[target])
    for pair, (query, item) in enumerate(zip(rows.tolist(), target.tolist(), strict=True)):
        own = float(scores[query, item])
        items = [float(scores[query, i]) for i in range(scores.shape[1]) if not liked[query, i]]
        queries = [float(scores[q, item]) for q in range(scores.shape[0]) if not liked[q, item]]
        assert float(got[pair]) == pytest.approx(softmax_loss(own, items, 0.2) + 0.5 * softmax_loss(own, queries, 0.2))


def test_a_prefix_is_cut_and_brought_to_unit_length():
    vectors = torch.tensor([[3.0, 4.0, 12.0], [0.0, -2.0, 1.0]])
    assert prefix(vectors, 2).tolist() == [pytest.approx([0.6, 0.8]), pytest.approx([0.0, -1.0])]
