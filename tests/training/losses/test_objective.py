"""Hinge, both directions and Matryoshka prefixes against slow, obvious twins."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smar.core.sections.losses import LossSettings
from smar.training.losses.contrastive import hinge_losses, prefix
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


def hinge_loss(own, others, margin):
    return sum(max(0.0, margin - own + score) for score in others) / max(1, len(others))


@settings(max_examples=30, deadline=None)
@given(shape=batches, kind=st.sampled_from(["softmax", "hinge"]))
def test_both_directions_equal_the_slow_twin(shape, kind):
    scores, rows, target, blocked, liked = some_batch(*shape)
    loss = LossSettings(kind=kind, margin=0.3, symmetric=0.5)
    objective = Objective(loss, 0.2, rows, target, blocked, liked)
    got = objective.by_query(scores[rows]) + 0.5 * objective.by_item(scores.T[target])
    for pair, (query, item) in enumerate(zip(rows.tolist(), target.tolist(), strict=True)):
        own = float(scores[query, item])
        items = [float(scores[query, i]) for i in range(scores.shape[1]) if not liked[query, i]]
        queries = [float(scores[q, item]) for q in range(scores.shape[0]) if not liked[q, item]]
        one = (lambda others: softmax_loss(own, others, 0.2)) if kind == "softmax" else None  # noqa: B023
        one = one or (lambda others: hinge_loss(own, others, 0.3))  # noqa: B023
        assert float(got[pair]) == pytest.approx(one(items) + 0.5 * one(queries))


def test_a_hinge_that_every_negative_keeps_is_zero_and_blocked_items_do_not_count():
    scores = torch.tensor([[0.9, 0.1, 0.95], [0.1, 0.9, 0.0]], requires_grad=True)
    blocked = torch.tensor([[False, False, True], [False, False, False]])
    losses = hinge_losses(scores, torch.tensor([0, 1]), blocked, 0.1)
    assert losses.tolist() == [0.0, 0.0]
    open_ = hinge_losses(scores, torch.tensor([0, 1]), torch.zeros_like(blocked), 0.1)
    assert open_.tolist() == pytest.approx([(0.1 - 0.9 + 0.95) / 2, 0.0])
    open_.sum().backward()
    assert scores.grad[0].tolist() == [-0.5, 0.0, 0.5]


def test_a_prefix_is_cut_and_brought_to_unit_length():
    vectors = torch.tensor([[3.0, 4.0, 12.0], [0.0, -2.0, 1.0]])
    assert prefix(vectors, 2).tolist() == [pytest.approx([0.6, 0.8]), pytest.approx([0.0, -1.0])]
