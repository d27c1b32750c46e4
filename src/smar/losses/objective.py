"""How the scores of a batch become one loss per pair: softmax or hinge, one direction or both."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

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
        part: pairs whose rows of scores are in memory at once, computed again for their gradient; None: all.
    """

    loss: LossSettings
    temperature: float | Tensor
    query_of_pair: Tensor
    target: Tensor
    blocked: Tensor
    liked: Tensor | None = None
    log_q: Tensor | None = None
    part: int | None = None

    def by_query(self, scores: Tensor) -> Tensor:
        """Each pair's item against the other candidates of its query: cosines [u, n] -> losses [B]."""
        return self._in_parts(self._by_query, scores)

    def by_item(self, scores: Tensor) -> Tensor:
        """Each pair's query against the batch's other queries, those that like the item, too, left out: -> [B].

        Queries are not corrected by their sampling probability: only items are drawn from outside the batch.
        """
        return self._in_parts(self._by_item, scores)

    def _in_parts(self, losses: Callable[[Tensor, slice], Tensor], scores: Tensor) -> Tensor:
        pairs = len(self.target)
        if self.part is None or pairs <= self.part:
            return losses(scores, slice(None))
        parts = [slice(start, start + self.part) for start in range(0, pairs, self.part)]
        return torch.cat([checkpoint(losses, scores, part, use_reentrant=False) for part in parts])

    def _by_query(self, scores: Tensor, part: slice) -> Tensor:
        rows, target, blocked = scores[self.query_of_pair[part]], self.target[part], self.blocked[part]
        if self.loss.kind == "hinge":
            return hinge_losses(rows, target, blocked, self.loss.margin)
        return pair_losses(rows, target, blocked, self.temperature, self.log_q)

    def _by_item(self, scores: Tensor, part: slice) -> Tensor:
        assert self.liked is not None
        columns, own = scores.T[self.target[part]], self.query_of_pair[part]
        blocked = self.liked.T[self.target[part]].scatter(1, own[:, None], False)
        if self.loss.kind == "hinge":
            return hinge_losses(columns, own, blocked, self.loss.margin)
        return pair_losses(columns, own, blocked, self.temperature)

    def total(self, scores: Tensor, by_query: Tensor | None = None) -> Tensor:
        """Both directions, the second under `loss.symmetric`: [u, n] -> [B]; `by_query` where it is known already."""
        forward = self.by_query(scores) if by_query is None else by_query
        return forward + self.loss.symmetric * self.by_item(scores) if self.loss.symmetric else forward
