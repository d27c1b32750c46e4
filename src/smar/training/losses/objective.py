"""How the scores of a batch become one loss per pair: softmax or another, one direction or both."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from smar.core.registry import LOSSES
from smar.core.sections.losses import LossSettings
from smar.training.losses.contrastive import pair_losses

L = TypeVar("L", bound=Callable[..., Tensor])


@dataclass(frozen=True)
class Terms:
    """What a loss may need beside scores: the softmax's `temperature` and `train.loss`.

    >>> Terms(1 / 30, LossSettings()).settings.kind
    'softmax'
    """

    temperature: float | Tensor
    settings: LossSettings


def register_loss(name: str) -> Callable[[L], L]:
    """Decorator: the function is what ``train.loss.kind: NAME`` minimises.

    It is given cosines [b, n] of some pairs' queries and all candidates, `target` [b], the column of each pair's own
    item, `blocked` [b, n], True where a candidate is another known positive, and `Terms`. It returns losses [b].

    >>> from smar.training import register_loss
    >>> @register_loss("margin-squared")
    ... def squared(scores, target, blocked, terms):
    ...     own = scores.gather(1, target[:, None])
    ...     return ((1 - own + scores).clamp_min(0) ** 2).masked_fill(blocked, 0).mean(1)

    Raises:
        InputError: the name is taken.
    """
    return LOSSES.register(name)


def softmax(scores: Tensor, target: Tensor, blocked: Tensor, terms: Terms) -> Tensor:
    """See `pair_losses`."""
    return pair_losses(scores, target, blocked, terms.temperature)


@dataclass(frozen=True)
class Objective:
    """The loss of `loss.kind` over the pairs of a batch, some of them at a time.

    The batch holds `B` pairs of `u` distinct queries, and `n` candidates, the pairs' own items among them.

    Attributes:
        loss: kind, weight of the direction item -> query.
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
        return self._losses(rows, self.target[pairs], self.blocked[pairs])

    def by_item(self, columns: Tensor, pairs: slice = slice(None)) -> Tensor:
        """Queries of some pairs against the batch's other queries, those that like the item, too, left out.

        Cosines [b, u] -> losses [b].
        """
        assert self.liked is not None
        own = self.query_of_pair[pairs]
        blocked = self.liked.T[self.target[pairs]].scatter(1, own[:, None], False)
        return self._losses(columns, own, blocked)

    def _losses(self, scores: Tensor, target: Tensor, blocked: Tensor) -> Tensor:
        loss: Callable[..., Tensor] = LOSSES[self.loss.kind]
        return loss(scores, target, blocked, Terms(self.temperature, self.loss))
