"""Encoding in shares and gradient caching give the gradients of the plain step."""

from typing import Any

import pytest
import torch
from tiny_batch import batch_of, gradients, largest_difference, loss_of, tiny

from smar.model.modeling import ItemOutput, QueryOutput
from smar.training.encode_batch import encode_batch, restore, share, share_sizes

HALF = torch.arange(15) % 2 == 0


def encoder(model, processor):
    def encode(part: dict[str, Any]):
        if part["pixels"] is not None:
            part = {**part, "pixels": processor.pixels(part["pixels"])}
        return model(part)

    return encode


def cached(model, encode, batch, micro_batch):
    loss = loss_of(*encode_batch(model, batch, micro_batch, lambda own: own, encode), batch)
    loss.backward()
    return float(loss.detach()), gradients(model)


def whole(model, encode, batch):
    loss = loss_of(*encode(batch), batch)
    loss.backward()
    return float(loss.detach()), gradients(model)


def part_by_part(model, encode, batch, parts):
    """The slow twin: the same parts with every activation kept."""
    outputs = [encode(share(batch, part, parts)) for part in range(parts)]
    joined = []
    for side in zip(*outputs, strict=True):
        names = vars(side[0])
        rows = {name: restore(torch.cat([getattr(output, name) for output in side]), parts) for name in names}
        joined.append(type(side[0])(**rows))
    loss_of(*joined, batch).backward()
    return gradients(model)


def test_shares_hold_every_row_once_and_restore_puts_them_back():
    batch = batch_of(7, 15, HALF)
    for parts in (1, 2, 4, 7):
        shares = [share(batch, part, parts) for part in range(parts)]
        assert [len(part["item_ids"]) for part in shares] == share_sizes(15, parts)
        for name in ("query_ids", "item_ids", "has_image"):
            assert torch.equal(restore(torch.cat([part[name] for part in shares]), parts), batch[name])
        for part, own in enumerate(shares):
            rows = torch.arange(15)[part::parts]
            pictures = batch["pixels"][[int(HALF[:row].sum()) for row in rows if HALF[row]]]
            assert torch.equal(pictures, pictures[:0] if own["pixels"] is None else own["pixels"])
    assert torch.equal(share(batch, 8, 9)["query_ids"], batch["query_ids"][:1])  # a stand-in, cut off afterwards


@pytest.mark.parametrize("micro_batch", [1, 4, 15, 100])
def test_cached_gradient_is_the_plain_one(micro_batch):
    """To 1e-6 in float32; parts without any query are among those of one example."""
    model, processor = tiny()
    batch = batch_of(7, 15, HALF)
    encode = encoder(model, processor)
    loss, plain = whole(model, encode, batch)
    again, small = cached(model, encode, batch, micro_batch)
    assert again == pytest.approx(loss, rel=1e-6)
    assert largest_difference(plain, small) < 1e-6


class Double(torch.nn.Module):
    """Towers in float64, which `SmarModel` is not: its vectors are float32 whatever its weights are."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.words = torch.nn.Parameter(torch.randn(30, 8, generator=draw, dtype=torch.float64))
        self.colours = torch.nn.Parameter(torch.randn(3, 8, generator=draw, dtype=torch.float64))

    def forward(self, part: dict[str, Any]):
        query, text = ((self.words[part[f"{name}_ids"]]).mean(1).tanh() for name in ("query", "item"))
        image = torch.zeros_like(text)
        if part["pixels"] is not None:
            image[part["has_image"]] = (part["pixels"].double().mean((1, 2)) / 255 @ self.colours).sin()
        return QueryOutput(query, query.sum(1)), ItemOutput(text, image, text * image, part["has_image"])


def test_cached_gradient_in_float64():
    model, batch = Double(), batch_of(7, 15, HALF)
    batch["weight"] = batch["weight"].double()
    plain = whole(model, model, batch)[1]
    assert largest_difference(plain, cached(model, model, batch, 4)[1]) < 1e-13


def test_dropout_is_the_same_when_a_part_is_encoded_again():
    model, processor = tiny(*(f"model.{name}.dropout=0.3" for name in ("query", "text", "vision")))
    batch, encode = batch_of(7, 15, HALF), encoder(model, processor)
    torch.manual_seed(5)
    expected = part_by_part(model, encode, batch, 4)
    torch.manual_seed(5)
    assert largest_difference(expected, cached(model, encode, batch, 4)[1]) < 1e-6
    torch.manual_seed(6)
    assert largest_difference(expected, cached(model, encode, batch, 4)[1]) > 1e-3


def test_convolutions_count_every_picture_once():
    """Each part is normalised by its own pictures, and the running statistics see the first encoding only."""
    model, processor = tiny("model.vision.kind=resnet")
    batch, encode = batch_of(7, 15, HALF), encoder(model, processor)
    before = {name: value.clone() for name, value in model.named_buffers()}
    expected = part_by_part(model, encode, batch, 3)
    once = {name: value.clone() for name, value in model.named_buffers()}
    for name, value in model.named_buffers():
        value.copy_(before[name])
    assert largest_difference(expected, cached(model, encode, batch, 5)[1]) < 1e-6
    assert all(torch.equal(value, once[name]) for name, value in model.named_buffers())
    assert any(not torch.equal(once[name], before[name]) for name in once)


def test_bfloat16_composes():
    """Autocast inside the encoding: the cached gradient lies as near to float32 as the plain bfloat16 one does."""
    model, processor = tiny()
    batch, plain = batch_of(7, 15, HALF), encoder(model, processor)

    def encode(part: dict[str, Any]):
        with torch.autocast("cpu", torch.bfloat16):
            return plain(part)

    exact = whole(model, plain, batch)[1]
    rough, small = whole(model, encode, batch)[1], cached(model, encode, batch, 4)[1]
    noise = largest_difference(exact, rough)
    assert noise > 1e-4
    assert largest_difference(exact, small) < 2 * noise
