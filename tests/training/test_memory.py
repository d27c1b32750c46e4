"""Remembered item vectors: order, replacement, masking, disk."""

import pytest
import torch

from smar.model.modeling import ItemOutput
from smar.training.losses.contrastive import pair_losses
from smar.training.memory import Memory, recall


def encoded(rows, shift=0.0):
    vectors = torch.tensor([[row + shift, 1.0] for row in rows], requires_grad=True)
    return ItemOutput(vectors, vectors * 2, vectors * 3, torch.tensor([row % 2 == 0 for row in rows]))


def of(rows, shift=0.0):
    return Memory.of(torch.tensor(rows), encoded(rows, shift))


def test_the_newest_vector_of_an_item_stays_and_the_oldest_items_go():
    memory = of([1, 2, 3])
    newest = of([3, 4], shift=0.5)
    memory = memory.without(newest.rows).then(newest, 3)
    assert memory.rows.tolist() == [2, 3, 4]
    assert memory.text[:, 0].tolist() == [2.0, 3.5, 4.5]
    assert memory.multimodal[:, 0].tolist() == [6.0, 10.5, 13.5]
    assert memory.has_image.tolist() == [True, False, True]
    assert not memory.text.requires_grad
    assert len(memory.then(of([9]), 1)) == 1


def test_remembered_items_stand_behind_the_batch_and_get_no_gradient():
    item = encoded([7, 8])
    both = of([1, 2, 3]).behind(item)
    assert both.image[:, 0].tolist() == [14.0, 16.0, 2.0, 4.0, 6.0]
    both.image.sum().backward()
    assert item.text.grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_a_memory_of_the_same_items_equals_doubled_candidates():
    """Every negative counted twice, the positive masked in memory: log(own + 2 others)."""
    generator = torch.Generator().manual_seed(0)
    query, items = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (3, 5))
    item = ItemOutput(items, items, items, torch.ones(5, dtype=torch.bool))
    both = Memory.of(torch.arange(5), item).behind(item)
    target = torch.tensor([0, 3, 4])
    blocked = torch.zeros(3, 10, dtype=torch.bool)
    blocked[torch.arange(3), target + 5] = True
    got = pair_losses(query @ both.text.T, target, blocked, 0.5)
    logits = query @ items.T / 0.5
    own = logits.gather(1, target[:, None]).exp().squeeze(1)
    others = logits.exp().sum(1) - own
    assert got.tolist() == pytest.approx((-(own / (own + 2 * others)).log()).tolist())


def test_it_comes_back_from_disk_bit_for_bit(tmp_path):
    memory = of([5, 3, 8], shift=0.1)
    memory.save(tmp_path / "memory.safetensors")
    again = Memory.load(tmp_path / "memory.safetensors", torch.device("cpu"))
    for name in ("rows", "text", "image", "multimodal", "has_image"):
        assert torch.equal(getattr(memory, name), getattr(again, name))


def test_a_step_sees_earlier_items_but_not_those_its_queries_like():
    likes = {(0, 7), (0, 3), (1, 8), (1, 3), (1, 2)}

    def facts(queries, items):
        liked = torch.tensor([[(q, i) in likes for i in items.tolist()] for q in queries.tolist()])
        return liked.reshape(len(queries), len(items)), torch.from_numpy(-items.astype("float32"))

    def batch(rows):
        return {
            "item_rows": torch.tensor(rows),
            "query_rows": torch.tensor([0, 1]),
            "query_of_pair": torch.tensor([1, 0, 1]),
            "blocked": torch.zeros(3, len(rows), dtype=torch.bool),
            "log_q": -torch.tensor(rows, dtype=torch.float32),
        }

    memory, item, first = recall(None, encoded([3, 7]), batch([3, 7]), facts, 3)
    assert (len(item.text), first["blocked"].shape, memory.rows.tolist()) == (2, (3, 2), [3, 7])
    memory, item, _ = recall(memory, encoded([2, 4]), batch([2, 4]), facts, 3)
    assert (len(item.text), memory.rows.tolist()) == (4, [7, 2, 4])
    memory, item, third = recall(memory, encoded([7, 8], shift=0.5), batch([7, 8]), facts, 3)
    assert item.text[:, 0].tolist() == [7.5, 8.5, 2.0, 4.0]  # item 7 stands in the batch itself
    assert third["blocked"][:, 2:].tolist() == [[True, False], [False, False], [True, False]]
    assert third["log_q"].tolist() == [-7.0, -8.0, -2.0, -4.0]
    assert memory.rows.tolist() == [4, 7, 8]
