"""The training step: a stage's losses over one batch, inside transformers' `Trainer` (checkpoints, schedule, bf16)."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, Trainer

from smar.errors import TrainingError
from smar.losses.contrastive import (
    adaptive_scores,
    candidate_scores,
    counterfactual_labels,
    pair_losses,
    weighted_mean,
)
from smar.model.modeling import ItemOutput, QueryOutput
from smar.model.processing import SmarProcessor
from smar.settings import LossWeights


def stage_losses(
    weights: LossWeights, query: QueryOutput, item: ItemOutput, batch: dict[str, Tensor], temperature: float
) -> dict[str, Tensor]:
    """The stage's losses by name, each a scalar; those of weight zero are not computed.

    L_i counts only pairs whose item shows a picture: the null vector has nothing to align.
    """
    rows, target, blocked, weight = (batch[name] for name in ("query_of_pair", "target", "blocked", "weight"))
    vectors = {"text": item.text, "image": item.image, "multimodal": item.multimodal}
    mixed = weights.adaptive or weights.gate
    needed = [name for name in vectors if getattr(weights, name) or (mixed and name != "image")]
    scores = {name: candidate_scores(query.embedding, vectors[name], rows) for name in needed}
    losses = {name: pair_losses(scores[name], target, blocked, temperature) for name in needed}
    out = {}
    for name in needed:
        seen = weight * item.has_image[target] if name == "image" else weight
        if getattr(weights, name):
            out[name] = weighted_mean(losses[name], seen)
    if weights.adaptive:
        share = batch.get("share", query.image_probability)
        soft = adaptive_scores(scores["text"], scores["multimodal"], share[rows])
        out["adaptive"] = weighted_mean(pair_losses(soft, target, blocked, temperature), weight)
    if weights.gate:
        label = counterfactual_labels(losses["text"], losses["multimodal"], rows, len(query.gate_logit))
        out["gate"] = functional.binary_cross_entropy_with_logits(query.gate_logit, label)
    return out


def hide_pictures(batch: dict[str, Any], share: float) -> dict[str, Any]:
    """Modality dropout: hide the picture of a random `share` of the batch's items."""
    if not share or batch["pixels"] is None:
        return batch
    kept = torch.rand(len(batch["pixels"]), device=batch["pixels"].device) >= share
    has_image = batch["has_image"].clone()
    has_image[batch["has_image"]] = kept
    return {**batch, "pixels": batch["pixels"][kept], "has_image": has_image}


class SmarTrainer(Trainer):  # type: ignore[misc]
    """`Trainer` whose loss is a stage's weighted sum; every part of it is logged."""

    def __init__(self, *, weights: LossWeights, processor: SmarProcessor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weights, self.processor = weights, processor
        self.parts: dict[str, list[Tensor]] = defaultdict(list)

    def compute_loss(
        self, model: PreTrainedModel, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Tensor:
        """Encode the batch and add up the stage's losses."""
        config = self.accelerator.unwrap_model(model).config
        batch = hide_pictures(inputs, config.modality_dropout if config.kind == "smar" else 0.0)
        if batch["pixels"] is not None:
            batch["pixels"] = self.processor.pixels(batch["pixels"])
        query, item = model(batch)
        losses = stage_losses(self.weights, query, item, batch, config.temperature)
        total = torch.stack([getattr(self.weights, name) * value for name, value in losses.items()]).sum()
        if not torch.isfinite(total):
            parts = {name: float(value.detach()) for name, value in losses.items()}
            raise TrainingError(
                f"the loss is {parts} at step {self.state.global_step + 1} (dataset items "
                f"{batch['item_rows'][:8].tolist()}...): lower the stage's learning_rate, or set train.bf16=false."
            )
        for name, value in losses.items():
            self.parts[name].append(value.detach())
        return total

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean of each loss since the last log."""
        means = {f"loss_{name}": torch.stack(values).mean().item() for name, values in self.parts.items() if values}
        self.parts.clear()
        super().log({**logs, **means}, *args, **kwargs)
