"""The prediction header P: does bringing in the pictures help this query? (paper.md, stage 2)."""

from torch import Tensor, nn


class Gate(nn.Module):
    """MLP on the query tower's pooled state before projection -> logit of "pictures help"."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled query states [n, h] -> logits [n], float32."""
        return self.mlp(pooled).squeeze(-1).float()  # type: ignore[no-any-return]
