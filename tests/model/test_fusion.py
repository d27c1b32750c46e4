"""Every fusion against its definition, one item at a time; missing and several pictures; the layout of pictures."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smar.core.sections.model import ModelSettings
from smar.model.configuration import build_config
from smar.model.encoder import Encoder
from smar.model.fusion import FUSIONS
from smar.model.fusion.attention import CrossAttentionLayer
from smar.model.fusion.base import Modality
from smar.model.modeling import SmarModel
from smar.model.processing import build_processor
from smar.model.ragged import place

HIDDEN, WIDE, HEADS = 8, 6, 2
TEXT_LENGTH, PATCHES = [5, 3, 1], [4, 2, 0]
"""Real tokens of three items: the third has no picture."""


def modality(lengths, width, seed):
    """Random states, garbage where the mask is False; pooled states of their own."""
    generator = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    states = torch.randn(len(lengths), longest, width, generator=generator)
    return Modality(states, mask, torch.randn(len(lengths), width, generator=generator))


def fusion(name, pooling="mean", layers=2):
    torch.manual_seed(4)
    built = FUSIONS[name](HIDDEN, WIDE, HEADS, layers, pooling)
    torch.nn.init.normal_(built.null_image)
    return built


def norm(layer, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + layer.eps).sqrt() * layer.weight + layer.bias


def ask(layer, asking, answering):
    """One layer, written out: asking [t, h] against answering [p, h'], no mask, one head after the other."""
    answers = norm(layer.norm_image, answering)
    query, key, value = layer.query(norm(layer.norm_text, asking)), layer.key(answers), layer.value(answers)
    width = HIDDEN // HEADS
    heads = [slice(width * head, width * (head + 1)) for head in range(HEADS)]
    mixed = [torch.softmax(query[:, at] @ key[:, at].T / width**0.5, -1) @ value[:, at] for at in heads]
    asking = asking + layer.output(torch.cat(mixed, 1))
    return asking + layer.feed_forward(asking)


def enter(built, states):
    return built.enter[1](norm(built.enter[0], states))


def slow(name, pooling, built, text, image, pooled_text, pooled_image):
    """The fused state of one item by its definition; `image` [p, h_i] is empty for an item without a picture."""
    keys = torch.cat([built.null_image[None], image])
    picture = pooled_image if len(image) else built.null_image

    def words():
        states = text
        for layer in built.layers:
            states = ask(layer, states, keys)
        return states[0] if pooling == "cls" else states.mean(0)

    def looks(layers):
        states = enter(built, keys)
        for layer in layers:
            states = ask(layer, states, text)
        return states[1:].mean(0) if len(image) else states[0]

    if name == "cross":
        return words()
    if name == "reverse":
        return looks(built.layers)
    if name == "both":
        return torch.cat([words(), looks(built.reverse_layers)])
    if name == "merge":
        states = torch.cat([text, enter(built, keys)])
        for layer in built.layers:
            states = ask(layer, states, states)
        return states[0] if pooling == "cls" else states.mean(0)
    picture = enter(built, picture)
    both = torch.cat([pooled_text, picture])
    if name == "gated":
        share = 1 / (1 + torch.exp(-(built.share.weight @ both + built.share.bias)))
        return share * pooled_text + (1 - share) * picture
    first, _, last = built.mlp[1:]
    inside = first(norm(built.mlp[0], both))
    return last(inside * 0.5 * (1 + torch.erf(inside / 2**0.5)))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_equals_its_definition_one_item_at_a_time(name, pooling):
    built = fusion(name, pooling)
    text, image = modality(TEXT_LENGTH, HIDDEN, 0), modality(PATCHES, WIDE, 1)
    fused = built(text, image)
    assert fused.shape == (3, built.width)
    for row in range(3):
        parts = (m.states[row][m.mask[row]] for m in (text, image))
        expected = slow(name, pooling, built, *parts, text.pooled[row], image.pooled[row])
        assert torch.allclose(fused[row], expected, atol=1e-5), f"item {row}"


def test_a_layer_does_not_see_masked_keys():
    torch.manual_seed(1)
    layer = CrossAttentionLayer(hidden=8, image_hidden=6, heads=2)
    text, image, mask = torch.randn(1, 3, 8), torch.randn(1, 4, 6), torch.tensor([[True, True, False, True]])
    assert torch.allclose(layer(text, image, mask)[0], ask(layer, text[0], image[0][mask[0]]), atol=1e-5)


@given(counts=st.lists(st.integers(0, 3), min_size=1, max_size=6).filter(any), seed=st.integers(0, 9))
def test_pictures_are_laid_out_item_by_item(counts, seed):
    generator = torch.Generator().manual_seed(seed)
    states, pooled = (torch.randn(sum(counts), *shape, generator=generator) for shape in ((2, 3), (3,)))
    shown = place(states, pooled, torch.tensor(counts))
    assert shown.states.shape == (len(counts), 2 * max(counts), 3)
    start = 0
    for row, count in enumerate(counts):
        own = slice(start, start + count)
        start += count
        assert torch.equal(shown.states[row][shown.mask[row]], states[own].reshape(-1, 3))
        mean = pooled[own].mean(0) if count else torch.zeros(3)
        assert torch.allclose(shown.pooled[row], mean, atol=1e-6)
    if max(counts) == 1:
        flags = place(states, pooled, torch.tensor(counts, dtype=torch.bool))
        assert torch.equal(flags.states, shown.states)


SIZE = 32
WORDS = ["red dress", "blue shoe for men", "steel kettle 1.7 l", "long sleeve shirt"]
SMALL = {"layers": 1, "hidden": 32, "heads": 2}


def make(kind="smar", **model):
    sizes = {"query": SMALL, "text": SMALL, "vision": {**SMALL, **model.pop("vision", {})}}
    settings = ModelSettings(kind=kind, dim=16, vocabulary=200, **sizes, **model)
    processor = build_processor(settings, SIZE, WORDS)
    torch.manual_seed(0)
    config = build_config(settings, SIZE, len(processor.tokenizer), ("title",), 0.1)
    return Encoder(SmarModel._from_config(config, attn_implementation="eager"), processor)


def pictures(n):
    return np.random.default_rng(0).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8)


KINDS = [*(("smar", fusion) for fusion in FUSIONS), ("clip", "cross"), ("dpsr-i", "cross")]


@pytest.mark.parametrize("vision", ["resnet", "vit"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(("kind", "fusion"), KINDS)
def test_vectors_do_not_depend_on_the_batch_and_use_every_picture(kind, fusion, pooling, vision):
    encoder = make(kind, fusion=fusion, pooling=pooling, vision={"kind": vision})
    counts, images = np.array([1, 3, 0, 2]), pictures(6)
    together = encoder.encode_item([WORDS], images, counts)
    assert together.has_image.tolist() == [True, True, False, True]
    for row, start in enumerate(np.cumsum(counts) - counts):
        own = images[start : start + counts[row]]
        alone = encoder.encode_item([WORDS[row : row + 1]], own, counts[row : row + 1])
        fewer = encoder.encode_item([WORDS[row : row + 1]], own[:-1], counts[row : row + 1] - 1) if len(own) else None
        for name in ("text", "image", "multimodal"):
            vector = getattr(together, name)[row]
            assert torch.allclose(vector, getattr(alone, name)[0], atol=2e-5), (name, row)
            assert vector.norm().item() == pytest.approx(1, abs=1e-5)
            if fewer is not None and (name != "text" or kind == "dpsr-i"):
                assert not torch.allclose(vector, getattr(fewer, name)[0], atol=1e-4), (name, row)


@pytest.mark.parametrize(("kind", "fusion"), KINDS)
def test_flags_and_counts_of_one_are_the_same_and_train_every_weight(kind, fusion):
    encoder, flags = make(kind, fusion=fusion), np.array([True, False, True, True])
    images = pictures(3)
    by_flag, by_count = (encoder.encode_item([WORDS], images, own) for own in (flags, flags.astype(np.int64)))
    assert torch.equal(by_flag.multimodal, by_count.multimodal)
    model = encoder.model.train()
    ids, mask = encoder._pad(encoder.processor.token_ids(WORDS, 30))
    query = model.encode_query_ids(ids, mask)
    item = model.encode_item_ids(ids, mask, encoder.processor.pixels(images), torch.from_numpy(flags))
    goal = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))
    gate = query.gate_logit.sum() if kind == "smar" else 0
    ((query.embedding + item.text + item.image + item.multimodal) * goal).sum().add(gate).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert all("embeddings" in name for name in without), without


def test_late_fusion_is_the_normalised_sum_and_the_text_alone_without_a_picture():
    output = make("clip").encode_item([WORDS], pictures(3), np.array([True, False, True, True]))
    for row, shown in enumerate(output.has_image.tolist()):
        total = output.text[row] + output.image[row] if shown else output.text[row]
        assert torch.allclose(output.multimodal[row], total / total.norm(), atol=1e-6)
