"""Changes in the order in which they came: all that wait are encoded together, logged together, then answered."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from smar.core.errors import InputError
from smar.embedding.kept import Words, change_columns
from smar.search.items import Items, RefusedItems
from smar.search.local import LastItem, UnreadableIndex, UpdatableIndex
from smar.serving.writer.encode_item import Kept, Prepared
from smar.serving.writer.item_check import RefusedItem
from smar.serving.writer.one_thread import OneThread

MAX_BATCH = 512
MAX_PICTURED = 64
"""Items with pictures of a batch, which take most of its memory and time."""
_TOLD = RefusedItem | RefusedItems | LastItem | UnreadableIndex
logger = logging.getLogger("smar.serving.writer")
EncodeItems = Callable[[Sequence[Prepared]], Items]
Work = Callable[[Sequence["Change"]], None]


@dataclass(frozen=True, slots=True)
class Change:
    """An item to write, columns to change, or with None an item to delete.

    `done` gets whether there was such an item before.
    """

    item_id: str
    item: Prepared | Kept | None
    done: "asyncio.Future[bool]"


@dataclass(slots=True)
class WriteCounts:
    """What was written since the process started."""

    items: int = 0
    patched: int = 0
    """Items of which columns were changed."""
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
    words: Words
    """What becomes of items whose words change and whose pictures stay."""
    written: Callable[[], None]
    """Called on the event loop after every batch."""
    failing: bool = False
    """Whether the last change could not be written, whoever it came from."""
    counts: WriteCounts = field(default_factory=WriteCounts)
    thread: OneThread = field(default_factory=lambda: OneThread("writer"))
    _waiting: "asyncio.Queue[Change]" = field(default_factory=asyncio.Queue)

    @property
    def pending(self) -> int:
        """Changes that no batch has taken yet."""
        return self._waiting.qsize()

    async def put(self, item_id: str, item: Prepared | Kept | None) -> bool:
        """Write, change (`Kept`) or delete (None) an item; returns once that survives kill -9.

        The value is whether there was such an item before; where there was none, nothing is changed or deleted.

        Raises:
            RefusedItem, RefusedItems: it does not fit the index; OtherModel when that is of another model now.
            LastItem: it is the last item and to be deleted.
            OSError: it cannot be written; UnreadableIndex: the index cannot be read now.
        """
        change = Change(item_id, item, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(change)
        return await change.done

    async def run(self) -> None:
        """Take and write batches for ever."""
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            pictured = int(_pictured(batch[0]))
            while len(batch) < MAX_BATCH and pictured < MAX_PICTURED and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
                pictured += _pictured(batch[-1])
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
        """Write changes of different items."""
        outcomes: dict[str, bool | BaseException] = {}
        for kind, work in ((Prepared, self._upsert), (Kept, self._patch), (NoneType, self._delete)):
            outcomes |= self._tried([change for change in part if isinstance(change.item, kind)], work)
        return [outcomes[change.item_id] for change in part]

    def _tried(self, alike: Sequence[Change], work: Work) -> dict[str, bool | BaseException]:
        """Write changes of a kind together; when that fails each alone, so that one bad item harms no other."""
        if not alike:
            return {}
        try:
            self.index.refresh()
            row_of = self.index.snapshot.catalogue.row_of
            before: dict[str, bool | BaseException] = {
                change.item_id: row_of(change.item_id) is not None for change in alike
            }
            work([change for change in alike if before[change.item_id] or isinstance(change.item, Prepared)])
            self.failing = False
            return before
        except Exception as error:
            if len(alike) > 1:
                logger.warning("%d changes could not be written together, each is tried alone: %s", len(alike), error)
                return {name: said for change in alike for name, said in self._tried([change], work).items()}
            self.counts.failed += 1
            self.failing = self.failing or isinstance(error, OSError)
            # an index that cannot be written is no fault of what is to be written
            theirs = isinstance(error, _TOLD) or not isinstance(error, InputError)
            return {alike[0].item_id: error if theirs else OSError(str(error))}

    def _upsert(self, changes: Sequence[Change]) -> None:
        items = [change.item for change in changes if isinstance(change.item, Prepared)]
        self._count(self.index.upsert(self.encode(items)))
        self.counts.items += len(items)

    def _delete(self, changes: Sequence[Change]) -> None:
        self.counts.deleted += self.index.delete([change.item_id for change in changes])

    def _patch(self, changes: Sequence[Change]) -> None:
        of_item: dict[str, dict[str, Any]] = {}
        for change in changes:
            if isinstance(change.item, Kept):  # the later of two values of a column counts
                of_item[change.item_id] = of_item.get(change.item_id, {}) | change.item.row
        if of_item:
            self._count(change_columns(self.index, list(of_item.values()), self.words))
        self.counts.patched += len(changes)

    def _count(self, encoded: int) -> None:
        self.counts.batches += encoded > 0
        self.counts.largest_batch = max(self.counts.largest_batch, encoded)


def _pictured(change: Change) -> bool:
    return isinstance(change.item, Prepared) and bool(change.item.packed)


def split(batch: Sequence[Change]) -> Iterator[list[Change]]:
    """Parts that may be written at once, in order: each id once in a part, or several times to change its columns."""
    part: list[Change] = []
    kept: dict[str, bool] = {}
    for change in batch:
        if not kept.get(change.item_id, True) or (change.item_id in kept and not isinstance(change.item, Kept)):
            yield part
            part, kept = [], {}
        part.append(change)
        kept[change.item_id] = isinstance(change.item, Kept)
    if part:
        yield part
