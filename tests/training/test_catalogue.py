"""Queries made of the catalogue's words: what they hold, whom they name, and what they leave alone in a batch."""

import numpy as np
import pytest
import torch

from smar.data.words import words
from smar.model.tokens import TokenTable
from smar.training.batches import Collator, KnownPositives, Pairs
from smar.training.made_queries import CatalogueQueries

TITLES = ["red cotton dress", "blue cotton dress", "kettle 1.7 l steel", "연필 깎이", "红色连衣裙夏季新款", ""]
BRANDS = ["Acme", "acme", "", "Bic", "", "Nobody"]


def made_of(share=1.0, seed=0):
    return CatalogueQueries.of([TITLES, BRANDS], share, seed, lambda texts: [[5, len(text)] for text in texts])


def test_a_query_holds_words_of_its_item_but_for_typing_errors():
    queries, mistyped, seen = made_of(), 0, set()
    for batch in range(200):
        made = queries.draw(np.array([batch, 7, 8, 9, 10, 11]))
        assert sorted(set(made.items.tolist())) == made.items.tolist()
        for item, text in zip(made.items.tolist(), made.queries, strict=True):
            seen.add(item)
            own = set(words(f"{TITLES[item]} {BRANDS[item]}"))
            mistyped += not set(words(text)) <= own
            assert 1 <= len(text.split()) <= 5
    assert seen == {0, 1, 2, 3, 4, 5}
    assert 20 < mistyped < 200, "one query in ten"


def test_a_draw_depends_on_the_batch_and_the_seed_alone():
    pairs = np.arange(6)
    one, again, other = made_of().draw(pairs), made_of().draw(pairs), made_of(seed=1).draw(pairs)
    assert one.queries == again.queries
    assert one.queries != other.queries


def test_items_that_hold_all_words_are_the_slow_twins():
    queries = made_of()
    own = [set(words(f"{title} {brand}")) for title, brand in zip(TITLES, BRANDS, strict=True)]
    numbered = {number: word for word, number in queries.number.items()}
    for batch in range(50):
        made = queries.draw(np.array([batch, 1, 2, 3, 4, 5]))
        items = np.array([0, 1, 2, 3, 4, 5])
        holding = queries.holding(made, items)
        for row, numbers in enumerate(made.words):
            assert holding[row].tolist() == [{numbered[number] for number in numbers} <= held for held in own]


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_batch_holds_them_behind_the_typed_queries(share):
    pairs = Pairs(np.array([0, 0, 1, 2]), np.array([0, 1, 2, 3]), np.array([1, 2, 3, 4], np.float32))
    plain = Collator(
        pairs=pairs,
        queries=TokenTable.from_lists([[2, 3, 4], [2, 3], [2]], pad=0),
        items=TokenTable.from_lists([[9]] * 6, pad=0),
        images=None,
        image_row=np.full(6, -1),
        known=KnownPositives(pairs, 3),
        rows=np.arange(4),
        share=np.array([0.1, 0.2, 0.3], np.float32),
    )
    mixed = Collator(**{**vars(plain), "catalogue": made_of(share)})
    before, after = plain([0, 1, 2, 3]), mixed([0, 1, 2, 3])
    count = round(4 * share)
    assert len(after["query_of_pair"]) == len(after["target"]) == len(after["weight"]) == 4 + count
    assert after["query_rows"].tolist() == [0, 1, 2] + [-1] * count
    assert after["share"].tolist() == pytest.approx([0.1, 0.2, 0.3] + [0.0] * count)
    assert torch.equal(after["query_ids"][:3, :3], before["query_ids"])
    assert after["weight"][4:].tolist() == pytest.approx([2.5] * count)
    made = mixed.catalogue.draw(np.arange(4))
    assert after["item_rows"][after["target"][4:]].tolist() == made.items.tolist()
    assert after["item_rows"][after["target"][:4]].tolist() == [0, 1, 2, 3]
    assert not after["blocked"].gather(1, after["target"][:, None]).any()
    assert after["liked"].shape == (3 + count, len(after["item_rows"]))
