"""The towers: transformers' own encoders, each followed by pooling, projection and L2 normalisation."""

import math
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel


class Tower(nn.Module):
    """An encoder of token sequences and the projection to the shared space (paper.md: `norm(cls(transformer))`)."""

    def __init__(self, encoder: nn.Module, hidden: int, dim: int, pooling: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.projection = nn.Linear(hidden, dim)

    def train(self, mode: bool = True) -> Self:
        """As of `nn.Module`, but a frozen encoder stays in evaluation mode: no dropout, no new batch statistics."""
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def pool(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Pool hidden states [n, t, h] under mask [n, t] (1 = real token) to [n, h]: first token or mean."""
        if self.pooling == "cls":
            return hidden[:, 0]
        return hidden.mean(1) if mask is None else masked_mean(hidden, mask)

    def embed(self, pooled: Tensor) -> Tensor:
        """Project pooled states [n, h] to unit vectors [n, k], float32 whatever the autocast type."""
        return functional.normalize(self.projection(pooled).float(), dim=-1)


class TextTower(Tower):
    """Query tower Q or item-text tower S_t over token ids; `encoder` is another tower's, where they share one."""

    def __init__(self, config: Any, dim: int, pooling: str, encoder: nn.Module | None = None) -> None:
        super().__init__(_encoder(config) if encoder is None else nn.Identity(), config.hidden_size, dim, pooling)
        self._shared = (encoder,)  # in a tuple: a second registration would save its weights twice

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids and mask [n, t] -> hidden states [n, t, h], pooled [n, h]."""
        encoder = self._shared[0] or self.encoder
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden, self.pool(hidden, mask)


class ImageTower(Tower):
    """Item-image tower S_i over the patches of a vision encoder, with `adapter` transformer layers on top of it.

    Encoders that yield a map [n, c, h, w] instead of a sequence (convolutional ones) are flattened to [n, h*w, c].
    """

    def __init__(self, config: Any, dim: int, pooling: str, adapter: int = 0) -> None:
        hidden = getattr(config, "hidden_size", None)
        if hidden is None:  # maps have no first token
            hidden, pooling = config.hidden_sizes[-1], "mean"
        super().__init__(_encoder(config), hidden, dim, pooling)
        self.adapter = nn.ModuleList(_adapter_layer(hidden) for _ in range(adapter))

    def patches(self, pixels: Tensor) -> Tensor:
        """Pixels [n, 3, s, s] -> the encoder's patch states [n, p, h]."""
        hidden: Tensor = self.encoder(pixel_values=pixels).last_hidden_state
        return hidden.flatten(2).transpose(1, 2) if hidden.dim() == 4 else hidden

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels [n, 3, s, s], or the encoder's patch states [n, p, h] -> patch states [n, p, h], pooled [n, h]."""
        hidden = self.patches(pictures) if pictures.dim() == 4 else pictures
        for layer in self.adapter:
            hidden = layer(hidden)
        return hidden, self.pool(hidden, None)


def _adapter_layer(hidden: int) -> nn.Module:
    heads = math.gcd(hidden, 8)
    return nn.TransformerEncoderLayer(
        hidden, heads, 4 * hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )


def _encoder(config: Any) -> nn.Module:
    try:
        encoder = AutoModel.from_config(config, add_pooling_layer=False)
    except TypeError:  # encoders without a pooler do not know the argument
        encoder = AutoModel.from_config(config)
    return encoder  # type: ignore[no-any-return]


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean of the states [n, t, h] where `mask` [n, t] holds (at least one place in each row) -> [n, h]."""
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Plain softmax attention over [n, heads, t, d]; mask [n, 1, 1, t_key] is True where a key may be seen.

    Written out because on CPU in bfloat16 the fused kernel's backward is slower (choices.md, pitfall 2).
    """
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    out: Tensor = scores.softmax(-1).to(value.dtype) @ value
    return out
