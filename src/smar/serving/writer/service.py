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

from smar.core.errors import InputError
from smar.core.processes import resident_bytes
from smar.data.images import ImageOptions
from smar.data.isolated import IsolatedDecoder
from smar.embedding.kept import words_of
from smar.embedding.update import open_for_update
from smar.model.encoder import Encoder, Floats
from smar.model.run_folder import run_settings
from smar.search.local import DELTA_LIMIT, UpdatableIndex
from smar.serving.writer.compaction import Compactor
from smar.serving.writer.encode_item import Decode, Kept, Prepared, decode_searched, encode, prepare_item
from smar.serving.writer.figures import EVERY_SECONDS, Figures
from smar.serving.writer.item_check import RefusedItem, check_changes, check_columns, check_shown
from smar.serving.writer.one_thread import OneThread
from smar.serving.writer.queue import ChangeQueue
from smar.serving.writer.upload import Upload, not_too_many

T = TypeVar("T")
logger = logging.getLogger("smar.serving.writer")
_NICE = 5
"""Pictures of anybody's are decoded when nothing else wants the processor."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of an item."""

    item_id: str
    image_status: str
    created: bool


class Lane:
    """Pictures of one kind, one after the other: a thread, and a process that decodes for it, of niceness `nice`.

    Changes and searches have one each, so that none of them waits for the other.
    """

    def __init__(self, name: str, nice: int = 0) -> None:
        self.thread, self._decoder = OneThread(name), IsolatedDecoder(nice)

    async def do(self, work: Callable[[Decode], T]) -> T:
        """Run `work` with a way to decode."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, work, self._decoder.decode)

    def close(self) -> None:
        """End what is under way."""
        self._decoder.close()


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
        self.changes, self.searches = Lane("pictures of changes"), Lane("pictures of searches", _NICE)
        self.compactor = Compactor(str(index.folder), self._needs_compaction, retry)
        self.queue = ChangeQueue(
            index,
            lambda items: encode(encoder, index.snapshot.schema, items, options.size),
            words_of(encoder),
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
            self.changes.close()
            self.searches.close()

    async def check(self, item_id: str, upload: Upload) -> Prepared | Kept:
        """Everything that can be wrong with one item; raises RefusedItem."""
        if (found := self.check_row(item_id, upload)) is not None:
            return found
        row = self._row(item_id, upload)
        return await self.changes.do(lambda decode: prepare_item(row, upload.pictures, self.options, decode))

    def check_row(self, item_id: str, upload: Upload) -> Prepared | Kept | None:
        """As `check`, for an item without a picture to decode; None where there is one. Raises RefusedItem."""
        if upload.picture is not None or (upload.shown and not upload.pictures and self._lacks_picture(item_id)):
            return Kept(self._shown(item_id, upload))
        return None if upload.pictures else prepare_item(self._row(item_id, upload), (), self.options)

    def _lacks_picture(self, item_id: str) -> bool:
        catalogue = self.index.snapshot.catalogue
        place = catalogue.row_of(item_id)
        return place is not None and not catalogue.has_picture(place)

    def _row(self, item_id: str, upload: Upload) -> dict[str, Any]:
        if upload.shown:
            row = self._shown(item_id, upload)
            row.pop("image_status", None)
            return row
        return check_columns(item_id, upload.columns, self.index.snapshot.schema, self._text)

    def _shown(self, item_id: str, upload: Upload) -> dict[str, Any]:
        index = self.index.snapshot
        return check_shown(item_id, upload.columns, upload.picture, index.catalogue, index.schema, self._text)

    def check_upload(self, upload: Upload) -> Upload:
        """The upload; raises RefusedItem when it has more pictures than are encoded."""
        return not_too_many(upload, self.pictures)

    def check_patch(self, item_id: str, columns: dict[str, Any]) -> Kept:
        """Everything that can be wrong with changes of an item's columns; raises RefusedItem."""
        if "picture" in columns and "picture" not in self.index.snapshot.schema.names:
            raise RefusedItem("unknown_column", "a picture is encoded with its item's words; PUT the whole item.")
        return Kept(check_changes(item_id, columns, self.index.snapshot.schema, self._text))

    async def write(self, item_id: str, item: Prepared | Kept) -> Written:
        """Write a checked item; returns once it is durable.

        Raises:
            RefusedItem: its picture is to stay, and it is not there; or what `ChangeQueue.put` raises.
        """
        existed = await self.queue.put(item_id, item)
        if isinstance(item, Kept) and not existed:
            raise RefusedItem("invalid_item", f"there is no item {item_id[:100]!r} whose picture could stay; send it.")
        return Written(item_id, item.row["image_status"], not existed)

    async def patch(self, item_id: str, changes: Kept) -> bool:
        """Change columns of an item; returns, once that is durable, whether there is one. Raises as `write` does."""
        return await self.queue.put(item_id, changes)

    async def delete(self, item_id: str) -> bool:
        """Delete an item; returns whether there was one. Raises what `ChangeQueue.put` does."""
        return await self.queue.put(item_id, None)

    async def unwritable(self) -> str | None:
        """Why nothing can be written now, None when a change can be."""
        try:
            await asyncio.to_thread(self.index.refresh)
            if self.queue.failing:
                await asyncio.to_thread(self.index.check_writable)
                self.queue.failing = False
        except (InputError, OSError) as error:
            return str(error)
        return None

    async def encode_picture(self, data: bytes) -> Floats:
        """S_i of one encoded picture, a unit vector [k].

        Raises:
            RefusedItem: the picture cannot be used.
            InputError: the model reads no pictures.
        """

        def vector(decode: Decode) -> Floats:
            packed = decode_searched(data, self.options, decode).packed
            assert packed is not None
            return self.encoder.encode_pictures(np.stack([packed])).reshape(-1)

        return await self.searches.do(vector)

    async def _needs_compaction(self) -> bool:
        await asyncio.get_running_loop().run_in_executor(self.queue.thread, self.index.refresh)
        return self.index.needs_compaction or self.index.changed > self._compact_after

    def _count(self) -> None:
        counts, state = self.queue.counts, self.compactor.state
        self._figures.tell(counts, state, self.queue.pending, self.index.changed, resident_bytes())

    def _live(self) -> None:
        """Tell that the loop turns and that no thread has been stuck in one job since the last sign."""
        threads = (self.changes.thread, self.searches.thread, self.queue.thread)
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


def open_worker(
    folder: Path,
    run: Path,
    check: bool = True,
    compact_after: int = DELTA_LIMIT,
    retry: float = 10.0,
    alive: Callable[[], None] = lambda: None,
    device: str = "auto",
) -> Callable[[], ModelWorker]:
    """Load index and model; what is returned makes the worker, once the event loop runs.

    `alive` is called every second in which loop and threads of the worker get on.

    Raises:
        InputError: one of them is damaged, or they do not belong together.
    """
    index, encoder = open_for_update(folder, run, check, device)
    settings = run_settings(run).data
    options = ImageOptions.of(settings)
    several, html = settings.pictures_per_item, settings.html
    return lambda: ModelWorker(index, encoder, options, several, compact_after, retry, alive, html)
