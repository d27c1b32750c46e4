"""Items as JSON objects that are ready to send: made once, when a version is written, and mapped by every reader.

An object is ``{"item_id", "picture", "item"}``, as the service shows an item: its picture's address or null, and its
columns. To build them from Arrow for each answer takes ten times as long as to cut slices out of a file.
``items.json`` holds one object a line, ``items.npy`` where each line begins, and the end.
"""

import math
import mmap
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.core.errors import InputError

JSON_FILE = "items.json"
JSON_PLACES_FILE = "items.npy"
_BLOCK = 16_384
_ENCODER = msgspec.json.Encoder()
_SAFE = re.compile(r"[\w-]+", re.ASCII)

Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


def picture_url(item_id: str) -> str:
    """Address of an item's picture in the service; an id may hold any character."""
    name = item_id if _SAFE.fullmatch(item_id) else quote(item_id, safe="")
    return f"/v1/items/{name}/picture"


def plain(value: Any) -> Any:
    """A payload value as JSON can hold it: NaN becomes null, dates ISO 8601, bytes their length."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


class Ready(Protocol):
    """Gives the JSON objects of some rows."""

    def __call__(self, rows: Rows) -> list[bytes]:
        """One JSON object for each of `rows`, in their order."""


class StoredJson:
    """The two files of a version, mapped: every process that serves it reads the same memory."""

    def __init__(self, folder: Path, items: int, made_by: str) -> None:
        path = folder / JSON_PLACES_FILE
        self._places = map_array(path, np.int64, items + 1, made_by)
        self._content = map_file(folder / JSON_FILE, made_by)
        if len(self._content) != self._places[-1]:
            raise InputError(
                f"{folder / JSON_FILE} has {len(self._content):,} bytes, {path} says {self._places[-1]:,}. "
                f"Run `{made_by}` again."
            )

    def __call__(self, rows: Rows) -> list[bytes]:
        """One JSON object for each of `rows`, in their order."""
        content = self._content
        starts, stops = self._places[rows].tolist(), self._places[rows + 1].tolist()
        return [content[start : stop - 1] for start, stop in zip(starts, stops, strict=True)]


class FreshJson:
    """Objects made of a table when first asked for; `kept` holds them by row and may outlive this object.

    `pictured` [rows] marks the items that have a picture.
    """

    def __init__(self, table: pa.Table, pictured: Mask, kept: dict[int, bytes] | None = None) -> None:
        self._table, self._pictured = table, pictured
        self._kept = {} if kept is None else kept

    def __call__(self, rows: Rows) -> list[bytes]:
        """One JSON object for each of `rows`, in their order."""
        wanted: list[int] = rows.tolist()
        if missing := [row for row in dict.fromkeys(wanted) if row not in self._kept]:
            some = self._table.take(pa.array(missing, pa.int64()))
            lines = b"".join(encoded(some, self._pictured[missing])).split(b"\n")
            self._kept.update(zip(missing, lines, strict=False))  # after the last line end comes an empty piece
        return [self._kept[row] for row in wanted]


def encoded(table: pa.Table, pictured: Mask) -> Iterator[bytes]:
    """The rows of a table as JSON lines, some thousand rows at a time."""
    direct = all(_is_direct(kind) for kind in table.schema.types)
    names = table.column_names  # asked for once: for each row it would cost five times the rest
    at = 0
    for batch in table.to_batches(max_chunksize=_BLOCK):
        columns = [column.to_pylist() for column in batch.columns]
        rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
        shown = zip(rows, pictured[at : at + len(rows)].tolist(), strict=True)
        at += len(rows)
        yield _ENCODER.encode_lines(
            [
                {
                    "item_id": row["item_id"],
                    "picture": picture_url(row["item_id"]) if picture else None,
                    "item": row if direct else plain(row),
                }
                for row, picture in shown
            ]
        )


def write_json(table: pa.Table, pictured: Mask, folder: Path) -> None:
    """Write the two files."""

    def places() -> Iterator[Rows]:
        yield np.zeros(1, np.int64)
        at = 0
        with (folder / JSON_FILE).open("wb") as out:
            for block in encoded(table, pictured):
                out.write(block)
                # a line end inside a text is written as \n, so every byte 10 ends an object
                yield np.flatnonzero(np.frombuffer(block, np.uint8) == 10) + at + 1
                at += len(block)

    write_npy(folder / JSON_PLACES_FILE, (table.num_rows + 1,), places(), np.int64)


def _is_direct(kind: pa.DataType) -> bool:
    """Whether msgspec writes values of an Arrow type just as `plain` would have them."""
    types = pa.types
    if types.is_dictionary(kind) or types.is_list(kind) or types.is_large_list(kind):
        return _is_direct(kind.value_type)
    texts = types.is_string(kind) or types.is_large_string(kind)
    numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return bool(texts or numbers or types.is_null(kind))


def map_array(path: Path, dtype: type[np.generic], length: int, made_by: str) -> npt.NDArray[Any]:
    """An .npy file of one dimension as it lies on disk; InputError names the file when it is not that."""
    array = map_npy(path, made_by)
    if array.dtype != dtype or array.shape != (length,):
        raise InputError(
            f"{path} holds {array.dtype} {array.shape}, expected {np.dtype(dtype)} ({length},). Run `{made_by}` again."
        )
    return array


def map_npy(path: Path, made_by: str) -> npt.NDArray[Any]:
    """An .npy file as it lies on disk; a plain array, as each slice of a memmap costs microseconds."""
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except FileNotFoundError:
        raise InputError(f"{path} is missing. Run `{made_by}` again.") from None
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}. Run `{made_by}` again.") from None


def read_here_and_there(array: npt.NDArray[Any]) -> None:
    """Say that a mapped array is read row by row in no order: else the system reads much around each."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    base.madvise(mmap.MADV_RANDOM)


def write_npy(
    path: Path, shape: tuple[int, ...], blocks: Iterable[npt.NDArray[Any]], kind: type[np.generic] = np.float32
) -> None:
    """Write an .npy file of `shape` and `kind` whose rows come in blocks; filling a mapped one takes longer.

    Where the disk is full, the error says so; numpy's own tells two numbers.
    """
    header = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": shape}
    with path.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, header)
        for block in blocks:
            out.write(np.ascontiguousarray(block, kind).data)


def map_file(path: Path, made_by: str) -> "mmap.mmap | bytes":
    """A file's bytes, shared with whoever else maps it; InputError when it is missing."""
    if not path.is_file():
        raise InputError(f"{path} is missing. Run `{made_by}` again.")
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return b""
    with path.open("rb") as handle:
        return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
