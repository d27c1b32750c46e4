"""How many examples are encoded at once: as many as the memory for their activations holds.

A few examples are encoded as a step does it, and what autograd keeps of them is counted, each storage once; activations
grow with the number of examples. The count depends on model and examples alone, so on a processor, whose `BUDGET` is
fixed, a run that goes on from a checkpoint has the parts that it had before. On a GPU the budget is what is free.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import Trainer

from smar.core.errors import TrainingError
from smar.core.processes import Heap
from smar.core.progress import console
from smar.model.device import free_memory
from smar.training.distributed import world

BUDGET = 768 << 20
"""Bytes of activations on a processor: with libraries, tokens and a model of the default size less than 2 GB in all."""
FILLED = 0.6
"""Share of a GPU's free memory that activations get; gradients of activations and scores take the rest."""
PROBE = 32
"""Examples that are counted."""
LONG = 0.99
"""Share of the items whose texts are no longer than theirs: a batch is padded to its longest text."""
T = TypeVar("T")
OUT_OF_MEMORY = (
    "Set train.micro_batch to fewer examples at once or train.activation_checkpointing=true, lower data.image_size, "
    "choose a smaller model, or use --device cpu."
)


def activation_bytes(encode: Callable[[], object], weights: Iterable[Tensor]) -> int:
    """Bytes that `encode` keeps for its gradient, beside `weights`; random numbers and gradients stay as they were."""
    known = {weight.untyped_storage().data_ptr() for weight in weights}
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return value.detach()  # and not itself: an output that its own gradient holds would never go

    with torch.random.fork_rng(devices=_own_card()), saved_tensors_hooks(pack, lambda value: value):
        _alive = encode()  # as long as what it keeps is alive, no two storages have one address
    return sum(kept.values())


def _own_card() -> list[int]:
    """Number of the GPU that this process works with, if any: looking at another one would take memory there."""
    return [torch.cuda.current_device()] if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


def fitting(model: nn.Module, encode: Callable[[], object], examples: int, device: torch.device) -> int:
    """How many examples fit; `encode` encodes `examples` of them in `model`, whose weights are on `device`."""
    weights = [*model.parameters(), *model.buffers()]
    own = max(1, activation_bytes(encode, weights) // examples)
    free = free_memory(device)
    if free is None:
        return max(1, BUDGET // own)
    # gradients and the optimizer's two states, which the first step takes
    coming = sum(3 * weight.nbytes for weight in model.parameters() if weight.requires_grad)
    return max(1, int((free - coming) * FILLED) // own)


class PartedTrainer(Trainer):  # type: ignore[misc]
    """`Trainer` whose steps encode `at_once` examples at most; out of memory, it halves them and does the step again.

    `at_once` None is found by the subclass at the first step; `examples` is the number of them in the last batch.
    """

    at_once: int | None = None
    examples = PROBE

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heap = Heap()

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Loss and gradient of one batch."""
        if self.args.device.type == "cpu":
            self.heap.tidy()
        before = _Randomness.of(model)
        while (loss := self._attempt(model, inputs, *args, **kwargs)) is None:
            model.zero_grad(set_to_none=True)
            before.restore(model)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        return loss

    def _attempt(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor | None:
        """The step, or None after the device ran out of memory: what the error held is free only when it is gone."""
        try:
            return self.step(model, inputs, *args, **kwargs)
        except torch.OutOfMemoryError as error:
            now = min(self.at_once or self.examples, self.examples)
            if now <= 1 or world() > 1:  # others would wait for this process
                raise TrainingError(f"{error} {OUT_OF_MEMORY}") from error
            self.at_once = now // 2
            console.print(f"out of memory with {now:,} examples at once: going on with {self.at_once:,}", markup=False)
            return None

    def trimmed(self, part: T) -> T:
        """`part` of several, which is to be encoded: what the one before left in the heap goes back first."""
        if self.args.device.type == "cpu":
            self.heap.trim()
        return part

    def step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Loss and gradient of one batch, which may run out of memory."""
        return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Randomness:
    """What a step that failed has changed: the generators of random numbers, and running statistics."""

    cpu: Tensor
    gpu: Tensor | None
    buffers: list[Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> "_Randomness":
        gpu = torch.cuda.get_rng_state() if _own_card() else None
        return cls(torch.get_rng_state(), gpu, [value.clone() for value in model.buffers()])

    @torch.no_grad()
    def restore(self, model: nn.Module) -> None:
        torch.set_rng_state(self.cpu)
        if self.gpu is not None:
            torch.cuda.set_rng_state(self.gpu)
        for value, before in zip(model.buffers(), self.buffers, strict=True):
            value.copy_(before)
