"""An index that changes while it is searched: an immutable version, its update log, and the delta in memory.

Every process that serves the index opens it for itself and calls `refresh` now and then: it looks at two small files
and at the others from outside, reads what is new in the log, and takes a new version where one was published.
`snapshot` is replaced in one assignment, so searches under way end on the one that they began with.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.search.items import Items, RefusedItems, fit
from smar.search.local.delta import Delta
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.updates import FIRST, OpenLog, UpdateLog
from smar.search.local.versions import CURRENT_FILE, Stamp, UnreadableIndex, current_version, file_stamp, locked
from smar.search.local.watch import WatchedFiles, folder_looks

DELTA_LIMIT = 20_000
"""Changed items that are scanned exactly beside the base."""
_DEAD_SHARE = 0.2
_REFUSED_SECONDS = 30.0
PATCH_LIMIT = 500_000
"""Changes of columns since the version was built, all read again when the index is opened."""


class Attempts:
    """When to read an index again that could not be read: once something was done about it, or after a while.

    Not at every look: to verify it takes reading a gigabyte or more.

    >>> attempts = Attempts(Path("index"))
    >>> attempts.due(), attempts.due()
    (True, False)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: object = None
        self._again = 0.0

    def due(self) -> bool:
        """Whether to try now; says yes once."""
        seen = file_stamp(self._folder / CURRENT_FILE), _version_looks(self._folder)
        if seen == self._seen and time.monotonic() < self._again:
            return False
        self._seen, self._again = seen, time.monotonic() + _REFUSED_SECONDS
        return True

    def succeeded(self) -> None:
        """The next one is due at once."""
        self._seen = None


def _version_looks(folder: Path) -> object:
    with contextlib.suppress(InputError):
        return folder_looks(current_version(folder))
    return None


class LastItem(InputError):
    """A deletion that would leave nothing."""


class UpdatableIndex:
    """An index folder open for searching and changing; safe to share between threads.

    >>> index = UpdatableIndex.open("index")
    >>> len(index.snapshot)
    300
    """

    def __init__(self, folder: StrPath, check: bool) -> None:
        folder = Path(folder)
        self.folder = folder
        self.unsafe: str | None = None
        """Why nothing may be read of `snapshot`: a file that it maps was changed in place. None when all is well."""
        self.problem: str | None = None
        """Why the last `refresh` failed, None when it did not."""
        self._refreshing = threading.Lock()
        self._attempts, self._refusal = Attempts(folder), ""
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
                path = current_version(self.folder)
                # before they are verified: what is changed meanwhile looks different afterwards
                files = WatchedFiles(EmbeddedIndex.files_of(path))
                base = EmbeddedIndex.open(path, check or last)
                _ = base.encoder  # loaded here: its files may go, too
                self._replay(base)
                break
            except InputError:
                # a version that was replaced and removed while it was being opened; anything else is damage
                if last or pointer is None or not self._moved(pointer):
                    raise
        self._pointer, self._files = pointer, files

    def _replay(self, base: EmbeddedIndex) -> None:
        """Serve a version with all of its updates."""
        log = UpdateLog(base.path)
        file = OpenLog(log.path)
        delta = Delta(base.segments[0], base.dim, file)
        stamp = log.stamp()
        end = log.recovered()
        for record in file.records(FIRST, end):
            delta.apply(record)
        self._base, self._delta = base, delta
        self._log, self._file, self._offset, self._stamp = log, file, end, stamp
        self.snapshot = base.with_segments(delta.segments())

    def _moved(self, before: Stamp | None) -> bool:
        seen = file_stamp(self.folder / CURRENT_FILE)
        return seen is not None and seen != before

    def refresh(self) -> bool:
        """Take in what other processes have written; returns whether `snapshot` is a new one.

        An older copy that was put in the folder's place is taken as well.

        Raises:
            UnreadableIndex: what was written is damaged; `snapshot` stays as it was, see `unsafe`.
        """
        with self._refreshing:
            try:
                new = self._refresh()
            except (InputError, OSError) as error:
                self.problem = self.unsafe or str(error)
                raise UnreadableIndex(self.problem) from error
            self.problem = None
            return new

    def _refresh(self) -> bool:
        changed, rewritten = self._files.changes()
        if rewritten is not None and self.unsafe is None:
            self.unsafe = f"{rewritten} was changed in place while it was served; it is read again once it is whole."
        if not changed and self.unsafe is None and not self._moved(self._pointer):
            try:
                return self._take_in()
            except InputError:  # a version that was replaced and removed since the line above, or another log
                if not self._moved(self._pointer):
                    self._attempt(lambda: self._replay(self._base))
                    return True
        self._attempt(self._load)
        self.unsafe = None
        return True

    def _attempt(self, read: Callable[[], None]) -> None:
        if not self._attempts.due():
            raise InputError(self._refusal)
        try:
            read()
        except InputError as error:
            self._refusal = str(error)
            raise
        self._attempts.succeeded()

    def _take_in(self) -> bool:
        stamp = self._log.stamp()
        if stamp == self._stamp:
            return False
        end = max(self._log.acknowledged(), self._offset)
        if not self._file.goes_on:
            raise InputError(f"{self._log.path} is not the one that was read.")
        for record in self._file.records(self._offset, end):
            self._delta.apply(record)
        changed, self._offset, self._stamp = end != self._offset, end, stamp
        if changed:
            self.snapshot = self._base.with_segments(self._delta.segments())
        return changed

    def upsert(self, items: Items) -> int:
        """Add items, replacing those of the same id; returns their number. Survives kill -9 once it has returned.

        Raises:
            RefusedItems: the items do not fit the index.
            UnreadableIndex: the index cannot be read. In either case nothing was written.
        """
        if items.payload.num_rows == 0:
            return 0
        with self._changing():
            self.refresh()
            table = items.as_table(self.snapshot.schema, self.snapshot.fingerprint, self.snapshot.dim)
            self._log.append("upsert", table)
        self._show_written()
        return int(table.num_rows)

    def check_writable(self) -> None:
        """Raise UnreadableIndex or OSError where a change could not be written now: write one that nobody reads."""
        with self._changing():
            self.refresh()
            self._log.rehearse()

    def patch(self, *tables: pa.Table) -> list[bool]:
        """Change columns of items; nothing is encoded. Survives kill -9 once it has returned.

            index.patch(pa.table({"item_id": ["a", "b"], "price": [3.5, None]}))

        Args:
            tables: `item_id` and the columns to change, null to take a value away. All are written, or none; an
                item may be in several of them.

        Returns:
            For each row of the tables, in their order, whether there is such an item; others are left out.

        Raises:
            RefusedItems: unknown columns or values, ids that are missing or double, columns whose words are searched.
            InputError: the index cannot be read. In either case nothing was written.
        """
        with self._changing():
            self.refresh()
            fitted = [self._fitted(table) for table in tables]
            row_of = self.snapshot.catalogue.row_of
            known = [[row_of(item_id) is not None for item_id in table["item_id"].to_pylist()] for table in fitted]
            rest = [table.filter(pa.array(mask, pa.bool_())) for table, mask in zip(fitted, known, strict=True)]
            if rest := [table for table in rest if table.num_rows]:
                self._log.append("patch", *rest)
        if rest:
            self._show_written()
        return [yes for mask in known for yes in mask]

    def _fitted(self, table: pa.Table) -> pa.Table:
        hybrid = self.snapshot.manifest.hybrid
        words = set() if hybrid is None else set(hybrid.fields)
        if read := sorted(words & set(table.column_names)):
            raise RefusedItems(
                f"the words of {', '.join(read)} are searched, so they cannot be changed alone; upsert the items."
            )
        return fit(table, self.snapshot.schema, whole=False)

    def delete(self, ids: Sequence[str]) -> int:
        """Remove items; returns how many there were. Ids that are not there are no error.

        Raises:
            LastItem: nothing would be left.
            UnreadableIndex: the index cannot be read. In either case nothing was written.
        """
        with self._changing():
            self.refresh()
            catalogue = self.snapshot.catalogue
            known = [item_id for item_id in dict.fromkeys(ids) if catalogue.row_of(item_id) is not None]
            if not known:
                return 0
            if len(known) == len(self.snapshot):
                raise LastItem("this would delete every item; an index keeps at least one. Remove its folder instead.")
            self._log.append("delete", pa.table({"item_id": pa.array(known, pa.string())}))
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
    def patched(self) -> int:
        """Changes of columns since the version was built."""
        return self._delta.patched

    @property
    def needs_compaction(self) -> bool:
        """Whether the changes have grown so far that searching through them, or reading them again, costs time."""
        delta = self._delta
        large = delta.count > DELTA_LIMIT or delta.patched > PATCH_LIMIT
        return large or delta.base_dead > _DEAD_SHARE * len(self._base)

    def compact(self) -> str:
        """Build a new version of base and updates, and serve it; returns its name.

        Searching and updating go on meanwhile; updates that arrive during the build are carried over.

        Raises:
            InputError: another process is compacting this index, or published a version meanwhile.
        """
        from smar.search.local.compact import compact

        name = compact(self.folder, self.frozen)
        self.refresh()
        return name

    def frozen(self) -> tuple[EmbeddedIndex, UpdateLog, int]:
        """Snapshot, log, and the byte up to which the log is in the snapshot; for the compaction."""
        with self._changing():
            self.refresh()
            return self.snapshot, self._log, self._offset
