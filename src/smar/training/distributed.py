"""Several processes train on one batch: each encodes a share of it, all compute the same loss.

Every process learns the whole batch's pairs, encodes its share of the distinct queries and items, and gathers the
vectors of the others. The loss is then the loss of one process with the large batch, by construction: items of all
processes are candidates, an item stands once, known positives are masked. Every process computes the same full
gradient with respect to all vectors, so the gather's backward hands on its own rows without any exchange; the
parameters' gradients are averaged once, at the end. A process whose share shows no picture has no gradient for the
image tower and contributes zero.

Everything here is the identity in a single process.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from smar.core.errors import InputError
from smar.core.progress import console

_SEEN_SECONDS = 5
"""Network file systems may show a new file late."""
T = TypeVar("T")


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process; 0 writes the files."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def processes(device: torch.device) -> Iterator[None]:
    """Join the group that `torchrun` names in the environment; only process 0 speaks, unless one fails.

    `device` is this process's own.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    console.quiet = rank() > 0
    try:
        yield
    except BaseException:
        console.quiet = False
        raise
    finally:
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until every process is here."""
    if world() > 1:
        dist.barrier()


def in_turn(work: Callable[[], T]) -> T:
    """Process 0 does the work, then the others do, who find what it has made."""
    if rank() > 0:
        barrier()
    out = work()
    if rank() == 0:
        barrier()
    return out


def check_shared(folder: Path) -> None:
    """Refuse a folder that is another one for some process: each would train with files of its own.

    Process 0 writes a file of a random name, the others read it; it is gone before any of them goes on. With one
    process nothing is written.

    Raises:
        InputError: in every process alike; it names the hosts that do not see the file.
    """
    if world() == 1:
        return
    nonce = from_first(secrets.token_hex(16))
    path = folder / f".shared-{nonce}"
    if rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(nonce)
    barrier()
    until = time.monotonic() + _SEEN_SECONDS
    while not (seen := path.is_file()) and time.monotonic() < until:
        time.sleep(0.1)
    blind = [host for host, saw in _objects((socket.gethostname(), seen)) if not saw]
    if rank() == 0:
        path.unlink()
    barrier()
    if blind:
        raise InputError(
            f"--out {folder} is not one folder for all processes: {', '.join(sorted(set(blind)))} cannot see what "
            "process 0 wrote there. Put it where every node has the same files (NFS, a shared volume)."
        )


def total(value: float) -> float:
    """Sum of a number over the processes."""
    return sum(_objects(value))


def largest(value: int) -> int:
    """The largest of a number over the processes."""
    return max(_objects(value))


def from_first(value: T) -> T:
    """The value of process 0."""
    return _objects(value)[0]


def _objects(value: T) -> list[T]:
    if world() == 1:
        return [value]
    out: list[Any] = [None] * world()
    dist.all_gather_object(out, value)
    return out


class _Gather(torch.autograd.Function):
    """Rows of every process; backward: this process's rows of the gradient.

    The factor `world` undoes the mean in `average_gradients`: what a process does not encode it has no gradient for.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        ctx.own = slice(sum(sizes[: rank()]), sum(sizes[: rank() + 1]))
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.own] * world(), None


def gather_rows(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """Rows of every process, by process.

    Args:
        rows: this process's, [sizes[rank], ...].
        sizes: rows of each process; may differ, and may be 0.

    Returns:
        [sum(sizes), ...]; its gradient must be the same in every process, as that of one common loss is.
    """
    if world() == 1:
        return rows
    return _Gather.apply(rows, sizes)  # type: ignore[no-any-return, no-untyped-call]


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over the processes; one that no process has stays None."""
    if world() == 1:
        return
    trained = [p for p in parameters if p.requires_grad]
    used = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8, device=trained[0].device)
    dist.all_reduce(used, op=dist.ReduceOp.MAX)
    shared = [p for p, is_used in zip(trained, used.tolist(), strict=True) if is_used]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in shared])
    dist.all_reduce(flat)
    flat /= world()
    for parameter, gradient in zip(shared, torch.split(flat, [p.numel() for p in shared]), strict=True):
        parameter.grad = gradient.view_as(parameter)
