"""The prediction header P: does bringing in the pictures help this query? (docs/paper.md, stage 2)."""

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """MLP on the query tower's pooled state before projection -> logit of "pictures help"."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def features(self, pooled: Tensor) -> Tensor:
        """Pooled query states [n, h] -> what the last layer sees [n, h], float32."""
        return self.mlp[:-1](pooled).float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def set_head(self, weight: Tensor, bias: float) -> None:
        """Replace the last layer: logit = features . `weight` [h] + `bias`."""
        head = self.mlp[-1]
        assert isinstance(head, nn.Linear)
        head.weight.copy_(weight[None])
        head.bias.fill_(bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled query states [n, h] -> logits [n], float32."""
        return self.mlp(pooled).squeeze(-1).float()  # type: ignore[no-any-return]
