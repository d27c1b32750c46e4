"""Random and mined negatives of a batch: which items, where they stand, what is masked, when they come."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smar.core.errors import InputError
from smar.core.sections.losses import NegativeSettings
from smar.model.tokens import TokenTable
from smar.training.batches import Collator, KnownPositives, Pairs
from smar.training.negatives import NegativeSampler, keep_scheduled

QUERIES, ITEMS = 5, 12
PAIRS = [(0, 1), (0, 2), (1, 2), (2, 0), (3, 5), (4, 5), (4, 6)]
MINED = np.array([[7, 8, 9], [7, 3, -1], [11, 10, 9], [-1, -1, -1], [4, 3, 1]], np.int32)


def make(negatives):
    pairs = Pairs(np.array([q for q, _ in PAIRS]), np.array([i for _, i in PAIRS]), np.ones(len(PAIRS), np.float32))
    return Collator(
        pairs=pairs,
        queries=TokenTable.from_lists([[2, 50 + n] for n in range(QUERIES)], pad=0),
        items=TokenTable.from_lists([[2, *[100 + n] * (n % 3 + 1)] for n in range(ITEMS)], pad=0),
        images=np.arange(ITEMS, dtype=np.uint8)[:, None, None, None].repeat(3, 3),
        image_row=np.where(np.arange(ITEMS) % 4, np.arange(ITEMS), -1),
        known=KnownPositives(pairs, QUERIES),
        rows=np.arange(len(pairs)),
        negatives=negatives,
    )


chosen = st.lists(st.integers(0, len(PAIRS) - 1), min_size=1, max_size=6, unique=True)


@given(indices=chosen, uniform=st.integers(1, ITEMS), seed=st.integers(0, 99))
def test_uniform_items_join_the_batch_and_liked_ones_are_masked(indices, uniform, seed):
    collate = make(NegativeSampler(uniform=uniform, seed=seed))
    batch = collate(indices)
    rows = batch["item_rows"].tolist()
    own = {PAIRS[n][1] for n in indices}
    assert rows == sorted(set(rows))
    assert own <= set(rows)
    drawn = collate.negatives.draw(np.array(indices), np.array([0]), ITEMS).uniform
    assert len(set(drawn.tolist())) == uniform
    assert set(rows) == own | set(drawn.tolist())
    for place, n in enumerate(indices):
        query, item = PAIRS[n]
        assert rows[batch["target"][place]] == item
        expected = [(query, other) in PAIRS and other != item for other in rows]
        assert batch["blocked"][place].tolist() == expected
    shown = [row for row in rows if row % 4]
    assert ([] if batch["pixels"] is None else batch["pixels"][:, 0, 0, 0].tolist()) == shown
    assert batch["has_image"].tolist() == [bool(row % 4) for row in rows]


def test_draws_depend_on_seed_and_pairs_alone():
    def draw(seed, indices):
        return make(NegativeSampler(uniform=4, seed=seed, hard=2, mined=MINED))(indices)

    first = draw(0, [0, 3, 5])
    np.random.default_rng().random(7)
    torch.rand(3)
    again, other, seeded = draw(0, [0, 3, 5]), draw(0, [0, 3, 6]), draw(1, [0, 3, 5])
    assert all(torch.equal(first[name], again[name]) for name in first if name != "pixels")
    assert first["item_rows"].tolist() not in (other["item_rows"].tolist(), seeded["item_rows"].tolist())


def test_uniform_draws_are_uniform():
    sampler = NegativeSampler(uniform=3, seed=0)
    counts = np.zeros(ITEMS)
    for n in range(4000):
        counts[sampler.draw(np.array([n]), np.array([0]), ITEMS).uniform] += 1
    assert counts / 4000 == pytest.approx(np.full(ITEMS, 3 / ITEMS), abs=0.03)


def test_every_query_brings_its_own_mined_items_without_repeats():
    draw = NegativeSampler(hard=2, mined=MINED).draw(np.array([0, 2, 4]), np.array([0, 1, 3]), ITEMS)
    hard, easy = draw.hard.reshape(3, 2), draw.easy.reshape(3, 2)
    assert set(hard[0]) < {7, 8, 9}
    assert len(set(hard[0])) == 2
    assert set(hard[1]) == {7, 3}
    assert hard[2].tolist() == easy[2].tolist()  # query 3 has no mined item: random ones stand in
    assert ((draw.level >= 0) & (draw.level < 1)).all()


@given(indices=chosen, share=st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_the_schedule_keeps_what_a_collator_of_the_kept_items_would_give(indices, share):
    sampler = NegativeSampler(uniform=2, hard=2, mined=MINED, log_q=np.linspace(-3, 0, ITEMS, dtype=np.float32))
    collate = make(sampler)
    batch = keep_scheduled(collate(indices), share)
    queries = np.unique([PAIRS[n][0] for n in indices])
    drawn = sampler.draw(np.array(indices), queries, ITEMS)
    scheduled = np.where(drawn.level < share, drawn.hard, drawn.easy)
    kept = np.concatenate([drawn.uniform, scheduled])

    class Fixed(NegativeSampler):
        def draw(self, *_):
            return replace(drawn, uniform=kept, hard=kept[:0], easy=kept[:0], level=np.empty(0))

    expected = make(Fixed(log_q=sampler.log_q))(indices)
    assert batch.keys() == expected.keys()
    width = expected["item_ids"].shape[1]
    assert not batch["item_mask"][:, width:].any()
    for name, value in expected.items():
        got = batch[name][:, :width] if name in ("item_ids", "item_mask") else batch[name]
        assert (got is None and value is None) or torch.equal(got, value), name


def test_a_batch_without_hard_negatives_is_left_alone():
    batch = make(NegativeSampler(uniform=2))([0, 1])
    assert keep_scheduled(batch, 0.5) is batch
    assert "log_q" not in batch


def test_log_q_follows_the_columns():
    sampler = NegativeSampler.of(NegativeSettings(uniform=3, logq=True), 0, np.arange(ITEMS), 4)
    collate = make(sampler)
    batch = collate([1, 2, 6])
    assert batch["log_q"].tolist() == sampler.log_q[batch["item_rows"].numpy()].tolist()
    liked, log_q = collate.facts(np.array([0, 4]), np.array([6, 1, 9]))
    assert liked.tolist() == [[False, True, False], [True, False, False]]
    assert log_q.tolist() == sampler.log_q[[6, 1, 9]].tolist()


def test_more_random_items_than_the_catalogue_has_are_refused():
    with pytest.raises(InputError, match="uniform is 13, the catalogue has 12 items"):
        NegativeSampler.of(NegativeSettings(uniform=13), 0, np.ones(12, np.int64), 4)
