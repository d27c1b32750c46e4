"""Probability that a batch holds an item, against counting and against real draws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smar.training.losses.sampling import log_inclusion


@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    batch=st.integers(1, 20),
    data=st.data(),
)
def test_inclusion_equals_the_slow_twin(counts, batch, data):
    uniform = data.draw(st.integers(0, len(counts)))
    got = log_inclusion(np.array(counts), batch, uniform)
    for item, count in enumerate(counts):
        shown = count if uniform else max(count, 1)
        absent = 1.0
        for _ in range(batch):
            absent *= 1 - min(shown / sum(counts), 1)
        absent *= 1 - uniform / len(counts)
        assert math.exp(got[item]) == pytest.approx(1 - absent, rel=1e-5)


def test_inclusion_is_the_share_of_batches_that_hold_the_item():
    counts, batch, uniform, rounds = np.array([40, 10, 5, 1, 0, 0, 0, 0]), 6, 2, 20_000
    rng = np.random.default_rng(0)
    item = np.repeat(np.arange(len(counts)), counts)
    seen = np.zeros(len(counts))
    for _ in range(rounds):
        pairs = item[rng.integers(len(item), size=batch)]
        seen[np.union1d(pairs, rng.choice(len(counts), uniform, replace=False))] += 1
    assert np.exp(log_inclusion(counts, batch, uniform)) == pytest.approx(seen / rounds, abs=0.015)


def test_equally_frequent_items_have_equal_probabilities():
    assert len(set(log_inclusion(np.full(50, 3), 16, 0).tolist())) == 1
