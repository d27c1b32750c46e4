"""What every fusion shares: its input, and the learned null-image token that stands for a missing picture."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Modality:
    """One modality of n items: `states` [n, t, h]; `mask` bool [n, t], True where a token is real; `pooled` [n, h].

    >>> Modality(torch.zeros(2, 5, 8), torch.ones(2, 5, dtype=torch.bool), torch.zeros(2, 8)).pooled.shape
    torch.Size([2, 8])
    """

    states: Tensor
    mask: Tensor
    pooled: Tensor


class Fusion(nn.Module):
    """The head of the item-multimodal tower S_m: text and image states of an item -> one state of `width` numbers.

    An item without a picture is encoded like any other: the learned null-image token stands in for the picture, and
    masks hide the padding. So S_m depends on nothing but its item, and degrades towards S_t.

    >>> from smar.model import Fusion, register_fusion
    >>> @register_fusion("words-only")
    ... class WordsOnly(Fusion):
    ...     def forward(self, text, image):
    ...         return text.pooled
    >>> fusion = WordsOnly(hidden=8, image_hidden=4, heads=2, layers=1, pooling="mean")

    and the configuration says ``model: {fusion: words-only}`` (docs/python.md, "Own fusions, losses and encoders").
    """

    def __init__(self, hidden: int, image_hidden: int, heads: int, layers: int, pooling: str) -> None:
        """Args: widths of the two towers' states; heads and layers of the attention kinds; pooling of text tokens."""
        super().__init__()
        self.width, self.pooling = hidden, pooling
        self.null_image = nn.Parameter(torch.zeros(image_hidden))

    def with_null(self, image: Modality) -> tuple[Tensor, Tensor]:
        """States [n, 1 + p, h_i] and mask with the null token in front, which may always be seen."""
        null = self.null_image.to(image.states.dtype).expand(len(image.states), 1, -1)
        seen = torch.ones_like(image.mask[:, :1])
        return torch.cat([null, image.states], 1), torch.cat([seen, image.mask], 1)

    def pooled_image(self, image: Modality) -> Tensor:
        """Pooled pictures [n, h_i]; the null token where an item has none."""
        return torch.where(image.mask.any(1, keepdim=True), image.pooled, self.null_image.to(image.pooled.dtype))

    def forward(self, text: Modality, image: Modality) -> Tensor:
        """Fuse the states of n items -> pooled states [n, width]."""
        raise NotImplementedError
