"""How the scores of a batch become one loss per pair: softmax or hinge, one direction or both."""

from dataclasses import dataclass

from torch import Tensor

from smar.core.sections.losses import LossSettings
from smar.training.losses.contrastive import hinge_losses, pair_losses


@dataclass(frozen=True)
class Objective:
    """The loss of `loss.kind` over the pairs of a batch, some of them at a time.

    The batch holds `B` pairs of `u` distinct queries, and `n` candidates, the pairs' own items among them.

    Attributes:
        loss: kind, margin, weight of the direction item -> query.
        temperature: of the softmax.
        query_of_pair: row of each pair's query [B].
        target: column of each pair's item [B].
        blocked: bool [B, n], True where a candidate is a known positive of the pair's query other than its own item.
        liked: bool [u, n], True where a candidate is a known positive of the query; for the direction item -> query.
    """

    loss: LossSettings
    temperature: float | Tensor
    query_of_pair: Tensor
    target: Tensor
    blocked: Tensor
    liked: Tensor | None = None

    def by_query(self, rows: Tensor, pairs: slice = slice(None)) -> Tensor:
        """Items of some pairs against the other candidates of their query: cosines [b, n] -> losses [b]."""
        target, blocked = self.target[pairs], self.blocked[pairs]
        if self.loss.kind == "hinge":
            return hinge_losses(rows, target, blocked, self.loss.margin)
        return pair_losses(rows, target, blocked, self.temperature)

    def by_item(self, columns: Tensor, pairs: slice = slice(None)) -> Tensor:
        """Queries of some pairs against the batch's other queries, those that like the item, too, left out.

        Cosines [b, u] -> losses [b].
        """
        assert self.liked is not None
        own = self.query_of_pair[pairs]
        blocked = self.liked.T[self.target[pairs]].scatter(1, own[:, None], False)
        if self.loss.kind == "hinge":
            return hinge_losses(columns, own, blocked, self.loss.margin)
        return pair_losses(columns, own, blocked, self.temperature)
