"""AUC against the definition, with ties, and its interval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from smar.evaluation.gate_quality import auc_interval, auc_of, judge_gate
from smar.evaluation.metrics import Relevance
from smar.evaluation.slices import Slice


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.integers(0, 3)), min_size=2, max_size=25))
def test_auc_of_drawn_queries_equals_all_pairs(rows):
    """Each query (score, positive, times drawn) stands as often as it was drawn."""
    rows = sorted(rows)
    score, positive, counts = (np.array(column) for column in zip(*rows, strict=True))
    drawn = [(s, p) for s, p, n in rows for _ in range(n)]
    pairs = [(a > b) + (a == b) / 2 for a, is_a in drawn for b, is_b in drawn if is_a and not is_b]
    starts = np.flatnonzero(np.diff(score, prepend=-1) > 0)
    assert auc_of(counts[None], positive, starts)[0] == pytest.approx(np.mean(pairs) if pairs else 0.5)


def test_auc_agrees_with_scikit_learn_and_its_interval_with_theory():
    rng = np.random.default_rng(0)
    positive = rng.random(400) < 0.3
    score = np.round(rng.normal(size=400) + positive, 1)
    got = auc_interval(score, positive, 1000)
    assert got.value == pytest.approx(roc_auc_score(positive, score))
    a, n, m = got.value, positive.sum(), (~positive).sum()
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)  # Hanley and McNeil 1982
    half = 1.96 * np.sqrt((a * (1 - a) + (n - 1) * (q1 - a * a) + (m - 1) * (q2 - a * a)) / (n * m))
    assert got.high - got.low == pytest.approx(2 * half, rel=0.2)


def test_only_known_queries_count():
    relevance = Relevance.from_pairs(range(6), range(6), [1] * 6, queries=6)
    p, truth = np.array([0.9, 0.8, 0.1, 0.2, 0.95, 0.99]), np.array([1, 0.5, 0, 0, 0.2, np.nan])
    whole = Slice("all", np.ones(6, dtype=bool))
    gate = judge_gate("smar", p, 0.5, relevance, [whole, Slice("two", relevance.query < 3)], truth, 0.5, 100)
    assert gate.known == 4
    assert gate.auc is not None
    assert gate.auc.value == 1
    assert gate.routed == {"all": pytest.approx(4 / 6), "two": pytest.approx(2 / 3)}
    assert judge_gate("smar", p, 0.5, relevance, [whole], np.zeros(6), 0.5, 100).auc is None
    assert judge_gate("smar", p, 0.5, relevance, [whole], None, 0.5, 100).auc is None
