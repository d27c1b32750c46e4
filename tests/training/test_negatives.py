"""Random negatives of a batch: which items, where they stand, what is masked."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smar.core.errors import InputError
from smar.model.tokens import TokenTable
from smar.training.batches import Collator, KnownPositives, Pairs
from smar.training.negatives import NegativeSampler

QUERIES, ITEMS = 5, 12
PAIRS = [(0, 1), (0, 2), (1, 2), (2, 0), (3, 5), (4, 5), (4, 6)]


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
    drawn = collate.negatives.draw(np.array(indices), ITEMS)
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
        return make(NegativeSampler(uniform=4, seed=seed))(indices)

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
        counts[sampler.draw(np.array([n]), ITEMS)] += 1
    assert counts / 4000 == pytest.approx(np.full(ITEMS, 3 / ITEMS), abs=0.03)


def test_more_random_items_than_the_catalogue_has_are_refused():
    with pytest.raises(InputError, match="uniform is 13, the catalogue has 12 items"):
        NegativeSampler(13).check(12)
