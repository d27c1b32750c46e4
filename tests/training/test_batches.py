"""Batches: every query and item once, known positives blocked."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from smar.model.tokens import TokenTable
from smar.training.batches import Collator, KnownPositives, Pairs


def make(pairs, queries=4, items=6, images=None, image_row=None):
    table = Pairs(np.array([q for q, _ in pairs]), np.array([i for _, i in pairs]), np.ones(len(pairs), np.float32))
    return Collator(
        pairs=table,
        queries=TokenTable.from_lists([[2, 10 + n, 3] for n in range(queries)], pad=0),
        items=TokenTable.from_lists([[2, *range(20, 20 + n + 1), 3] for n in range(items)], pad=0),
        images=images,
        image_row=np.full(items, -1) if image_row is None else np.array(image_row),
        known=KnownPositives(table, queries),
        rows=np.arange(len(table)),
    )


def test_token_table_pads_to_the_longest_row_asked_for():
    table = TokenTable.from_lists([[5], [6, 7, 8], []], pad=9)
    ids, mask = table.rows(np.array([1, 0, 2]))
    assert ids.tolist() == [[6, 7, 8], [5, 9, 9], [9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert len(table) == 3


pair_lists = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=12, unique=True)


@settings(max_examples=60, deadline=None)
@given(pairs=pair_lists, data=st.data())
def test_batch_equals_the_slow_twin(pairs, data):
    chosen = data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=8, unique=True))
    batch = make(pairs)(chosen)
    queries = sorted({pairs[n][0] for n in chosen})
    items = sorted({pairs[n][1] for n in chosen})
    assert batch["query_ids"][:, 1].tolist() == [10 + q for q in queries]
    assert batch["item_rows"].tolist() == items
    for row, n in enumerate(chosen):
        query, item = pairs[n]
        assert queries[batch["query_of_pair"][row]] == query
        assert items[batch["target"][row]] == item
        for column, other in enumerate(items):
            assert batch["blocked"][row, column].item() == ((query, other) in pairs and other != item)


def test_pictures_come_for_the_items_that_have_one_in_item_order():
    images = np.arange(3 * 2 * 2 * 3, dtype=np.uint8).reshape(3, 2, 2, 3)
    batch = make([(0, 4), (1, 1), (2, 2)], images=images, image_row=[-1, 2, -1, -1, 0, -1])([0, 1, 2])
    assert batch["item_rows"].tolist() == [1, 2, 4]
    assert batch["has_image"].tolist() == [True, False, True]
    assert np.array_equal(batch["pixels"].numpy(), images[[2, 0]])


def test_several_pictures_of_an_item_follow_each_other():
    images = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    rows = [[-1, -1], [2, 3], [-1, -1], [-1, -1], [1, -1], [0, -1]]
    batch = make([(0, 4), (1, 1), (2, 2)], images=images, image_row=rows)([0, 1, 2])
    assert batch["item_rows"].tolist() == [1, 2, 4]
    assert batch["pictures"].tolist() == [2, 0, 1]
    assert batch["has_image"].tolist() == [True, False, True]
    assert np.array_equal(batch["pixels"].numpy(), images[[2, 3, 1]])


def test_a_batch_without_any_picture_has_no_pixels():
    batch = make([(0, 0), (1, 1)], images=np.zeros((0, 2, 2, 3), np.uint8))([0, 1])
    assert batch["pixels"] is None
    assert not batch["has_image"].any()
