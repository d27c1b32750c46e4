"""Texts of like length are encoded together: the same vectors and gradients as each text alone."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from smar.model.part import Head
from smar.model.towers import TextTower


@pytest.fixture(scope="module")
def tower() -> TextTower:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return TextTower(config, Head("mean", 16, 16, ((8, True, ""),)), BertModel(config, add_pooling_layer=False))


@pytest.fixture(scope="module")
def texts() -> tuple[Tensor, Tensor]:
    """Ids and mask [90, 20], padded on the right."""
    length = torch.randint(1, 21, (90, 1), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(20) < length).long()
    return torch.randint(1, 50, (90, 20), generator=torch.Generator().manual_seed(2)) * mask, mask


def gradients(tower: TextTower) -> Iterator[Tensor]:
    (encoder,) = tower._shared
    assert encoder is not None
    for weight in encoder.parameters():
        yield torch.zeros_like(weight) if weight.grad is None else weight.grad.clone()
        weight.grad = None


def test_a_step_learns_the_same(
    tower: TextTower, texts: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, mask = texts
    tower.train()
    alone = [tower(ids[n : n + 1, : mask[n].sum()], mask[n : n + 1, : mask[n].sum()])[1] for n in range(len(ids))]
    (torch.cat(alone) ** 3).sum().backward()
    want = list(gradients(tower))
    widths: list[int] = []
    plain = tower._encode
    monkeypatch.setattr(tower, "_encode", lambda ids, mask: (widths.append(ids.shape[1]), plain(ids, mask))[1])
    states, pooled = tower(ids, mask)
    (pooled**3).sum().backward()
    assert (states.shape, len(widths)) == ((90, 20, 16), 8)
    assert widths == sorted(widths)
    assert widths[0] < 20
    assert torch.allclose(pooled, torch.cat(alone), atol=1e-5)
    for own, other in zip(gradients(tower), want, strict=True):
        assert torch.allclose(own, other, atol=1e-4)


def test_an_exported_graph_has_one_way_only(tower: TextTower, texts: tuple[Tensor, Tensor]) -> None:
    tower.eval()
    states, _ = tower(*texts)
    with torch.inference_mode():
        grouped, _ = tower(*texts)
    seen = texts[1].bool()
    assert states.requires_grad
    assert torch.allclose(states[seen], grouped[seen], atol=1e-5)
    assert grouped[~seen].abs().min() == 0  # beyond the longest text of a group nothing was encoded
