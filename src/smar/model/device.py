"""Where a model runs, and in which precision: every command asks here.

Nothing of this names a card's maker: torch's builds for AMD cards (ROCm) call them `cuda`, too.
"""

import os
from functools import cache
from typing import TypeVar

import torch

from smar.core.errors import InputError, one_of

CHOICES = ("auto", "cpu", "cuda")
CPU = torch.device("cpu")
T = TypeVar("T")


def pick_device(choice: str = "auto") -> torch.device:
    """The device of this process: `auto` is a GPU where there is one, else the processor.

    Of several GPUs it is the first, or the one that `torchrun` numbers (`LOCAL_RANK`).

    Raises:
        InputError: `cuda` is asked for and torch sees no GPU, or fewer than `torchrun` started processes.
    """
    devices = all_devices(choice)
    number = int(os.environ.get("LOCAL_RANK", "0")) if devices[0].type == "cuda" else 0
    if number >= len(devices):
        raise InputError(
            f"process {number} of this machine has no GPU of its own: torch sees {len(devices)}. Start as many "
            "processes as there are GPUs (torchrun --nproc-per-node), or use --device cpu."
        )
    return devices[number]


def all_devices(choice: str = "auto") -> list[torch.device]:
    """Every device that `choice` allows: all GPUs of the machine, or the processor alone.

    Raises:
        InputError: no such choice, or `cuda` and torch sees no GPU.
    """
    if choice not in CHOICES:
        raise one_of(choice, CHOICES, "the device")
    count = torch.cuda.device_count() if choice != "cpu" and torch.cuda.is_available() else 0
    if choice == "cuda" and not count:
        raise InputError(f"--device cuda: {_why_none()}. Use --device cpu, or auto.")
    return [torch.device("cuda", number) for number in range(count)] or [CPU]


def _why_none() -> str:
    build = torch.version.cuda or torch.version.hip
    if build is None:
        return f"torch {torch.__version__} is a build without GPU support, so it sees none"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hint = f", CUDA_VISIBLE_DEVICES is {visible!r}" if visible is not None else ""
    return f"torch {torch.__version__} (CUDA {build}) finds {torch.cuda.device_count()} GPUs, none of them usable{hint}"


def knows_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself; where it does not, float32 is several times as fast."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and any(there is True for name, there in _instructions().items() if "bf16" in name)


@cache
def _instructions() -> dict[str, object]:
    return dict(torch.cpu.get_capabilities())


def precision(device: torch.device, bf16: bool) -> str:
    """How a model runs there, in words."""
    if bf16 and not knows_bf16(device):
        return f"float32 on {device}, which has no bfloat16"
    return f"{'bfloat16' if bf16 else 'float32'} on {device}"


def free_memory(device: torch.device) -> int | None:
    """Bytes that tensors may still take on a GPU, those that torch keeps for them included; None on a processor."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
