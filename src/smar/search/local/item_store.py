"""The items behind the vectors: their columns, found by row or id, and their pictures, read in place."""

import copy
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from smar.core.errors import InputError
from smar.search.column_values import Columns, Mask, one_array
from smar.search.embeddings import INTERNAL_COLUMNS
from smar.search.local.patched import Changes, replaced, touched
from smar.search.local.ready import FreshJson, Ready, Rows, map_file
from smar.search.local.versions import MADE_BY

_LOOKED = 16_384  # rows at a time, where few may match a filter
_MAGIC = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
)


def content_type(picture: bytes) -> str:
    """Media type by the first bytes; anything unknown is served as opaque bytes, never guessed."""
    if picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _MAGIC if picture.startswith(magic)), "application/octet-stream")


class Catalogue:
    """Item columns (`table`, one row per item) and the memory-mapped pictures file.

    `patched` gives another one with changed columns; it makes them when they are first read.

    `ready` gives items as JSON and `order` the rows by ascending item_id, int32 [items]; where a version has not stored
    them, both are made of the table.
    """

    def __init__(
        self,
        table: pa.Table,
        pictures: Path | None,
        ready: Ready | None = None,
        order: npt.NDArray[np.int32] | None = None,
    ) -> None:
        self._stored = table.select([name for name in table.column_names if name not in INTERNAL_COLUMNS])
        self._changes: Changes = {}
        self._before: Columns | None = None
        self._offset, self._length = (_column(table, name) for name in ("picture_offset", "picture_length"))
        self._ready: Ready = ready or FreshJson(self._stored, self.has_pictures)
        if order is not None:
            self._order = order
        self._pictures = b"" if pictures is None else map_file(pictures, MADE_BY)
        held = len(self._pictures)
        needed = int((self._offset + self._length)[self._length > 0].max(initial=0))
        if pictures is not None and needed > held:
            raise InputError(f"{pictures} has {held:,} bytes, fewer than its items' pictures need. Make it again.")

    def __len__(self) -> int:
        return int(self._stored.num_rows)

    def patched(self, changes: Changes) -> Self:
        """The same items with other values in some columns, never `item_id`."""
        other = copy.copy(self)
        for made in ("table", "columns", "_touched", "_fresh"):
            other.__dict__.pop(made, None)
        other._changes, other._before = changes, self.columns
        return other

    @cached_property
    def table(self) -> pa.Table:
        """One row per item."""
        table = self._stored
        for name, parts in self._changes.items():
            table = table.set_column(
                table.schema.get_field_index(name), table.field(name), replaced(table[name], parts)
            )
        return table

    @cached_property
    def columns(self) -> Columns:
        """The columns of `table` as filters and facets read them."""
        return Columns(self.table, self._before, self._changes)

    def settle(self) -> None:
        """Make now what changed columns would be made of when they are first read."""
        if self._changes:
            _ = self.columns, self._touched

    @property
    def schema(self) -> pa.Schema:
        """Of `table`."""
        return self._stored.schema

    @cached_property
    def _order(self) -> npt.NDArray[np.int32]:
        order: npt.NDArray[np.int32] = pc.sort_indices(self._stored["item_id"]).to_numpy().astype(np.int32)
        return order

    @cached_property
    def _ids(self) -> pa.Array:
        return one_array(self._stored["item_id"])

    def row_of(self, item_id: str) -> int | None:
        """Row of an item, None when unknown; a binary search, as a dict of all ids would be each worker's own."""
        ids, order = self._ids, self._order
        at = bisect_left(order, item_id, key=lambda row: ids[int(row)].as_py())
        return int(order[at]) if at < len(order) and ids[int(order[at])].as_py() == item_id else None

    @cached_property
    def _touched(self) -> Mask:
        return touched(self._changes, len(self))

    @cached_property
    def _fresh(self) -> FreshJson:
        return FreshJson(self.table, self.has_pictures)

    def following(self, item_id: str, most: int, mask: Mask | None) -> list[tuple[str, int]]:
        """Ids and rows of the first `most` items after an id, by ascending id; only those of a `mask` [items]."""
        ids, order = self._ids, self._order
        at, found = bisect_right(order, item_id, key=lambda row: ids[int(row)].as_py()), list[tuple[str, int]]()
        while at < len(order) and len(found) < most:
            rows = order[at : at + max(most, _LOOKED)]
            at += len(rows)
            rows = rows if mask is None else rows[mask[rows]]
            found += [(ids[int(row)].as_py(), int(row)) for row in rows[: most - len(found)]]
        return found

    def json(self, rows: Rows) -> list[bytes]:
        """Some items (rows int64 [n]) as the service shows them, in their order: JSON objects, see `ready`."""
        if not self._changes or not (changed := self._touched[rows]).any():
            return self._ready(rows)
        before, fresh = iter(self._ready(rows[~changed])), iter(self._fresh(rows[changed]))
        return [next(fresh if new else before) for new in changed.tolist()]

    def pictured(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Which of some rows (int64 [n]) have a picture, boolean [n]."""
        mask: npt.NDArray[np.bool_] = self._length[rows] > 0
        return mask

    def items(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """The columns of some rows, in their order."""
        found: list[dict[str, Any]] = self.table.take(pa.array(rows, pa.int64())).to_pylist()
        return found

    def item_id(self, row: int) -> str:
        """Id of the item at `row`."""
        name: str = self._ids[row].as_py()
        return name

    @property
    def picture_lengths(self) -> npt.NDArray[np.int64]:
        """Bytes of each item's picture [items]; 0 for none."""
        lengths: npt.NDArray[np.int64] = self._length
        return lengths

    @cached_property
    def has_pictures(self) -> npt.NDArray[np.bool_]:
        """Which items have a picture, boolean [items]."""
        mask: npt.NDArray[np.bool_] = self._length > 0
        return mask

    def has_picture(self, row: int) -> bool:
        """Whether `picture` would return one."""
        return bool(self._length[row] > 0)

    def picture(self, row: int) -> bytes | None:
        """The encoded picture of an item, None when it has none."""
        if not self.has_picture(row):
            return None
        start = int(self._offset[row])
        return self._pictures[start : start + int(self._length[row])]


def _column(table: pa.Table, name: str) -> Any:
    if name not in table.column_names:
        return np.zeros(table.num_rows, np.int64)
    column = one_array(table[name])
    column = pc.fill_null(column, 0) if column.null_count else column
    return column.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
