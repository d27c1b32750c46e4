"""Pictures for an encoder, read by processes beside it; and how many items a GPU encodes at once.

Pictures were decoded when they were packed (`smar prepare`, by processes of its own). What is left is to gather them
from the mapped file, which is slow where the file does not fit into memory: on a GPU's machine a few processes do it
ahead of the encoder and hand the batches over in shared memory.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from mmap import mmap
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from smar.core.processes import end_with_parent
from smar.model.device import free_memory
from smar.model.tokens import Ints

BATCH, MOST = 256, 2048
"""Items encoded at once on a processor, and at most on a GPU: more are not faster."""
FILLED = 0.8
"""Share of a GPU's free memory that a batch may take."""
READERS, AHEAD = 4, 2
"""Processes that read, and batches that each holds ready."""
_SHARED = Path("/dev/shm")  # nosec B108: only its size is asked
Pictures = npt.NDArray[np.uint8]
T = TypeVar("T")


def grown(size: int, used: int, free: int, most: int = MOST) -> int:
    """Items at once that fill a GPU: `size` of them took `used` of `free` bytes."""
    return max(size, min(most, int(size * FILLED * free / max(used, 1))))


def with_growth(encode: Callable[[], T], size: int, device: torch.device) -> tuple[T, int]:
    """What `encode` makes of `size` items, and how many at once fill the GPU."""
    free, before = free_memory(device) or 0, torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    out = encode()
    return out, grown(size, torch.cuda.max_memory_allocated(device) - before, free)


def shown(images: Pictures, image_row: Ints) -> Pictures:
    """Pictures [m, s, s, 3] that items show, those of an item one after the other; `image_row` is [n] or [n, N]."""
    return images[image_row[image_row >= 0]]


def read_ahead(
    images: Pictures, image_row: Ints, parts: Sequence[slice], device: torch.device, readers: int | None = None
) -> Iterator[tuple[slice, Pictures]]:
    """Each part of the items with its pictures, in order.

    Args:
        images: packed pictures, best memory-mapped: reading processes then map the same file.
        image_row: their rows by item, as `shown` takes them.
        parts: of the items.
        device: that encodes them.
        readers: processes that read; they end with this one, however it is killed. When not given none, and beside a
            GPU as many as are useful and have room.
    """
    if readers is None:
        largest = max((_bytes(images, image_row[part]) for part in parts), default=0)
        readers = readers_beside(device, len(parts), largest)
    if not readers:
        yield from ((part, shown(images, image_row[part])) for part in parts)
        return
    loaded = DataLoader(
        _Parts(images, image_row, parts),
        batch_size=None,
        num_workers=readers,
        prefetch_factor=AHEAD,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # it draws a seed, and training's own generator must not notice
        worker_init_fn=_begin_reader,
    )
    for part, pictures in zip(parts, loaded, strict=True):
        yield part, pictures.numpy()


def readers_beside(device: torch.device, batches: int, size: int, room: int | None = None) -> int:
    """Processes that read beside a device: none beside a processor, which has its cores to compute with.

    Args:
        device: that works with the batches.
        batches: how many there are.
        size: bytes of the largest.
        room: bytes of shared memory; those of this system when not given.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if device.type != "cuda" or not size:
        return 0
    if room is None:
        room = shutil.disk_usage(_SHARED).free if _SHARED.is_dir() else 0
    # a process that finds no room there is killed; containers have 64 MB unless told otherwise
    return max(0, min(READERS, cores - 1, batches // AHEAD, room // 2 // ((AHEAD + 1) * size)))


def _begin_reader(_: int) -> None:
    # PyTorch's own watch asks for the parent's number when it begins: one that was killed before is never missed
    end_with_parent()


class _Parts(Dataset[torch.Tensor]):
    """Pictures of the parts of items."""

    def __init__(self, images: Pictures, image_row: Ints, parts: Sequence[slice]) -> None:
        self.images, self.image_row, self.parts = images, image_row, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.from_numpy(shown(self.images, self.image_row[self.parts[number]]))


def _bytes(images: Pictures, image_row: Ints) -> int:
    return int((image_row >= 0).sum()) * int(np.prod(images.shape[1:])) * images.itemsize


def _reopened(array: npt.NDArray[Any]) -> Any:
    """How another process gets a mapped array: it maps the file, where pickle would send every byte of it."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap) and array.filename is not None:
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        return np.memmap, (array.filename, array.dtype, "r", array.offset, array.shape, order)
    return array.__reduce__()


ForkingPickler.register(np.memmap, _reopened)
