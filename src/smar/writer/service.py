"""The model worker: an index, its model, the queue of changes and the compaction behind them."""

import asyncio
import contextlib
import logging
import os
import resource
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from smar.data.images import ImageOptions
from smar.embedding.update import open_for_update
from smar.index.live import DELTA_LIMIT, UpdatableIndex
from smar.model.encoder import Encoder, Floats
from smar.model.run import run_settings
from smar.writer.columns import check_columns
from smar.writer.compaction import Compactor
from smar.writer.encode import Prepared, decode_searched, encode, prepare_item
from smar.writer.metrics import EVERY_SECONDS, Figures
from smar.writer.queue import ChangeQueue
from smar.writer.threads import OneThread
from smar.writer.upload import Upload

T = TypeVar("T")
logger = logging.getLogger("smar.writer")


@dataclass(frozen=True, slots=True)
class Written:
    """What became of an item."""

    item_id: str
    image_status: str
    created: bool


class ModelWorker:
    """Encodes and writes; made on a running event loop."""

    def __init__(
        self,
        index: UpdatableIndex,
        encoder: Encoder,
        options: ImageOptions,
        pictures: int,
        compact_after: int = DELTA_LIMIT,
        retry: float = 10.0,
        alive: Callable[[], None] = lambda: None,
        html: str = "decode",
    ) -> None:
        self._text = () if html == "keep" else encoder.config.text_fields
        self.index, self.encoder, self.options, self.pictures = index, encoder, options, pictures
        self._compact_after, self._alive = compact_after, alive
        self._started, self._figures = time.time(), Figures()
        self.eyes = OneThread("pictures")  # one: Pillow's limits are global, and decoding takes memory
        self.compactor = Compactor(str(index.folder), self._needs_compaction, retry)
        self.queue = ChangeQueue(
            index,
            lambda items: encode(encoder, index.snapshot.schema, items, options.size),
            self.compactor.wake,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Write, compact and count while the application runs."""
        works = (self.queue.run(), self.compactor.run(), _regularly(self._count), _regularly(self._live))
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def check(self, item_id: str, upload: Upload) -> Prepared:
        """Everything that can be wrong with one item; raises RefusedItem."""
        row = check_columns(item_id, upload.columns, self.index.snapshot.schema, self._text)
        return await self._look(lambda: prepare_item(row, upload.pictures, self.options))

    async def write(self, item: Prepared) -> Written:
        """Write a checked item; returns once it is durable. Raises what `ChangeQueue.put` does."""
        existed = await self.queue.put(item.item_id, item)
        return Written(item.item_id, item.row["image_status"], not existed)

    async def delete(self, item_id: str) -> bool:
        """Delete an item; returns whether there was one. Raises what `ChangeQueue.put` does."""
        return await self.queue.put(item_id, None)

    async def encode_picture(self, data: bytes) -> Floats:
        """S_i of one encoded picture, a unit vector [k].

        Raises:
            RefusedItem: the picture cannot be used.
            InputError: the model reads no pictures.
        """

        def vector() -> Floats:
            packed = decode_searched(data, self.options).packed
            assert packed is not None
            return self.encoder.encode_pictures(np.stack([packed])).reshape(-1)

        return await self._look(vector)

    async def _look(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.eyes, work)

    async def _needs_compaction(self) -> bool:
        await asyncio.get_running_loop().run_in_executor(self.queue.thread, self.index.refresh)
        return self.index.needs_compaction or self.index.changed > self._compact_after

    def _count(self) -> None:
        counts, state = self.queue.counts, self.compactor.state
        self._figures.tell(counts, state, self.queue.pending, self.index.changed, resident_bytes())

    def _live(self) -> None:
        """Tell that the loop turns and that neither thread has been stuck in one job since the last sign."""
        threads = (self.eyes, self.queue.thread)
        if all(thread.gets_on() for thread in threads):
            for thread in threads:
                thread.mark()
            self._alive()

    def stats(self) -> dict[str, Any]:
        """Figures for people and monitoring."""
        return {
            "fingerprint": self.encoder.fingerprint,
            "version": self.index.snapshot.path.name,
            "items": len(self.index.snapshot),
            "changed_since_version": self.index.changed,
            "written": asdict(self.queue.counts),
            "pending": self.queue.pending,
            "compaction": asdict(self.compactor.state),
            "memory": {
                "resident_bytes": resident_bytes(),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            },
            "process": {"pid": os.getpid(), "seconds": round(time.time() - self._started, 1)},
        }


async def _regularly(work: Callable[[], None]) -> None:
    """Do it every second, for ever; a failure, such as a full disk, is logged when it begins."""
    failed = False
    while True:
        try:
            work()
            failed = False
        except Exception:
            if not failed:
                logger.exception("the model worker cannot tell how it is")
            failed = True
        await asyncio.sleep(EVERY_SECONDS)


def resident_bytes() -> int | None:
    """Memory of this process; None where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):  # not Linux
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_worker(
    folder: Path,
    run: Path,
    check: bool = True,
    compact_after: int = DELTA_LIMIT,
    retry: float = 10.0,
    alive: Callable[[], None] = lambda: None,
) -> Callable[[], ModelWorker]:
    """Load index and model; what is returned makes the worker, once the event loop runs.

    `alive` is called every second in which loop and threads of the worker get on.

    Raises:
        InputError: one of them is damaged, or they do not belong together.
    """
    index, encoder = open_for_update(folder, run, check)
    settings = run_settings(run).data
    options = ImageOptions.of(settings)
    several, html = settings.pictures_per_item, settings.html
    return lambda: ModelWorker(index, encoder, options, several, compact_after, retry, alive, html)
