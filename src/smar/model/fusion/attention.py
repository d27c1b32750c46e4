"""Fusions by attention: one modality asks the other, both ask each other, or all tokens ask all."""

import torch
from torch import Tensor, nn

from smar.model.fusion.base import Fusion, Modality
from smar.model.towers import attention, masked_mean


class CrossAttentionLayer(nn.Module):
    """Text states query image states; residual; feed-forward; pre-norm. (The other kinds give it other states.)"""

    def __init__(self, hidden: int, image_hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_text, self.norm_image = nn.LayerNorm(hidden), nn.LayerNorm(image_hidden)
        self.query, self.output = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.key, self.value = nn.Linear(image_hidden, hidden), nn.Linear(image_hidden, hidden)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(hidden), nn.Linear(hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )

    def _split(self, states: Tensor) -> Tensor:
        n, length, hidden = states.shape
        return states.view(n, length, self.heads, hidden // self.heads).transpose(1, 2)

    def forward(self, text: Tensor, image: Tensor, image_mask: Tensor) -> Tensor:
        """Text [n, t, h], image [n, p, h_i], image_mask [n, p] (True = may be seen) -> text states [n, t, h]."""
        image = self.norm_image(image)
        query, key, value = self._split(self.query(self.norm_text(text))), self.key(image), self.value(image)
        mixed = attention(query, self._split(key), self._split(value), image_mask[:, None, None, :])
        text = text + self.output(mixed.transpose(1, 2).flatten(2))
        return text + self.feed_forward(text)  # type: ignore[no-any-return]


def _layers(hidden: int, other: int, heads: int, layers: int) -> nn.ModuleList:
    return nn.ModuleList(CrossAttentionLayer(hidden, other, heads) for _ in range(layers))


def image_entry(image_hidden: int, hidden: int) -> nn.Sequential:
    """Brings image states to the width of the text states, where image tokens ask (their own may not fit the heads)."""
    return nn.Sequential(nn.LayerNorm(image_hidden), nn.Linear(image_hidden, hidden))


def text_asks(layers: nn.ModuleList, text: Modality, keys: Tensor, seen: Tensor, pooling: str) -> Tensor:
    """Text states [n, t, h] query `keys` [n, p, h_i] where `seen` [n, p] holds, then pooling -> [n, h]."""
    states, mask = text.states, text.mask
    if pooling == "cls":  # layers never mix text positions, so the first alone gives the same result
        states, mask = states[:, :1], mask[:, :1]
    for layer in layers:
        states = layer(states, keys, seen)
    return masked_mean(states, mask)


def image_asks(layers: nn.ModuleList, text: Modality, states: Tensor, image_mask: Tensor) -> Tensor:
    """Null token and patches [n, 1 + p, h] query the text -> mean over the patches that `image_mask` [n, p] shows.

    The mean is taken whatever `model.pooling` says, since not every vision encoder has a first token that stands for
    all. Where no patch is real, the result is the null token's.
    """
    for layer in layers:
        states = layer(states, text.states, text.mask)
    alone = ~image_mask.any(1, keepdim=True)
    return masked_mean(states, torch.cat([alone, image_mask], 1))


class CrossAttentionFusion(Fusion):
    """`cross`, the default: the text asks, the picture answers (docs/paper.md, "cross attention").

    The null token always stands before the patches; an item without a picture sees it alone.
    """

    def __init__(self, hidden: int, image_hidden: int, heads: int, layers: int, pooling: str) -> None:
        super().__init__(hidden, image_hidden, heads, layers, pooling)
        self.layers = _layers(hidden, image_hidden, heads, layers)

    def forward(self, text: Modality, image: Modality) -> Tensor:
        """See `Fusion.forward`."""
        return text_asks(self.layers, text, *self.with_null(image), self.pooling)


class ReverseFusion(Fusion):
    """`reverse`: the picture asks, the text answers."""

    def __init__(self, hidden: int, image_hidden: int, heads: int, layers: int, pooling: str) -> None:
        super().__init__(hidden, image_hidden, heads, layers, pooling)
        self.enter = image_entry(image_hidden, hidden)
        self.layers = _layers(hidden, hidden, heads, layers)

    def forward(self, text: Modality, image: Modality) -> Tensor:
        """See `Fusion.forward`."""
        states, _ = self.with_null(image)
        return image_asks(self.layers, text, self.enter(states), image.mask)


class BothFusion(Fusion):
    """`both`: `cross` and `reverse` side by side, their pooled states joined to 2 h numbers."""

    def __init__(self, hidden: int, image_hidden: int, heads: int, layers: int, pooling: str) -> None:
        super().__init__(hidden, image_hidden, heads, layers, pooling)
        self.layers = _layers(hidden, image_hidden, heads, layers)
        self.enter = image_entry(image_hidden, hidden)
        self.reverse_layers = _layers(hidden, hidden, heads, layers)
        self.width = 2 * hidden

    def forward(self, text: Modality, image: Modality) -> Tensor:
        """See `Fusion.forward`."""
        keys, seen = self.with_null(image)
        words = text_asks(self.layers, text, keys, seen, self.pooling)
        return torch.cat([words, image_asks(self.reverse_layers, text, self.enter(keys), image.mask)], -1)


class MergeFusion(Fusion):
    """`merge`: self-attention over the tokens of both, joined to one sequence (text, null token, patches).

    The result is the first token (`cls`) or the mean over all tokens. Merging was better than cross attention in
    Shopee's MIEM (docs/paper.md, "comparable systems").
    """

    def __init__(self, hidden: int, image_hidden: int, heads: int, layers: int, pooling: str) -> None:
        super().__init__(hidden, image_hidden, heads, layers, pooling)
        self.enter = image_entry(image_hidden, hidden)
        self.layers = _layers(hidden, hidden, heads, layers)

    def forward(self, text: Modality, image: Modality) -> Tensor:
        """See `Fusion.forward`."""
        patches, seen = self.with_null(image)
        states, mask = torch.cat([text.states, self.enter(patches)], 1), torch.cat([text.mask, seen], 1)
        for layer in self.layers:
            states = layer(states, states, mask)
        return states[:, 0] if self.pooling == "cls" else masked_mean(states, mask)
