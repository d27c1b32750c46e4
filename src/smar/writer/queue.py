"""Changes in the order in which they came: all that wait are encoded together, logged once, then answered."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from smar.errors import InputError
from smar.index.delta import Items, RefusedItems
from smar.index.live import LastItem, UpdatableIndex
from smar.writer.columns import RefusedItem
from smar.writer.encode import Prepared
from smar.writer.threads import OneThread

MAX_BATCH = 64
logger = logging.getLogger("smar.writer")
EncodeItems = Callable[[Sequence[Prepared]], Items]


@dataclass(frozen=True, slots=True)
class Change:
    """An item to write, or with None one to delete; `done` gets whether there was such an item before."""

    item_id: str
    item: Prepared | None
    done: "asyncio.Future[bool]"


@dataclass(slots=True)
class WriteCounts:
    """What was written since the process started."""

    items: int = 0
    deleted: int = 0
    batches: int = 0
    """Records of items in the log."""
    largest_batch: int = 0
    failed: int = 0
    """Changes that could not be written."""


@dataclass(slots=True)
class ChangeQueue:
    """One consumer, `run`; whoever puts a change waits for it to be durable.

    `thread` is the only one that writes to `index`.
    """

    index: UpdatableIndex
    encode: EncodeItems
    written: Callable[[], None]
    """Called on the event loop after every batch."""
    counts: WriteCounts = field(default_factory=WriteCounts)
    thread: OneThread = field(default_factory=lambda: OneThread("writer"))
    _waiting: "asyncio.Queue[Change]" = field(default_factory=asyncio.Queue)

    @property
    def pending(self) -> int:
        """Changes that no batch has taken yet."""
        return self._waiting.qsize()

    async def put(self, item_id: str, item: Prepared | None) -> bool:
        """Write (or with None delete) an item; returns once it survives kill -9, with whether there was one before.

        Raises:
            RefusedItem, RefusedItems: it does not fit the index; OtherModel when that is of another model now.
            LastItem: it is the last item and to be deleted.
            OSError: it cannot be written, or the index cannot be read.
        """
        change = Change(item_id, item, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(change)
        return await change.done

    async def run(self) -> None:
        """Take and write batches for ever."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < MAX_BATCH and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            for part in split(batch):
                try:
                    outcomes = await loop.run_in_executor(self.thread, self._write, part)
                except Exception as error:  # no thread can be started: whoever waits is told, and the next one served
                    outcomes = [error] * len(part)
                for change, outcome in zip(part, outcomes, strict=True):
                    if change.done.done():  # whoever asked has gone
                        continue
                    if isinstance(outcome, BaseException):
                        change.done.set_exception(outcome)
                    else:
                        change.done.set_result(outcome)
            self.written()

    def _write(self, part: Sequence[Change]) -> list[bool | BaseException]:
        """Write changes that go together; when that fails each alone, so that one bad item harms no other."""
        try:
            items = [change.item for change in part if change.item is not None]
            return self._upsert(items) if items else self._delete(part[0].item_id)
        except Exception as error:
            if len(part) > 1:
                logger.warning("%d items could not be written together, each is tried alone: %s", len(part), error)
                return [outcome for change in part for outcome in self._write([change])]
            self.counts.failed += 1
            if isinstance(error, InputError) and not isinstance(error, RefusedItem | RefusedItems | LastItem):
                return [OSError(str(error))]  # the index cannot be read: no fault of what is to be written
            return [error]

    def _upsert(self, items: Sequence[Prepared]) -> "list[bool | BaseException]":
        self.index.refresh()
        encoded = self.encode(items)
        catalogue = self.index.snapshot.catalogue
        before: list[bool | BaseException] = [catalogue.row_of(item.item_id) is not None for item in items]
        self.index.upsert(encoded)
        self.counts.items += len(items)
        self.counts.batches += 1
        self.counts.largest_batch = max(self.counts.largest_batch, len(items))
        return before

    def _delete(self, item_id: str) -> "list[bool | BaseException]":
        found = bool(self.index.delete([item_id]))
        self.counts.deleted += found
        return [found]


def split(batch: Sequence[Change]) -> Iterator[list[Change]]:
    """Parts that may be written at once, in order: items of different ids, or one deletion."""
    part: list[Change] = []
    seen: set[str] = set()
    for change in batch:
        if part and (change.item is None or change.item_id in seen):
            yield part
            part, seen = [], set()
        if change.item is None:
            yield [change]
            continue
        part.append(change)
        seen.add(change.item_id)
    if part:
        yield part
