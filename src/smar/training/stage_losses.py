"""The losses of a stage over one encoded batch (docs/paper.md, stages 1 and 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from smar.core.sections.losses import LossSettings
from smar.core.sections.training import LossWeights
from smar.model.modeling import ItemOutput, QueryOutput
from smar.training.losses.contrastive import adaptive_scores, counterfactual_labels, prefix, weighted_mean
from smar.training.losses.objective import Objective

PART = 256
"""Pairs scored at a time where the batch is encoded in parts (gradient caching)."""


def stage_losses(
    weights: LossWeights,
    query: QueryOutput,
    item: ItemOutput,
    batch: Mapping[str, Tensor],
    temperature: float | Tensor,
    loss: LossSettings = LossSettings(),
    part: int | None = None,
) -> dict[str, Tensor]:
    """The stage's losses by name, each a scalar; those of weight zero are not computed.

    L_i counts only pairs whose item shows a picture: the null vector has nothing to align. With `part`, so many pairs
    are scored at a time, and again when their gradient is due: a batch of 4,096 has 37 MB of scores for each loss.
    """
    rows, target, blocked, weight = (batch[name] for name in ("query_of_pair", "target", "blocked", "weight"))
    vectors = {"text": item.text, "image": item.image, "multimodal": item.multimodal}
    mixed = weights.adaptive or weights.gate
    scored = _Scored(
        Objective(loss, temperature, rows, target, blocked, batch.get("liked")),
        query.embedding,
        {name: own for name, own in vectors.items() if getattr(weights, name) or (mixed and name != "image")},
        batch.get("share", query.image_probability) if weights.adaptive else None,
        [name for name in (*vectors, "adaptive") if getattr(weights, name)],
        ["text", "multimodal"] if weights.gate else [],
    )
    forward, total = scored.losses(part or len(rows))
    out = {}
    for name, losses in total.items():
        seen = weight * item.has_image[target] if name == "image" else weight
        out[name] = weighted_mean(losses, seen)
    if weights.gate:
        label = counterfactual_labels(forward["text"], forward["multimodal"], rows, len(query.gate_logit))
        out["gate"] = functional.binary_cross_entropy_with_logits(query.gate_logit, label)
    return out


@dataclass(frozen=True)
class _Scored:
    """Query vectors [u, k] against item vectors [n, k] by name; with `share` [u] also "adaptive", their mixture.

    `total` names the losses wanted in both directions, `forward` those that the gate's label compares.
    """

    objective: Objective
    queries: Tensor
    items: Mapping[str, Tensor]
    share: Tensor | None
    total: Sequence[str]
    forward: Sequence[str]

    def losses(self, size: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Losses [B] of all pairs by name: `forward` and `total`, `size` pairs at a time."""
        pairs = len(self.objective.target)
        if pairs <= size:
            return self._of(slice(None))
        parts = [
            checkpoint(self._of, slice(start, start + size), use_reentrant=False) for start in range(0, pairs, size)
        ]
        forward, total = (
            {name: torch.cat([part[at][name] for part in parts]) for name in parts[0][at]} for at in (0, 1)
        )
        return forward, total

    def _of(self, pairs: slice) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        objective, own = self.objective, self.objective.query_of_pair[pairs]
        rows = {name: self.queries[own] @ items.T for name, items in self.items.items()}
        if self.share is not None:
            rows["adaptive"] = adaptive_scores(rows["text"], rows["multimodal"], self.share[own])
        wanted = dict.fromkeys((*self.total, *self.forward))  # in order: gradients are added up in it, bit for bit
        by_query = {name: objective.by_query(rows[name], pairs) for name in wanted}
        forward = {name: by_query[name] for name in self.forward}
        if not objective.loss.symmetric:
            return forward, {name: by_query[name] for name in self.total}
        target = objective.target[pairs]
        columns = {name: self.queries @ items[target].T for name, items in self.items.items()}
        if self.share is not None:
            columns["adaptive"] = adaptive_scores(columns["text"], columns["multimodal"], self.share)
        other = {name: objective.by_item(columns[name].T, pairs) for name in self.total}
        return forward, {name: by_query[name] + objective.loss.symmetric * other[name] for name in self.total}


def add_prefix_losses(
    losses: dict[str, Tensor],
    sizes: Sequence[int],
    weights: LossWeights,
    query: QueryOutput,
    item: ItemOutput,
    *rest: Any,
) -> dict[str, Tensor]:
    """Add to each loss that of the embeddings cut to each of `sizes` (Kusupati et al. 2022, Matryoshka).

    The gate has no embedding: its loss stays as it is. `rest` are the further arguments of `stage_losses`.
    """
    ungated = weights.model_copy(update={"gate": 0.0})
    for size in sizes:
        short = QueryOutput(prefix(query.embedding, size), query.gate_logit)
        text, image, multimodal = (prefix(vector, size) for vector in (item.text, item.image, item.multimodal))
        added = stage_losses(ungated, short, ItemOutput(text, image, multimodal, item.has_image), *rest)
        losses = {name: value + added[name] if name in added else value for name, value in losses.items()}
    return losses
