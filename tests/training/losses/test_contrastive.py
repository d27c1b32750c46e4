"""Losses against slow, obvious twins."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from smar.training.losses.contrastive import (
    adaptive_scores,
    counterfactual_labels,
    pair_losses,
    weighted_mean,
)


def unit(*shape, seed=0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(values, dim=-1)


def slow_pair_loss(scores, target, blocked, temperature):
    out = []
    for row, own in enumerate(target):
        exponents = [
            math.exp(s / temperature) for s, hidden in zip(scores[row], blocked[row], strict=True) if not hidden
        ]
        out.append(-math.log(math.exp(scores[row][own] / temperature) / sum(exponents)))
    return out


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), pairs=st.integers(1, 6), items=st.integers(1, 7), share=st.floats(0, 1))
def test_pair_losses_equal_the_slow_twin(seed, pairs, items, share):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(pairs, items, generator=generator, dtype=torch.float64) * 2 - 1
    target = torch.randint(items, (pairs,), generator=generator)
    blocked = torch.rand(pairs, items, generator=generator) < share
    blocked[torch.arange(pairs), target] = False
    fast = pair_losses(scores, target, blocked, 0.2)
    assert fast.tolist() == pytest.approx(slow_pair_loss(scores.tolist(), target.tolist(), blocked.tolist(), 0.2))


def test_a_blocked_item_gets_no_gradient_and_changes_nothing():
    query, item = unit(2, 8).requires_grad_(), unit(4, 8, seed=1).requires_grad_()
    rows, target = torch.tensor([0, 1]), torch.tensor([0, 1])
    blocked = torch.zeros(2, 4, dtype=torch.bool)
    blocked[:, 3] = True
    loss = pair_losses((query @ item.T)[rows], target, blocked, 1 / 30).sum()
    loss.backward()
    assert item.grad[3].abs().sum() == 0
    assert item.grad[2].abs().sum() > 0
    without = pair_losses((query @ item[:3].T)[rows], target, blocked[:, :3], 1 / 30).sum()
    assert loss.item() == pytest.approx(without.item())


def test_weighted_mean_ignores_weight_zero_and_survives_no_weight():
    values = torch.tensor([1.0, 5.0, 100.0])
    assert weighted_mean(values, torch.tensor([1.0, 3.0, 0.0])).item() == pytest.approx(4.0)
    assert weighted_mean(values, torch.zeros(3)).item() == 0


def test_adaptive_score_is_the_inner_product_of_the_concatenated_vectors():
    """docs/paper.md: [p Q ; (1-p) Q] . [S_m ; S_t] equals the soft score exactly."""
    query, text, multimodal = unit(3, 8), unit(5, 8, seed=1), unit(5, 8, seed=2)
    p = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    soft = adaptive_scores(query @ text.T, query @ multimodal.T, p)
    wide = torch.cat([p[:, None] * query, (1 - p[:, None]) * query], 1) @ torch.cat([multimodal, text], 1).T
    assert torch.allclose(soft, wide)
    assert torch.equal(soft[0], (query @ text.T)[0])


def test_counterfactual_labels_average_over_each_query_without_gradient():
    text_loss = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    image_loss = torch.tensor([1.0, 2.0, 1.0], requires_grad=True)
    labels = counterfactual_labels(text_loss, image_loss, torch.tensor([0, 0, 2]), 3)
    assert labels.tolist() == [0.5, 0.0, 1.0]
    assert not labels.requires_grad
