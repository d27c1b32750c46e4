"""The training step: a stage's losses over one batch, inside transformers' `Trainer` (checkpoints, schedule, bf16)."""

import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.utils import get_total_norm
from transformers import PreTrainedModel

from smar.core.sections.losses import LossSettings
from smar.core.sections.training import LossWeights, PictureSettings
from smar.model.modeling import ItemOutput, QueryOutput
from smar.model.processing import SmarProcessor
from smar.model.ragged import pictures_of
from smar.training.alignment import AlignmentItems, align
from smar.training.augmentation import picture_input, vary
from smar.training.batches import Collator
from smar.training.distributed import average_gradients, gather_rows, world
from smar.training.encode_batch import encode_batch, parts_of, share, statistics_left_alone
from smar.training.loss_guard import LossGuard
from smar.training.parts import LONG, PROBE, PartedTrainer, fitting
from smar.training.stage_losses import PART, add_prefix_losses, stage_losses


def hide_pictures(batch: dict[str, Any], share: float) -> dict[str, Any]:
    """Modality dropout: hide the picture, or all pictures, of a random `share` of the batch's items."""
    if not share or batch["pixels"] is None:
        return batch
    before = batch["has_image"]
    kept = torch.rand(int(before.sum()), device=batch["pixels"].device) >= share
    has_image = before.clone()
    has_image[before] = kept
    shown = {**batch, "pixels": pictures_of(batch, has_image.nonzero().squeeze(1)), "has_image": has_image}
    return shown | ({"pictures": batch["pictures"] * has_image} if "pictures" in batch else {})


class SmarTrainer(PartedTrainer):
    """`Trainer` whose loss is a stage's weighted sum; every part of it is logged.

    It hands itself only the numbers of pairs. The batch is made of them inside the step, from those of all processes
    (see `smar.training.distributed`). Beside the GPU of a single process, others make the batches ahead: what a batch
    draws depends on its pairs only, and what depends on the step is drawn inside it.
    """

    def __init__(
        self,
        *,
        weights: LossWeights,
        processor: SmarProcessor,
        loss: LossSettings,
        pictures: PictureSettings,
        collator: Collator,
        guard: LossGuard,
        alignment: AlignmentItems | None = None,
        micro_batch: int | None = None,
        **kwargs: Any,
    ) -> None:
        ahead = kwargs["args"].dataloader_num_workers > 0
        collate = collator if ahead else _pair_numbers
        super().__init__(train_dataset=collator.rows.tolist(), data_collator=collate, **kwargs)
        self.weights, self.processor, self.loss = weights, processor, loss
        self.collator, self.guard, self.at_once = collator, guard, micro_batch
        self.pictures, self.alignment = pictures, alignment
        self.parts: dict[str, list[Tensor]] = defaultdict(list)
        self.pairs: list[int] = []
        self.logged: tuple[int, float] | None = None

    def compute_loss(
        self, model: PreTrainedModel, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> Tensor:
        """Encode the batch of all processes and add up the stage's losses."""
        model, numbers = self.accelerator.unwrap_model(model), inputs["pairs"]
        self.pairs = gather_rows(numbers, [len(numbers)] * world()).tolist()
        self.guard.check_batch(self.state.global_step + 1, self.pairs)
        batch = inputs if "item_ids" in inputs else self.collator(self.pairs)
        if self.at_once is None:
            self.at_once = self._fitting(model)
        self.examples = max(len(batch["query_ids"]), len(batch["item_ids"]))
        parted = parts_of(batch, self.at_once * world()) > 1

        def encode(part: dict[str, Any]) -> tuple[QueryOutput, ItemOutput]:
            return self._encode(model, self.trimmed(part) if parted else part)

        query, item = encode_batch(model, batch, self.at_once, self._own_share, encode)
        batch = self._prepare_inputs({**batch, "pixels": None})
        aligned = {} if self.alignment is None else {"alignment": self._align(model, item, batch)}
        rest = (query, item, batch, model.temperature(), self.loss, PART if parted else None)
        losses = add_prefix_losses(
            stage_losses(self.weights, *rest) | aligned, model.config.matryoshka or (), self.weights, *rest
        )
        total = torch.stack([getattr(self.weights, name) * value for name, value in losses.items()]).sum()
        parts = {name: value.detach() for name, value in losses.items()}
        self.guard.check_loss(self.state.global_step + 1, total.item(), parts, self.pairs)
        for name, value in parts.items():
            self.parts[name].append(value)
        return total

    def _fitting(self, model: PreTrainedModel) -> int:
        """Examples that fit, by pairs whose items have nearly the longest texts: the same in every sitting."""
        rows, length = self.collator.rows, np.diff(self.collator.items.offsets)
        by_length = rows[np.argsort(length[self.collator.pairs.item[rows]], kind="stable")]
        end = max(round(LONG * len(rows)), min(PROBE, len(rows)))
        batch = self.collator(by_length[max(0, end - PROBE) : end].tolist())
        some = self._prepare_inputs(share(batch, 0, parts_of(batch, PROBE)))
        examples = max(len(some["query_ids"]), len(some["item_ids"]))
        with statistics_left_alone(model):
            return fitting(model, lambda: self._encode(model, some), examples, self.args.device)

    def _align(self, model: PreTrainedModel, item: ItemOutput, batch: dict[str, Any]) -> Tensor:
        assert self.alignment is not None
        extra = self._prepare_inputs(self.alignment.fields(self.pairs, batch["item_rows"].cpu().numpy()))
        if "extra_pixels" in extra:
            extra["extra_pixels"] = picture_input(extra["extra_pixels"], self.processor, self.pictures.augment)
        with self.accelerator.autocast():
            return align(model, item, extra, model.temperature())

    def _own_share(self, batch: dict[str, Any]) -> dict[str, Any]:
        config = self.model.config
        return hide_pictures(self._prepare_inputs(batch), config.modality_dropout if config.kind == "smar" else 0.0)

    def _encode(self, model: PreTrainedModel, batch: dict[str, Any]) -> tuple[QueryOutput, ItemOutput]:
        output: tuple[QueryOutput, ItemOutput] = model(vary(batch, self.pictures, self.processor))
        return output

    def training_step(self, model: Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Loss and gradient of one batch, the gradient averaged over the processes."""
        self.logged = self.logged or (self.state.global_step, time.perf_counter())
        loss = super().training_step(model, inputs, *args, **kwargs)
        average_gradients(self.model.parameters())
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        self.guard.check_gradient(self.state.global_step + 1, norm.item(), self.pairs)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean of each loss, the temperature and the pairs per second since the last log."""
        means = {f"loss_{name}": torch.stack(values).mean().item() for name, values in self.parts.items() if values}
        self.parts.clear()
        if self.logged and (steps := self.state.global_step - self.logged[0]):
            means["pairs_per_second"] = steps * len(self.pairs) / (time.perf_counter() - self.logged[1])
            self.logged = None
        with torch.no_grad():
            means["temperature"] = float(self.accelerator.unwrap_model(self.model).temperature())
        super().log({**logs, **means}, *args, **kwargs)


def _pair_numbers(numbers: list[int]) -> dict[str, Tensor]:
    return {"pairs": torch.tensor(numbers)}
