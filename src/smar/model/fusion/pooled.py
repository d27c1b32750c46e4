"""Fusions of two pooled states: a gated sum, and a network over both. They see no single patch."""

import torch
from torch import Tensor, nn

from smar.model.fusion.attention import image_entry
from smar.model.fusion.base import Fusion, Modality


class GatedFusion(Fusion):
    """`gated`: g t + (1 - g) i with the vector g = sigmoid(W [t; i]): each number is the text's or the picture's."""

    def __init__(self, hidden: int, image_hidden: int, heads: int, layers: int, pooling: str) -> None:
        super().__init__(hidden, image_hidden, heads, layers, pooling)
        self.enter = image_entry(image_hidden, hidden)
        self.share = nn.Linear(2 * hidden, hidden)

    def forward(self, text: Modality, image: Modality) -> Tensor:
        """See `Fusion.forward`."""
        picture = self.enter(self.pooled_image(image))
        share = self.share(torch.cat([text.pooled, picture], -1)).sigmoid()
        return share * text.pooled + (1 - share) * picture  # type: ignore[no-any-return]


class ConcatFusion(Fusion):
    """`concat`: a network with one hidden layer over [t; i]."""

    def __init__(self, hidden: int, image_hidden: int, heads: int, layers: int, pooling: str) -> None:
        super().__init__(hidden, image_hidden, heads, layers, pooling)
        self.enter = image_entry(image_hidden, hidden)
        self.mlp = nn.Sequential(
            nn.LayerNorm(2 * hidden), nn.Linear(2 * hidden, 4 * hidden), nn.GELU(), nn.Linear(4 * hidden, hidden)
        )

    def forward(self, text: Modality, image: Modality) -> Tensor:
        """See `Fusion.forward`."""
        picture = self.enter(self.pooled_image(image))
        return self.mlp(torch.cat([text.pooled, picture], -1))  # type: ignore[no-any-return]
