"""The randomisation test against full enumeration, Holm's correction against its definition."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smar.evaluation import significance
from smar.evaluation.significance import FLIPS, flips_for, holm, sign_flip


def exact(differences: list[float]) -> float:
    """Share of all 2^n sign vectors whose mean is at least as far from 0 as the measured one."""
    measured = abs(sum(differences)) - 1e-9
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return float(np.mean([value >= measured for value in sums]))


@pytest.mark.parametrize("seed", range(6))
def test_p_is_that_of_enumeration(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.column_stack([rng.normal(0.3 * seed, 1, 10), rng.integers(-2, 3, 10) / 4, rng.random(10)])
    got = sign_flip(values, 40_000, seed)
    for column, p in zip(values.T, got, strict=True):
        want = exact(column.tolist())
        assert p == pytest.approx(want, abs=4 * np.sqrt(want * (1 - want) / 40_000) + 1e-4)


def test_blocks_and_other_comparisons_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(0.2, 1, (37, 3))
    whole = sign_flip(values, 500, seed=4)
    monkeypatch.setattr(significance, "_BLOCK", 1000)
    np.testing.assert_array_equal(sign_flip(values, 500, seed=4), whole)
    np.testing.assert_array_equal(sign_flip(values[:, 1:2], 500, seed=4), whole[1:2])


def test_queries_without_a_difference_do_not_count() -> None:
    values = np.random.default_rng(2).normal(0.4, 1, (20, 1))
    padded = np.vstack([values, np.zeros((300, 1))])
    assert sign_flip(padded, 2000, 1) == sign_flip(values, 2000, 1)
    assert sign_flip(np.zeros((5, 2)), 100).tolist() == [1, 1]


def test_under_no_difference_p_is_uniform() -> None:
    rng = np.random.default_rng(3)
    p = np.array([sign_flip(rng.normal(0, 1, (40, 1)), 400, n)[0] for n in range(300)])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 300))


def slow_holm(p: list[float]) -> list[float]:
    """A hypothesis' corrected p is the largest that its predecessors and itself reach, step by step."""
    order, worst, out = sorted(range(len(p)), key=lambda i: p[i]), 0.0, [0.0] * len(p)
    for step, i in enumerate(order):
        worst = max(worst, min(1.0, p[i] * (len(p) - step)))
        out[i] = worst
    return out


@given(st.lists(st.floats(0.0001, 1), max_size=12))
def test_holm_equals_its_slow_twin(p: list[float]) -> None:
    np.testing.assert_allclose(holm(p), slow_holm(p))


def test_a_large_family_gets_flips_enough_to_be_corrected() -> None:
    assert flips_for(10) == FLIPS
    assert 2000 / (1 + flips_for(2000)) < 0.025
