"""Cross attention of an item's two modalities: the text asks, the picture answers (paper.md, "cross attention")."""

import torch
from torch import Tensor, nn

from smar.model.towers import attention


class CrossAttentionLayer(nn.Module):
    """Text states query image states; residual; feed-forward; pre-norm."""

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


class CrossAttentionFusion(nn.Module):
    """Item-multimodal tower S_m on top of the hidden states of S_t and S_i.

    A learned null-image token always stands before the patches. An item without a picture sees the null token alone,
    so it is encoded like any other, and S_m degrades towards S_t.
    """

    def __init__(self, hidden: int, image_hidden: int, heads: int, layers: int) -> None:
        super().__init__()
        self.null_image = nn.Parameter(torch.zeros(image_hidden))
        self.layers = nn.ModuleList(CrossAttentionLayer(hidden, image_hidden, heads) for _ in range(layers))

    def forward(self, text: Tensor, patches: Tensor, has_image: Tensor) -> Tensor:
        """Text [n, t, h], patches [n, p, h_i], has_image bool [n] -> fused text states [n, t, h]."""
        null = self.null_image.to(patches.dtype).expand(len(patches), 1, -1)
        mask = torch.cat([torch.ones_like(has_image)[:, None], has_image[:, None].expand(-1, patches.shape[1])], 1)
        keys = torch.cat([null, patches], 1)
        for layer in self.layers:
            text = layer(text, keys, mask)
        return text
