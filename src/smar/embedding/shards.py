"""The shards of an embedding: made on one device, on several in processes of their own, or on a cluster's nodes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from smar.core.errors import InputError
from smar.core.files import atomic, xxh3
from smar.data.dataset import Dataset, text_columns
from smar.model.device import CHOICES, pick_device
from smar.model.encoder import Encoder, Floats
from smar.runners.run import run
from smar.search.embeddings import ShardEntry

JOB_FILE = "job.json"


@dataclass(frozen=True)
class Shard:
    """Items of the dataset, and the file that their vectors go to."""

    part: slice
    path: Path

    def __str__(self) -> str:
        return f"{self.path.name} (rows {self.part.start:,} to {self.part.stop - 1:,} of items.parquet)"


@dataclass(frozen=True)
class Done:
    """A shard that is there."""

    shard: Shard
    entry: ShardEntry
    made: bool
    """Whether it was made now, and not before."""


def write_shards(
    encoder: Encoder,
    dataset: Dataset,
    shards: Sequence[Shard],
    devices: Sequence[torch.device | str],
    runner: str = "local",
) -> Iterator[Done]:
    """Make each shard that is absent or damaged, and yield all of them as they are done.

    Raises:
        InputError: a shard's process died again and again, or the model's folder was changed meanwhile.
    """
    devices = devices[: max(1, len(shards))]
    tasks: list[Callable[[Shard], Done]]
    if runner == "local" and len(devices) == 1:
        encoder.model.to(devices[0])
        tasks = [lambda shard: _made(shard, lambda: (encoder, dataset))]
    elif encoder.folder is None:
        raise InputError("several processes each read the model from its folder: load it by Encoder.from_pretrained.")
    else:
        folders = encoder.folder.absolute(), dataset.path.absolute()
        threads = max(1, torch.get_num_threads() // len(devices)) if runner == "local" else None
        tasks = [ShardTask(*folders, encoder.fingerprint, encoder.bf16, str(device), threads) for device in devices]
    gpu = any(str(device) != "cpu" for device in devices)
    yield from run(tasks, shards, len(shards), "embed (shards)", runner, gpu)


@dataclass(frozen=True)
class ShardTask:
    """Makes shards in another process, which reads model and dataset once."""

    folder: Path
    dataset: Path
    fingerprint: str
    bf16: bool
    device: str
    """A device of torch, or a choice of `smar.model.device` between those that the process sees."""
    threads: int | None

    def __call__(self, shard: Shard) -> Done:
        """Make a shard, where it is not there."""
        if not (shard.path.parent / JOB_FILE).is_file():
            raise InputError(f"{shard.path.parent} is not the folder that `smar embed` began: it must be shared.")
        return _made(shard, self.opened)

    @lru_cache(maxsize=1)  # noqa: B019 - one model and dataset a process
    def opened(self) -> tuple[Encoder, Dataset]:
        """The model on its device, and the dataset."""
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        device = pick_device(self.device) if self.device in CHOICES else torch.device(self.device)
        encoder = Encoder.from_pretrained(self.folder, self.bf16, device)
        if encoder.fingerprint != self.fingerprint:
            raise InputError(f"{self.folder} was changed while it was read.")
        return encoder, Dataset.open(self.dataset)


def _made(shard: Shard, opened: Callable[[], tuple[Encoder, Dataset]]) -> Done:
    whole = _is_whole(shard.path)
    if not whole:
        write_shard(*opened(), shard)
    entry = ShardEntry(file=shard.path.name, rows=shard.part.stop - shard.part.start, xxh3=xxh3(shard.path))
    return Done(shard, entry, not whole)


def _is_whole(path: Path) -> bool:
    """Is the shard there and do its pages fit their checksums? One that was damaged since is made again."""
    try:
        pq.read_table(path, page_checksum_verification=True)
    except (FileNotFoundError, OSError, pa.ArrowException):
        return False
    return True


def write_shard(encoder: Encoder, dataset: Dataset, shard: Shard) -> None:
    """Encode the items of a shard into its file, which is there when it is whole."""
    items = dataset.items[shard.part]
    fields = text_columns(items, encoder.config.text_fields)
    vectors = list(encoder.encode_items(fields, dataset.images, dataset.image_row[shard.part]))
    columns = {
        "item_id": items["item_id"].cast(pa.string()),
        "text": fixed(np.concatenate([v.text for v in vectors])),
        "multimodal": fixed(np.concatenate([v.served for v in vectors])),
    }
    with atomic(shard.path, shared=True) as partial:
        pq.write_table(pa.table(columns), partial, compression="none", write_page_checksum=True)


def fixed(matrix: Floats) -> pa.FixedSizeListArray:
    """Float32 [n, k] as a column of fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel(), pa.float32()), matrix.shape[1])
