"""The towers: transformers' own encoders, each followed by pooling, projection and L2 normalisation."""

import inspect
import math
from typing import Any, Self

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, PreTrainedModel

from smar.model.bag import is_bag
from smar.model.part import Head

_FEWEST, _GROUPS = 64, 8
"""So many texts are encoded in groups of like length."""
ACTIVATIONS = {"": nn.Identity, "Identity": nn.Identity, "Tanh": nn.Tanh, "ReLU": nn.ReLU, "GELU": nn.GELU}


class Tower(nn.Module):
    """An encoder of token sequences and the projection to the shared space (docs/paper.md: `norm(cls(transformer))`).

    `encoder`, where it is given, belongs to another module, which saves it.
    """

    def __init__(self, config: Any, head: Head, encoder: nn.Module | None = None) -> None:
        super().__init__()
        self.head = head
        self.encoder = make_encoder(config, head) if encoder is None else nn.Identity()
        self._shared = (encoder,)  # in a tuple: a second registration would save its weights twice
        self.projection = projection(head)
        self.map = nn.Linear(head.states, math.gcd(head.states, 8)) if head.pooling == "map" else None

    def train(self, mode: bool = True) -> Self:
        """As of `nn.Module`, but a frozen encoder stays in evaluation mode: no dropout, no new batch statistics."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def attend(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Attention pooling of states [n, t, h]: every head weighs the tokens for its part of the numbers -> [n, h]."""
        assert self.map is not None
        scores = self.map(hidden).float()
        if mask is not None:
            scores = scores.masked_fill(mask[:, :, None] == 0, torch.finfo(scores.dtype).min)
        shares = scores.softmax(1).to(hidden.dtype)
        parts = hidden.reshape(*shares.shape, -1)
        pooled: Tensor = (shares[..., None] * parts).sum(1).flatten(1)
        return pooled

    def embed(self, pooled: Tensor) -> Tensor:
        """Project pooled states [n, h] to unit vectors [n, k], float32 whatever the autocast type."""
        return functional.normalize(self.projection(pooled).float(), dim=-1)


class TextTower(Tower):
    """Query tower Q or item-text tower S_t over token ids."""

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids and mask [n, t], padded on the right -> hidden states [n, t, h], pooled [n, h]."""
        # padding costs a bag nothing, and is due where the head says so
        plain = is_bag((self._shared[0] or self.encoder).config) or self.head.pad_to
        if plain or not (self.training or torch.is_inference_mode_enabled()) or len(ids) < _FEWEST:
            return self._encode(ids, mask)
        length = mask.sum(1)  # texts of a length together: what they are padded with costs as much as a text
        groups = length.argsort().chunk(_GROUPS)
        parts = []
        for rows in groups:
            t = int(length[rows].max())
            hidden, pooled = self._encode(ids[rows, :t], mask[rows, :t])
            parts.append((functional.pad(hidden, (0, 0, 0, ids.shape[1] - t)), pooled))
        back = torch.cat(groups).argsort()
        states, pooled = (torch.cat(part)[back] for part in zip(*parts, strict=True))
        return states, pooled

    def _encode(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        encoder = self._shared[0] or self.encoder
        if not self.head.pad_to:
            output = encoder(input_ids=ids, attention_mask=mask)
            hidden = output.last_hidden_state
        else:
            padded, seen, place = self._fill_up(ids, mask)
            output = encoder(input_ids=padded, **({"attention_mask": seen} if self.head.masked else {}))
            states = output.last_hidden_state
            hidden = states.gather(1, place[:, :, None].expand(-1, -1, states.shape[-1]))
        return hidden, self._pool(hidden, mask, ids, output)

    def _fill_up(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ids and mask [n, `pad_to`] as the encoder was trained on them, and the place of each token in them [n, t]."""
        length, tokens = self.head.pad_to, ids.shape[1]
        own = torch.arange(tokens, device=ids.device)
        count = (mask * (own + 1)).amax(1, keepdim=True)
        shift = length - count if self.head.pad_left else torch.zeros_like(count)
        source = torch.arange(length, device=ids.device) - shift
        inside = (source >= 0) & (source < count)
        source = source.clamp(min=0).minimum(torch.full_like(source, tokens - 1))
        seen = mask.gather(1, source) * inside
        padded = torch.where(seen > 0, ids.gather(1, source), torch.full_like(seen, self.head.pad))
        return padded, seen, (own + shift).clamp(max=length - 1)

    def _pool(self, hidden: Tensor, mask: Tensor, ids: Tensor, output: Any) -> Tensor:
        """Pool hidden states [n, t, h] under mask [n, t] (1 = real token) to [n, h]."""
        pooling = self.head.pooling
        if pooling == "pooler":
            return output.pooler_output  # type: ignore[no-any-return]
        if pooling == "cls":
            return hidden[:, 0]
        if pooling == "mean":
            return masked_mean(hidden, mask)
        if pooling == "map":
            return self.attend(hidden, mask)
        number = torch.arange(hidden.shape[1], device=hidden.device).expand_as(mask)
        at = (mask * number).amax(1, keepdim=True)
        if pooling == "eos":  # where a text has none, its last token
            at = torch.where((ids == self.head.eos) & (mask > 0), number, at).amin(1, keepdim=True)
        return hidden.gather(1, at[:, :, None].expand(-1, -1, hidden.shape[-1])).squeeze(1)


class ImageTower(Tower):
    """Item-image tower S_i over the patches of a vision encoder.

    Encoders that yield a map [n, c, h, w] instead of a sequence (convolutional ones) are flattened to [n, h*w, c].
    """

    def patches(self, pixels: Tensor) -> Tensor:
        """Pixels [n, 3, s, s] -> the encoder's patch states [n, p, h]; its own pooled state, if used, comes first."""
        output = (self._shared[0] or self.encoder)(**self._inputs(pixels))
        hidden: Tensor = output.last_hidden_state
        hidden = hidden.flatten(2).transpose(1, 2) if hidden.dim() == 4 else hidden
        if self.head.pooling != "pooler":
            return hidden
        return torch.cat([output.pooler_output.flatten(1)[:, None].to(hidden.dtype), hidden], 1)

    def _inputs(self, pixels: Tensor) -> dict[str, Tensor]:
        patch = self.head.patch
        if not patch:
            return {"pixel_values": pixels}
        n, colours, side, _ = pixels.shape
        grid = side // patch
        cut = pixels.reshape(n, colours, grid, patch, grid, patch).permute(0, 2, 4, 3, 5, 1)
        shape = torch.full((n, 2), grid, device=pixels.device)
        seen = torch.ones(n, grid * grid, dtype=torch.int32, device=pixels.device)
        return {"pixel_values": cut.reshape(n, grid * grid, -1), "pixel_attention_mask": seen, "spatial_shapes": shape}

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [n, 3, s, s], or what `patches` makes of them [n, p, h] -> patch states [n, p, h], pooled [n, h]."""
        hidden = self.patches(pictures) if pictures.dim() == 4 else pictures
        if self.head.pooling == "pooler":
            return hidden[:, 1:], hidden[:, 0]
        if self.head.pooling == "cls":
            return hidden, hidden[:, 0]
        return hidden, self.attend(hidden, None) if self.head.pooling == "map" else hidden.mean(1)


def projection(head: Head) -> nn.Module:
    """Fresh layers from the pooled state to the vector; a single one stands alone."""
    layers: list[nn.Module] = []
    width = head.pooled
    for out, bias, activation in head.layers:
        layers.append(nn.Linear(width, out, bias=bias))
        layers += [ACTIVATIONS[activation]()] if activation else []
        width = out
    return nn.Identity() if not layers else layers[0] if len(layers) == 1 else nn.Sequential(*layers)


def optional_pooler(encoder: type) -> bool:
    """Whether an encoder's class can be built without its pooler, which then is no part of how it is used."""
    return "add_pooling_layer" in inspect.signature(encoder).parameters


def make_encoder(config: Any, head: Head) -> nn.Module:
    """A fresh encoder of the class that `head` names, one of transformers' own, without a pooler that is not used."""
    if not head.encoder:
        return _without_pooler(AutoModel.from_config, config)
    known = getattr(transformers, head.encoder)
    if not issubclass(known, PreTrainedModel):
        raise ValueError(f"{head.encoder} is no encoder of transformers")
    if head.pooling != "pooler" and optional_pooler(known):
        return _without_pooler(known._from_config, config)
    return known._from_config(config)  # type: ignore[no-any-return]


def _without_pooler(make: Any, config: Any) -> nn.Module:
    try:
        encoder = make(config, add_pooling_layer=False)
    except TypeError:  # encoders without a pooler do not know the argument
        encoder = make(config)
    return encoder  # type: ignore[no-any-return]


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of the states [n, t, h] where `mask` [n, t] holds (at least one place in each row) -> [n, h]."""
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Plain softmax attention over [n, heads, t, d]; mask [n, 1, 1, t_key] is True where a key may be seen.

    Written out because on CPU in bfloat16 the fused kernel's backward is slower
    (docs/decisions/0005-training-on-cpu.md).
    """
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    out: Tensor = scores.softmax(-1).to(value.dtype) @ value
    return out
