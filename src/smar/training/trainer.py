"""The training step: a stage's losses over one batch, inside transformers' `Trainer` (checkpoints, schedule, bf16)."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel, Trainer

from smar.errors import TrainingError
from smar.losses.contrastive import adaptive_scores, counterfactual_labels, prefix, weighted_mean
from smar.losses.objective import Objective
from smar.model.modeling import ItemOutput, QueryOutput
from smar.model.processing import SmarProcessor
from smar.sections import LossSettings, NegativeSettings
from smar.settings import LossWeights
from smar.training.memory import MEMORY_FILE, Memory, recall
from smar.training.negatives import keep_scheduled


def stage_losses(
    weights: LossWeights,
    query: QueryOutput,
    item: ItemOutput,
    batch: dict[str, Tensor],
    temperature: float | Tensor,
    loss: LossSettings = LossSettings(),
) -> dict[str, Tensor]:
    """The stage's losses by name, each a scalar; those of weight zero are not computed.

    L_i counts only pairs whose item shows a picture: the null vector has nothing to align.
    """
    rows, target, blocked, weight = (batch[name] for name in ("query_of_pair", "target", "blocked", "weight"))
    objective = Objective(loss, temperature, rows, target, blocked, batch.get("liked"), batch.get("log_q"))
    vectors = {"text": item.text, "image": item.image, "multimodal": item.multimodal}
    mixed = weights.adaptive or weights.gate
    needed = [name for name in vectors if getattr(weights, name) or (mixed and name != "image")]
    scores = {name: query.embedding @ vectors[name].T for name in needed}
    losses = {name: objective.by_query(scores[name]) for name in needed}
    out = {}
    for name in needed:
        seen = weight * item.has_image[target] if name == "image" else weight
        if getattr(weights, name):
            out[name] = weighted_mean(objective.total(scores[name], losses[name]), seen)
    if weights.adaptive:
        soft = adaptive_scores(scores["text"], scores["multimodal"], query.image_probability)
        out["adaptive"] = weighted_mean(objective.total(soft), weight)
    if weights.gate:
        label = counterfactual_labels(losses["text"], losses["multimodal"], rows, len(query.gate_logit))
        out["gate"] = functional.binary_cross_entropy_with_logits(query.gate_logit, label)
    return out


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

    def __init__(
        self,
        *,
        weights: LossWeights,
        processor: SmarProcessor,
        loss: LossSettings,
        negatives: NegativeSettings,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.weights, self.processor, self.loss, self.negatives = weights, processor, loss, negatives
        self.parts: dict[str, list[Tensor]] = defaultdict(list)
        self.memory: Memory | None = None

    @property
    def progress(self) -> float:
        """Share of the stage's steps that are done."""
        return float(self.state.global_step / self.state.max_steps)

    def compute_loss(
        self, model: PreTrainedModel, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Tensor:
        """Encode the batch and add up the stage's losses."""
        bare = self.accelerator.unwrap_model(model)
        config = bare.config
        batch = keep_scheduled(inputs, self.progress)
        batch = hide_pictures(batch, config.modality_dropout if config.kind == "smar" else 0.0)
        if batch["pixels"] is not None:
            batch["pixels"] = self.processor.pixels(batch["pixels"])
        query, item = model(batch)
        if self.negatives.memory and self.progress >= self.negatives.memory_warmup:
            self.memory, item, batch = recall(self.memory, item, batch, self.data_collator.facts, self.negatives.memory)
        rest = (query, item, batch, bare.temperature(), self.loss)
        losses = add_prefix_losses(stage_losses(self.weights, *rest), config.matryoshka or (), self.weights, *rest)
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

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.memory is not None and self.args.should_save:
            self.memory.save(Path(output_dir) / MEMORY_FILE)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (Path(checkpoint) / MEMORY_FILE).is_file():
            self.memory = Memory.load(Path(checkpoint) / MEMORY_FILE, self.args.device)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean of each loss since the last log."""
        means = {f"loss_{name}": torch.stack(values).mean().item() for name, values in self.parts.items() if values}
        self.parts.clear()
        if self.loss.learn_temperature:
            means["temperature"] = self.accelerator.unwrap_model(self.model).temperature().item()
        super().log({**logs, **means}, *args, **kwargs)
