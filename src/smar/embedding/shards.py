"""The shards of an embedding, encoded by one device or by several at once, each in a process of its own."""

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from smar.core.errors import InputError
from smar.core.files import atomic
from smar.core.processes import end_with_parent
from smar.core.progress import console
from smar.data.dataset import Dataset, text_columns
from smar.model.encoder import Encoder, Floats


@dataclass(frozen=True)
class Shard:
    """Items of the dataset, and the file that their vectors go to."""

    part: slice
    path: Path


def write_shards(
    encoder: Encoder, dataset: Dataset, shards: Sequence[Shard], devices: Sequence[torch.device]
) -> Iterator[Shard]:
    """Write each shard and yield it.

    Raises:
        InputError: a process died, or the model's folder was changed meanwhile.
    """
    devices = devices[: len(shards)]
    if len(devices) <= 1:
        for device in devices:
            encoder.model.to(device)
        for shard in shards:
            write_shard(encoder, dataset, shard)
            yield shard
        return
    if encoder.folder is None:
        raise InputError("several devices each read the model from its folder: load it by Encoder.from_pretrained.")
    context = get_context("spawn")
    free = context.SimpleQueue()
    for device in devices:
        free.put(str(device))
    threads = max(1, torch.get_num_threads() // len(devices))
    job = (encoder.folder, encoder.fingerprint, encoder.bf16, dataset.path, threads)
    with ProcessPoolExecutor(len(devices), context, _begin, (free, *job)) as pool:
        try:
            for done in as_completed([pool.submit(_work, shard) for shard in shards]):
                yield done.result()
        except BrokenProcessPool:
            raise InputError(
                "a process that encodes died, perhaps for lack of memory. The same command goes on where it stopped, "
                "with --device cpu in one process."
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


_state: tuple[Encoder, Dataset] | None = None


def _begin(free: "SimpleQueue[str]", folder: Path, fingerprint: str, bf16: bool, dataset: Path, threads: int) -> None:
    """A process takes a device for itself; it leaves Ctrl-C to its parent, and ends with it."""
    global _state
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    console.quiet = True
    torch.set_num_threads(threads)
    encoder = Encoder.from_pretrained(folder, bf16, torch.device(free.get()))
    if encoder.fingerprint != fingerprint:
        raise InputError(f"{folder} was changed while it was read.")
    _state = encoder, Dataset.open(dataset)


def _work(shard: Shard) -> Shard:
    assert _state is not None
    write_shard(*_state, shard)
    return shard


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
    with atomic(shard.path) as partial:
        pq.write_table(pa.table(columns), partial, compression="none", write_page_checksum=True)


def fixed(matrix: Floats) -> pa.FixedSizeListArray:
    """Float32 [n, k] as a column of fixed-size lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel(), pa.float32()), matrix.shape[1])
