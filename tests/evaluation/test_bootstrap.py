"""Bootstrap intervals: repeatable, centred, as wide as theory says, and paired."""

import numpy as np
import pytest

from smar.evaluation import bootstrap
from smar.evaluation.bootstrap import resample, resample_means
from smar.evaluation.metrics import QueryMetrics


def metrics(recall: np.ndarray) -> QueryMetrics:
    return QueryMetrics(np.arange(len(recall)), recall, recall / 10, recall, recall)


def slow_means(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """One resample after the other."""
    rng = np.random.default_rng(seed)
    return np.array([values[rng.integers(len(values), size=len(values))].mean(axis=0) for _ in range(resamples)])


def test_means_equal_the_slow_twin_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((37, 3))
    for block in (1, 100, 10_000):
        monkeypatch.setattr(bootstrap, "_BLOCK", block)
        np.testing.assert_allclose(resample_means(values, 25, seed=4), slow_means(values, 25, seed=4), atol=1e-12)


def test_the_interval_is_as_wide_as_theory_says() -> None:
    recall = np.random.default_rng(2).random(400)
    got = resample({"smar": metrics(recall)}, 50, resamples=4000).interval("smar", "R@50")
    half = 1.96 * recall.std() / 20
    assert got.value == pytest.approx(recall.mean())
    assert got.low == pytest.approx(recall.mean() - half, abs=0.1 * half)
    assert got.high == pytest.approx(recall.mean() + half, abs=0.1 * half)


def test_pairing_takes_out_what_is_hard_for_both() -> None:
    rng = np.random.default_rng(3)
    words = rng.random(300)
    both = resample({"smar": metrics(words + 0.02 + 0.001 * rng.random(300)), "dpsr": metrics(words)}, 50, 1000)
    apart = [both.interval(name, "R@50") for name in ("smar", "dpsr")]
    assert apart[0].low < apart[1].high  # the two intervals overlap, the difference is sure all the same
    difference = both.difference("smar", "dpsr", "R@50")
    assert 0.019 < difference.low <= difference.value <= difference.high < 0.022


def test_f1_comes_from_resampled_means() -> None:
    got = resample({"m": metrics(np.array([0.0, 1.0]))}, 10, resamples=200)
    precision, recall = got.draws["m", "P@10"], got.draws["m", "R@10"]
    both = precision + recall
    want = np.where(both > 0, 2 * precision * recall / np.where(both > 0, both, 1), 0)
    np.testing.assert_allclose(got.draws["m", "F1@10"], want)


def test_same_seed_same_interval() -> None:
    recall = np.random.default_rng(5).random(50)
    one, two, other = (resample({"m": metrics(recall)}, 5, 300, seed).interval("m", "MRR") for seed in (1, 1, 2))
    assert one == two != other


def test_models_of_other_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="share its queries"):
        resample({"a": metrics(np.ones(3)), "b": metrics(np.ones(4))}, 5, 100)
    with pytest.raises(ValueError, match="must be one"):
        resample({"a": metrics(np.ones(0))}, 5, 100)
