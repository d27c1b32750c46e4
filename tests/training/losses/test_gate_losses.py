"""What the gate is fitted to, against slow, obvious twins."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smar.training.losses.contrastive import group_mean
from smar.training.losses.gate_scores import WIDTH, advantage, choose_threshold, margin, mix, ridge


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("k", [1, 3, 50])
def test_margin_of_the_soft_score_one_pair_at_a_time(k: int) -> None:
    own, text, multimodal, share = draw(4, 2), draw(4, 9, seed=1), draw(4, 9, seed=2), draw(4, seed=3).abs()
    of_query = margin(*mix(own, text, multimodal, share, share[:, None]), k)
    of_item = margin(*mix(own, text, multimodal, share, multimodal.abs()), k)
    for n in range(4):
        p = float(share[n])
        mine = p * own[n, 1] + (1 - p) * own[n, 0]
        ranked = sorted((float(p * m + (1 - p) * t) for t, m in zip(text[n], multimodal[n], strict=True)), reverse=True)
        assert float(of_query[n]) == pytest.approx(float(mine) - ranked[min(k, 9) - 1], abs=1e-6)
        each = [float(abs(m) * m + (1 - abs(m)) * t) for t, m in zip(text[n], multimodal[n], strict=True)]
        assert float(of_item[n]) == pytest.approx(float(mine) - sorted(each, reverse=True)[min(k, 9) - 1], abs=1e-6)


def test_advantage_is_the_difference_of_two_soft_steps() -> None:
    text, multimodal = draw(20), draw(20, seed=1)
    for a, t, m in zip(advantage(text, multimodal), text, multimodal, strict=True):
        assert float(a) == pytest.approx(1 / (1 + math.exp(-m / WIDTH)) - 1 / (1 + math.exp(-t / WIDTH)), abs=1e-6)
    assert advantage(torch.tensor([-1.0]), torch.tensor([1.0])).item() == pytest.approx(1, abs=1e-6)


def test_group_mean() -> None:
    means = group_mean(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([2, 2, 0]), 4)
    assert means.tolist() == [5, 0, 2, 0]


def test_ridge_minimises_its_objective() -> None:
    features, target = draw(30, 4).double(), draw(30, seed=5).double()
    weight, bias = ridge(features, target, 0.3)
    scale = features.std(0)

    def objective(weight: torch.Tensor, bias: torch.Tensor) -> float:
        missed = (features @ weight + bias - target).square().mean()
        return float(missed + 0.3 * (weight * scale).square().sum())

    best = objective(weight, bias)
    for at in range(4):
        for step in (-1e-3, 1e-3):
            moved = weight.clone()
            moved[at] += step
            assert objective(moved, bias) > best
    assert objective(weight, bias + 1e-3) > best


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.sampled_from([-1.0, -0.25, 0.0, 0.5, 1.0])), min_size=1
    )
)
def test_the_threshold_has_the_best_total_of_all_possible_ones(pairs: list[tuple[float, float]]) -> None:
    p, gain = (torch.tensor(column) for column in zip(*pairs, strict=True))
    threshold = choose_threshold(p, gain)
    assert 0 <= threshold <= 1

    def total(cut: float) -> float:
        return sum(g for q, g in pairs if q > cut)

    everything = max(total(cut) for cut in (0.0, 0.15, 0.3, 0.7, 1.0))
    assert total(threshold) == pytest.approx(everything, abs=1e-5)


def test_the_threshold_may_send_all_queries_one_way() -> None:
    p = torch.tensor([0.3, 0.6])
    assert choose_threshold(p, torch.tensor([0.5, 0.5])) < 0.3
    assert choose_threshold(p, torch.tensor([-0.5, -0.5])) > 0.6
    assert 0.3 < choose_threshold(p, torch.tensor([-0.5, 0.5])) < 0.6
