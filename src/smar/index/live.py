"""An index that changes while it is searched: an immutable version, its update log, and the delta in memory.

Every process that serves the index opens it for itself and calls `refresh` now and then: it looks at two small files
(26 microseconds), reads what is new in the log, and takes a new version where one was published. `snapshot` is
replaced in one assignment, so searches under way end on the one that they began with.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from smar.errors import InputError
from smar.files import StrPath
from smar.index.delta import Delta, Items
from smar.index.embedded import EmbeddedIndex
from smar.index.updates import OpenLog, UpdateLog
from smar.index.versions import CURRENT_FILE, Stamp, current_version, file_stamp, locked

DELTA_LIMIT = 20_000
"""Changed items that are scanned exactly beside the base: 1 ms a query at 2 x 128 dimensions."""
_DEAD_SHARE = 0.2
_REFUSED_SECONDS = 30.0


class LastItem(InputError):
    """A deletion that would leave nothing."""


class UpdatableIndex:
    """An index folder open for searching and changing; safe to share between threads."""

    def __init__(self, folder: StrPath, check: bool) -> None:
        folder = Path(folder)
        self.folder = folder
        self._refreshing = threading.Lock()
        self._refused: tuple[Stamp | None, float, str] | None = None
        self._load(check)

    @classmethod
    def open(cls, folder: StrPath, check: bool = True) -> "UpdatableIndex":
        """Open the current version and its updates.

        Args:
            folder: what `smar index` made.
            check: as for `EmbeddedIndex.open`, of this version alone: every later one is verified when it is taken.

        Raises:
            InputError: a file is missing, truncated or damaged; the message names it.
        """
        return cls(folder, check)

    def _load(self, check: bool = True) -> None:
        for last in (False, True):
            pointer = file_stamp(self.folder / CURRENT_FILE)
            try:
                base = EmbeddedIndex.open(current_version(self.folder), check or last)
                _ = base.encoder  # loaded here: its files may go, too
                log = UpdateLog(base.path)
                file = OpenLog(log.path)
                delta = Delta(base.segments[0], base.dim, file)
                stamp = log.stamp()
                ack = log.acknowledged()
                for record in file.records(0, ack):
                    delta.apply(record)
                break
            except InputError:
                # a version that was replaced and removed while it was being opened; anything else is damage
                if last or pointer is None or not self._moved(pointer):
                    raise
        self._pointer, self._base, self._delta = pointer, base, delta
        self._log, self._file, self._offset, self._stamp = log, file, ack.length, stamp
        self.snapshot = base.with_segments(delta.segments())

    def _moved(self, before: Stamp | None) -> bool:
        seen = file_stamp(self.folder / CURRENT_FILE)
        return seen is not None and seen != before

    def refresh(self) -> bool:
        """Take in what other processes have written; returns whether `snapshot` is a new one.

        Raises:
            InputError: what was written is damaged; `snapshot` stays as it was.
        """
        with self._refreshing:
            if not self._moved(self._pointer):
                try:
                    return self._take_in()
                except InputError:  # a version that was replaced and removed since the line above, or a copied log
                    if not (self._moved(self._pointer) or self._file.replaced):
                        raise
            self._take_version()
            return True

    def _take_version(self) -> None:
        """As `_load`; one that was refused is not read again at every look, a gigabyte or more four times a second."""
        pointer = file_stamp(self.folder / CURRENT_FILE)
        if self._refused is not None and self._refused[0] == pointer and time.monotonic() < self._refused[1]:
            raise InputError(self._refused[2])
        try:
            self._load()
        except InputError as error:
            self._refused = pointer, time.monotonic() + _REFUSED_SECONDS, str(error)
            raise
        self._refused = None

    def _take_in(self) -> bool:
        stamp = self._log.stamp()
        if stamp == self._stamp:
            return False
        ack = self._log.acknowledged()
        for record in self._file.records(self._offset, ack):
            self._delta.apply(record)
        changed, self._offset, self._stamp = ack.length != self._offset, ack.length, stamp
        if changed:
            self.snapshot = self._base.with_segments(self._delta.segments())
        return changed

    def upsert(self, items: Items) -> int:
        """Add items, replacing those of the same id; returns their number. Survives kill -9 once it has returned.

        Raises:
            RefusedItems: the items do not fit the index.
            InputError: the index cannot be read. In either case nothing was written.
        """
        if items.payload.num_rows == 0:
            return 0
        with self._changing():
            self.refresh()
            table = items.as_table(self.snapshot.schema, self.snapshot.fingerprint, self.snapshot.dim)
            self._log.append(table, upsert=True)
        self._show_written()
        return int(table.num_rows)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove items; returns how many there were. Ids that are not there are no error.

        Raises:
            LastItem: nothing would be left.
            InputError: the index cannot be read. In either case nothing was written.
        """
        with self._changing():
            self.refresh()
            catalogue = self.snapshot.catalogue
            known = [item_id for item_id in dict.fromkeys(ids) if catalogue.row_of(item_id) is not None]
            if not known:
                return 0
            if len(known) == len(self.snapshot):
                raise LastItem("this would delete every item; an index keeps at least one. Remove its folder instead.")
            self._log.append(pa.table({"item_id": pa.array(known, pa.string())}), upsert=False)
        self._show_written()
        return len(known)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        if self._pointer is None:
            raise InputError(f"{self.folder} is one version of an index; open {self.folder.parent} to change it.")
        with locked(self.folder):
            yield

    def _show_written(self) -> None:
        """Show what was written; where that cannot be read back now, it is written all the same."""
        with contextlib.suppress(InputError, OSError):
            self.refresh()

    @property
    def changed(self) -> int:
        """Items upserted since the version was built, each form of an item counted."""
        return self._delta.count

    @property
    def needs_compaction(self) -> bool:
        """Whether the changes have grown so far that searching through them costs time."""
        return self._delta.count > DELTA_LIMIT or self._delta.base_dead > _DEAD_SHARE * len(self._base)

    def compact(self) -> str:
        """Build a new version of base and updates, and serve it; returns its name.

        Searching and updating go on meanwhile; updates that arrive during the build are carried over.

        Raises:
            InputError: another process is compacting this index, or published a version meanwhile.
        """
        from smar.index.compact import compact

        name = compact(self)
        self.refresh()
        return name

    def frozen(self) -> tuple[EmbeddedIndex, UpdateLog, int, int]:
        """Snapshot, log, and the bytes and records of the log that are in the snapshot; for the compaction."""
        with self._changing():
            self.refresh()
            return self.snapshot, self._log, self._offset, self._log.acknowledged().records
