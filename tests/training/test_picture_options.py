"""Options that make the picture count: each against an obvious twin."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smar.core.errors import InputError
from smar.core.sections.model import ModelSettings
from smar.core.sections.training import PictureSettings
from smar.model.configuration import build_config
from smar.model.modeling import SmarModel
from smar.model.processing import build_processor
from smar.model.tokens import TokenTable
from smar.training.alignment import AlignmentItems, ItemKeys, align
from smar.training.augmentation import flip_and_move, vary
from smar.training.batches import Collator, KnownPositives, Pairs
from smar.training.losses.picture_losses import alignment_loss, word_loss
from smar.training.word_bags import RARE, WordCollator, number_words, word_bags

WORDS = ["red dress", "blue shoe for men", "steel kettle 1.7 l", "long sleeve shirt"]
SMALL = {"layers": 1, "hidden": 32, "heads": 2}


def small_model(**model):
    towers = {"query": SMALL, "text": SMALL, "vision": SMALL}
    chosen = ModelSettings(dim=16, vocabulary=200, **{**towers, **model})
    processor = build_processor(chosen, 32, WORDS)
    config = build_config(chosen, 32, len(processor.tokenizer), ("title",), 1 / 30)
    torch.manual_seed(0)
    return SmarModel._from_config(config, attn_implementation="eager").eval(), processor


def unit(n, seed):
    return torch.nn.functional.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_alignment_loss_equals_a_loop_over_pictures_and_texts():
    image, text = unit(4, 0), unit(4, 1)
    alike = torch.eye(4, dtype=torch.bool)
    alike[0, 2] = alike[2, 0] = True
    total = 0.0
    for n in range(4):
        others = [m for m in range(4) if m == n or not alike[n, m]]
        for mine, theirs in ((image, text), (text, image)):
            scores = torch.stack([mine[n] @ theirs[m] / 0.1 for m in others])
            total -= float(scores.log_softmax(0)[others.index(n)]) / 8
    assert alignment_loss(image, text, alike, 0.1).item() == pytest.approx(total, rel=1e-5)
    assert alignment_loss(image, text, torch.zeros_like(alike), 0.1).item() > total  # the twin was a negative


def test_alignment_of_no_pictures_is_zero_with_a_gradient():
    image = torch.zeros(0, 8, requires_grad=True)
    loss = alignment_loss(image, torch.zeros(0, 8), torch.zeros(0, 0, dtype=torch.bool), 0.1)
    loss.backward()
    assert loss.item() == 0


def test_word_loss_equals_a_sum_over_words():
    logits, target = torch.randn(2, 3), torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    slow = 0.0
    for row in range(2):
        chance = logits[row].exp() / logits[row].exp().sum()
        slow -= sum(float(target[row, w] * chance[w].log()) for w in range(3)) / 2
    assert word_loss(logits, target).item() == pytest.approx(slow, rel=1e-5)


class Shop:
    """Five items; 0 and 3 share a title, 1 and 4 a picture, 2 has none."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.images = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
        self.images[3] = self.images[1]
        self.image_row = np.array([0, 1, -1, 2, 3])
        self.titles = ["Red dress", "blue shoe", "kettle", "red  dress", "green shoe"]

    def fields(self, names):
        assert names == ["title"]
        return [self.titles]

    def collator(self):
        pairs = Pairs(np.array([0, 1]), np.array([0, 1]), np.ones(2, np.float32))
        table = TokenTable.from_lists([[2, 5 + n, 3] for n in range(5)], pad=0)
        return Collator(pairs, table, table, self.images, self.image_row, KnownPositives(pairs, 2), np.arange(2))


def test_items_are_alike_by_title_or_by_picture():
    alike = ItemKeys.of(Shop()).alike(np.array([0, 1, 2, 3, 4]))
    slow = [[a == b or {a, b} in ({0, 3}, {1, 4}) for b in range(5)] for a in range(5)]
    assert alike.tolist() == slow


def test_extra_items_have_pictures_are_not_in_the_batch_and_depend_on_its_pairs_only():
    shop = Shop()
    drawer = AlignmentItems(shop.collator(), ItemKeys.of(shop), count=4, seed=3)
    own = np.array([0, 1])
    batch = drawer.fields([0, 1], own)
    assert batch["extra_ids"][:, 1].tolist() == [5 + 3, 5 + 4]
    assert np.array_equal(batch["extra_pixels"].numpy(), shop.images[[2, 3]])
    assert torch.equal(batch["alike"], drawer.keys.alike(np.array([0, 1, 3, 4])))
    few = AlignmentItems(shop.collator(), ItemKeys.of(shop), count=2, seed=3)
    draws = [few._draw([n, n + 7], np.zeros(0, np.int64)).tolist() for n in range(20)]
    assert draws == [few._draw([n, n + 7], np.zeros(0, np.int64)).tolist() for n in range(20)]
    assert {item for draw in draws for item in draw} == {0, 1, 3, 4}
    none = AlignmentItems(shop.collator(), ItemKeys.of(shop), count=0, seed=3).fields([0, 1], own)
    assert "extra_ids" not in none
    assert none["alike"].shape == (2, 2)


def test_alignment_of_a_batch_takes_shown_items_and_extra_ones():
    shop, (model, processor) = Shop(), small_model()
    drawer = AlignmentItems(shop.collator(), ItemKeys.of(shop), count=4, seed=3)
    batch = vary(shop.collator()([0, 1]), PictureSettings(), processor)
    extra = drawer.fields([0, 1], np.array([0, 1]))
    extra["extra_pixels"] = processor.pixels(extra["extra_pixels"])
    batch["has_image"] = torch.tensor([False, True])
    batch["pixels"] = batch["pixels"][1:]
    _, item = model(batch)
    every = batch | {"pixels": processor.pixels(shop.images[[1, 2, 3]]), "has_image": torch.tensor([True] * 3)}
    every["item_ids"], every["item_mask"] = shop.collator().items.rows(np.array([1, 3, 4]))
    _, rows = model(every)
    expected = alignment_loss(rows.image, rows.text, drawer.keys.alike(np.array([1, 3, 4])), 0.1)
    assert align(model, item, extra, 0.1).item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_moved_picture_is_a_part_of_it_at_full_size_and_keeps_its_colours():
    torch.manual_seed(1)
    ramp = torch.linspace(-1, 1, 33)
    ramp = (ramp[1:] + ramp[:-1]) / 2  # the place of each pixel's centre
    pixels = torch.stack([ramp.expand(32, 32), ramp[:, None].expand(32, 32), torch.full((32, 32), 0.3)])
    moved = flip_and_move(pixels.expand(200, 3, 32, 32))
    step = moved[:, 0, 16].diff(dim=1)[:, 3:-3]
    zoom = step.mean(1) * 16
    assert torch.allclose(step, step[:, :1].expand_as(step), atol=1e-4)
    assert ((zoom.abs() > 0.79) & (zoom.abs() < 1.01)).all()
    assert 60 < (zoom < 0).sum() < 140
    assert (moved[:, 1, :, 16].diff(dim=1)[:, 3:-3] > 0).all()  # never upside down
    assert torch.allclose(moved[:, 1, :, 16].diff(dim=1)[:, 5] * 16, zoom.abs(), atol=1e-3)
    assert torch.allclose(moved[:, 2], torch.tensor(0.3), atol=1e-5)
    centre = moved[:, :2].mean((2, 3)).abs().amax(1)
    assert (centre <= 1 - zoom.abs() + 0.02).all()
    assert centre.max() > 0.1
    torch.manual_seed(1)
    assert torch.equal(flip_and_move(pixels.expand(200, 3, 32, 32)), moved)


def test_patch_states_are_not_moved_and_pictures_only_where_asked():
    _, processor = small_model()
    raw = {"pixels": torch.from_numpy(Shop().images), "item_mask": torch.ones(4, 3), "has_image": torch.ones(4)}
    still = vary(raw, PictureSettings(), processor)
    assert torch.equal(still["pixels"], processor.pixels(raw["pixels"]))
    moving = vary(raw, PictureSettings(augment=True), processor)
    assert not torch.allclose(moving["pixels"], still["pixels"], atol=0.1)
    states = torch.randn(4, 5, 8).half()
    fixed = vary({**raw, "pixels": states}, PictureSettings(augment=True), processor)
    assert torch.equal(fixed["pixels"], states.float())


token_lists = st.lists(st.lists(st.integers(0, 6), max_size=4), min_size=RARE, max_size=9)


@given(items=token_lists, queries=token_lists, data=st.data())
def test_word_bags_equal_the_slow_twin(items, queries, data):
    allowed = np.array([False] + [True] * 6)
    pair = st.tuples(st.integers(0, len(queries) - 1), st.integers(0, len(items) - 1), st.sampled_from([0.5, 1.0, 3.0]))
    rows = data.draw(st.lists(pair, min_size=1, max_size=10))
    pairs = Pairs(
        np.array([q for q, _, _ in rows]),
        np.array([i for _, i, _ in rows]),
        np.array([w for _, _, w in rows], np.float32),
    )
    bags = word_bags(TokenTable.from_lists(items, 0), TokenTable.from_lists(queries, 0), pairs, allowed)
    slow = []
    for n, text in enumerate(items):
        bag = np.zeros(7)
        for word in set(text) - {0}:
            bag[word] += 1 / len(set(text) - {0})
        mine = [(set(queries[q]) - {0}, w) for q, i, w in rows if i == n]
        weight = sum(w for words, w in mine if words)
        for words, w in mine:
            for word in words:
                bag[word] += w / len(words) / weight
        slow.append(bag)
    slow = np.array(slow)
    slow = slow[:, (slow > 0).sum(0) >= RARE]
    slow = slow / np.maximum(slow.sum(1, keepdims=True), 1e-9)
    assert bags.words == slow.shape[1]
    assert np.allclose(bags.rows(np.arange(len(items))).numpy(), slow, atol=1e-6)


def test_only_items_with_picture_and_word_are_named():
    shop = Shop()
    shop.image_row = np.array([0, -1, 1, 2, 3])
    pairs = Pairs(np.array([0]), np.array([0]), np.ones(1, np.float32))
    tokens = TokenTable.from_lists([[5, 6], [5], [5, 6], [6], [5, 6], [6, 5]], 0)
    bags = word_bags(tokens, TokenTable.from_lists([[5]], 0), pairs, np.arange(8) >= 5)
    collate = WordCollator(np.array([0, 2, 3]), shop.images, shop.image_row, bags)
    batch = collate([1, 2])
    assert batch["item_rows"].tolist() == [2, 3]
    assert np.array_equal(batch["pixels"].numpy(), shop.images[[1, 2]])
    assert batch["target"].tolist() == [[0.5, 0.5], [0.0, 1.0]]


def test_stage_0_without_a_picture_is_refused():
    shop = Shop()
    shop.image_row = np.full(5, -1)
    with pytest.raises(InputError, match="stage0 needs items with pictures"):
        WordCollator.of(shop.collator(), shop.titles, ["red", "shoe"], None, 9)


def test_stage_0_names_the_words_of_words_search():
    items = ["红色连衣裙", "Größe 38 größe", "", "grosse"]
    item, query, allowed = number_words(items, ["連衣裙 Grösse"], None, 2)
    assert np.diff(item.offsets).tolist() == [9, 3, 0, 1]
    first = item.ids[item.offsets[1]]
    assert first == item.ids[item.offsets[3]] == query.ids[-1]
    assert set(query.ids[:-1]) < set(item.ids[:9])
    assert allowed[first]
    assert allowed.sum() == 2
    none = number_words(["?", "!"], ["."], None, 5)
    assert not none[2].any()
