"""How the scores of a batch become one loss per pair: softmax or hinge, one direction or both."""

from dataclasses import dataclass

from torch import Tensor

from smar.losses.contrastive import hinge_losses, pair_losses
from smar.sections.losses import LossSettings


@dataclass(frozen=True)
class Objective:
    """The loss of `loss.kind` over the pairs of a batch.

    The batch holds `B` pairs of `u` distinct queries, and `n` candidates, the pairs' own items among them.

    Attributes:
        loss: kind, margin, weight of the direction item -> query.
        temperature: of the softmax.
        query_of_pair: row of each pair's query [B].
        target: column of each pair's item [B].
        blocked: bool [B, n], True where a candidate is a known positive of the pair's query other than its own item.
        liked: bool [u, n], True where a candidate is a known positive of the query; for the direction item -> query.
        log_q: log sampling probability [n] of the candidates, or None.
    """

    loss: LossSettings
    temperature: float | Tensor
    query_of_pair: Tensor
    target: Tensor
    blocked: Tensor
    liked: Tensor | None = None
    log_q: Tensor | None = None

    def by_query(self, scores: Tensor) -> Tensor:
        """Each pair's item against the other candidates of its query: cosines [u, n] -> losses [B]."""
        rows = scores[self.query_of_pair]
        if self.loss.kind == "hinge":
            return hinge_losses(rows, self.target, self.blocked, self.loss.margin)
        return pair_losses(rows, self.target, self.blocked, self.temperature, self.log_q)

    def by_item(self, scores: Tensor) -> Tensor:
        """Each pair's query against the batch's other queries, those that like the item, too, left out: -> [B].

        Queries are not corrected by their sampling probability: only items are drawn from outside the batch.
        """
        assert self.liked is not None
        columns = scores.T[self.target]
        blocked = self.liked.T[self.target].scatter(1, self.query_of_pair[:, None], False)
        if self.loss.kind == "hinge":
            return hinge_losses(columns, self.query_of_pair, blocked, self.loss.margin)
        return pair_losses(columns, self.query_of_pair, blocked, self.temperature)

    def total(self, scores: Tensor, by_query: Tensor | None = None) -> Tensor:
        """Both directions, the second under `loss.symmetric`: [u, n] -> [B]; `by_query` where it is known already."""
        forward = self.by_query(scores) if by_query is None else by_query
        return forward + self.loss.symmetric * self.by_item(scores) if self.loss.symmetric else forward
