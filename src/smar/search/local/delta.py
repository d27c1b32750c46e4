"""What changed since a version was built, in memory: new and replaced items, and which rows are gone.

The log is replayed into it. Vectors lie in a buffer that only grows, so that an index opened earlier keeps seeing its
own part of it; everything else that a search reads is copied when a new segment is made. Pictures stay in the log:
each process would hold them else.
"""

from itertools import groupby
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from smar.search.column_values import Mask, one_array
from smar.search.items import PICTURE
from smar.search.local.growing import GrowingWords
from smar.search.local.item_store import Catalogue
from smar.search.local.patched import Overlay
from smar.search.local.ready import FreshJson
from smar.search.local.segment import Segment
from smar.search.local.updates import OpenLog, Places, Record
from smar.search.local.vectors import VectorStore
from smar.search.local.word_index import WordIndex
from smar.search.ranked import Rows, Vectors

T = TypeVar("T", bound=np.generic)
_MANY = 200  # from so many ids on, one hash table over all ids beats a binary search for each


class _Changed(Catalogue):
    """The catalogue of a delta: ids by a dictionary, pictures where the log holds them."""

    def __init__(
        self, table: pa.Table, log: OpenLog, places: Places, row_of: dict[str, int], json: dict[int, bytes]
    ) -> None:
        super().__init__(table, None, FreshJson(table, places[:, 1] > 0, json))
        self._log, self._rows = log, row_of
        self._offset, self._length = places.T

    def row_of(self, item_id: str) -> int | None:
        """Row of the item's latest form."""
        return self._rows.get(item_id)

    def picture(self, row: int) -> bytes | None:
        """The encoded picture of an item, None when it has none; InputError when the log has lost it."""
        return self._log.bytes_at(int(self._offset[row]), int(self._length[row])) if self.has_picture(row) else None


class Delta:
    """Changes on top of `base`, applied record by record; `log` is where their pictures lie."""

    def __init__(self, base: Segment, dim: int, log: OpenLog) -> None:
        self._base, self._dim, self._log = base, dim, log
        self._base_dead: Mask = np.zeros(len(base.store), np.bool_)
        self._vectors: Vectors = np.empty((0, 2 * dim), np.float32)
        self._places: Places = np.empty((0, 2), np.int64)
        self._dead: Mask = np.zeros(0, np.bool_)
        self._table = base.catalogue.table.schema.empty_table()
        self._new: list[pa.RecordBatch] = []
        self._rows: dict[str, int] = {}
        self._json: dict[int, bytes] = {}  # rows are never reused, so what was encoded once stays right
        self._over_base, self._over_new = Overlay(), Overlay()
        self._patches: list[pa.RecordBatch] = []
        self.patched = 0
        self._words = GrowingWords(base.words) if isinstance(base.words, WordIndex) else None
        self.count = 0

    def apply(self, record: Record) -> None:
        """One record of the log, which is held until `segments` copies its columns."""
        if record.op == "patch":
            self._patches.append(record.batch)
            return
        self._apply_patches()  # they are of the items as they were before
        batch, schema = record.batch, self._table.schema
        ids = batch.column("item_id").to_pylist()
        self._kill(batch.column("item_id"), ids)
        if record.op == "delete":
            return
        start, self.count = self.count, self.count + len(ids)
        self._grow()
        for at, name in enumerate(("__multimodal", "__text")):
            block = batch.column(name).flatten().to_numpy().reshape(-1, self._dim)
            self._vectors[start : self.count, at * self._dim : (at + 1) * self._dim] = block
        self._places[start : self.count] = record.places(f"__{PICTURE}")
        self._rows.update(zip(ids, range(start, self.count), strict=True))
        # logs may say of a column that it has no nulls; the index's own columns may have some
        self._new.append(pa.RecordBatch.from_arrays([batch.column(name) for name in schema.names], schema=schema))

    def _kill(self, column: pa.StringArray, ids: list[str]) -> None:
        for item_id in ids:
            if (row := self._rows.pop(item_id, None)) is not None:
                self._dead[row] = True
        rows = self._base_rows(column, ids)
        self._base_dead[rows[rows >= 0]] = True

    def _base_rows(self, column: pa.StringArray, ids: list[str]) -> Rows:
        """Row of each item in the base, dead or alive, int64 [n]; -1 for none."""
        catalogue = self._base.catalogue
        if len(ids) < _MANY:
            places = (catalogue.row_of(item_id) for item_id in ids)
            return np.fromiter((-1 if row is None else row for row in places), np.int64, len(ids))
        found = pc.index_in(column, value_set=one_array(catalogue.table["item_id"]))
        rows: Rows = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return rows

    def _apply_patches(self) -> None:
        """What has come since the last time: neighbours that change the same columns together."""
        for _, alike in groupby(self._patches, key=lambda batch: batch.schema):
            table = pa.Table.from_batches(list(alike))
            self.patched += table.num_rows
            column = one_array(table["item_id"])
            ids = column.to_pylist()
            new = np.fromiter((self._rows.get(item_id, -1) for item_id in ids), np.int64, len(ids))
            base = np.where(new < 0, self._base_rows(column, ids), -1)
            for overlay, rows in ((self._over_base, base), (self._over_new, new)):
                at = np.flatnonzero(rows >= 0)
                if len(at):  # `take` copies them out of the log
                    names = [name for name in table.column_names if name != "item_id"]
                    overlay.add(rows[at], {name: one_array(table[name]).take(pa.array(at)) for name in names})
        self._patches = []

    def _grow(self) -> None:
        if self.count > len(self._vectors):
            rows = max(1024, 2 * self.count)
            self._vectors, self._places = _longer(self._vectors, rows), _longer(self._places, rows)
            self._dead = _longer(self._dead, rows)

    @property
    def base_dead(self) -> int:
        """How many rows of the base are deleted or replaced."""
        return int(self._base_dead.sum())

    def segments(self) -> list[Segment]:
        """The base without its dead rows, and the changes as a segment of their own when there are any."""
        self._apply_patches()
        catalogue = self._base.catalogue
        if changes := self._over_base.view():
            catalogue = catalogue.patched(changes)
        base = Segment(self._base.store, catalogue, dead=self._base_dead.copy(), words=self._base.words)
        if self.count == 0:
            return [base]
        if self._new:
            new, self._new = pa.Table.from_batches(self._new), []
            if self._words is not None:
                self._words.add(new)
            self._table = pa.concat_tables([self._table, new]).combine_chunks()  # two chunks at least: it copies
        changed: Catalogue = _Changed(self._table, self._log, self._places[: self.count], dict(self._rows), self._json)
        if changes := self._over_new.view():
            changed = changed.patched(changes)
        store = VectorStore(None, self._vectors[: self.count], None)
        words = None if self._words is None else self._words.view()
        return [base, Segment(store, changed, len(self._base.store), self._dead[: self.count].copy(), words)]


def _longer(array: npt.NDArray[T], rows: int) -> npt.NDArray[T]:
    """A copy of `rows` rows; memory of those to come is not taken before they are written."""
    grown = np.zeros((rows, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
