"""Arrow tables to Parquet: IPC files, folders of `datasets.save_to_disk`, and tables of a Python program."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeGuard, runtime_checkable

import pyarrow as pa
import pyarrow.parquet as pq

from smar.core.errors import InputError

GROUP_ROWS, GROUP_BYTES = 100_000, 64 << 20
"""A row group ends after so many rows or bytes: tables may hold pictures."""
_PARTS_FILE, _STATE_FILE = "dataset_dict.json", "state.json"
STATE_FILES = (_PARTS_FILE, _STATE_FILE)
"""Files by which a folder of `datasets.save_to_disk` is known."""
_PANDAS_INDEX = re.compile(r"__index_level_\d+__")


@runtime_checkable
class ArrowTable(Protocol):
    """A table of any library that speaks the Arrow PyCapsule interface."""

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Export the table as a stream of record batches."""


def is_table(source: object) -> TypeGuard[ArrowTable]:
    """Whether `table_to_parquet` can read it."""
    return isinstance(source, ArrowTable) or _is_pandas(source)


def _is_pandas(source: object) -> bool:
    return type(source).__module__.partition(".")[0] == "pandas" and hasattr(source, "columns")


def table_to_parquet(table: ArrowTable, target: Path, kind: str) -> None:
    """Write a table in memory as Parquet. An index of pandas is a column where it has a name.

    Raises:
        InputError: a column holds values of different types, or a type that Parquet lacks.
    """
    with _readable(f"{kind}, a {type(table).__module__}.{type(table).__qualname__},"):
        if _is_pandas(table):
            whole = pa.Table.from_pandas(table)
            unnamed = [name for name in whole.column_names if _PANDAS_INDEX.fullmatch(name)]
            table = whole.drop_columns(unnamed).replace_schema_metadata()
        reader = pa.RecordBatchReader.from_stream(table)
        _write(reader.schema, reader, target)


def to_parquet(file: Path, target: Path, kind: str, part: str | None) -> None:
    """Write an Arrow IPC file (of the file or the stream format) as Parquet, batch by batch.

    Args:
        file: the Arrow file.
        target: the Parquet file.
        kind: the table, for messages.
        part: value of a column ``split``, which is added where the file has none.

    Raises:
        InputError: the file is damaged or of another format, or Parquet lacks a type of it.
    """
    with _readable(f"--{kind} {file}"), pa.memory_map(str(file)) as source:
        schema, batches = _open_ipc(source)
        if part is not None and "split" not in schema.names:
            batches = (batch.append_column("split", pa.repeat(part, batch.num_rows)) for batch in batches)
            schema = schema.append(pa.field("split", pa.string()))
        _write(schema, batches, target)


def _open_ipc(source: pa.NativeFile) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if source.read(6) == b"ARROW1":
        reader = pa.ipc.open_file(source)
        return reader.schema, (reader.get_batch(number) for number in range(reader.num_record_batches))
    source.seek(0)
    stream = pa.ipc.open_stream(source)
    return stream.schema, iter(stream)


def _write(schema: pa.Schema, batches: Iterable[pa.RecordBatch], target: Path) -> None:
    """Batches may be tiny (1,000 rows) or huge: row groups have a size of their own."""
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        held: list[pa.RecordBatch] = []
        rows = size = 0
        for batch in batches:
            held.append(batch)
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows >= GROUP_ROWS or size >= GROUP_BYTES:
                _write_group(writer, held, max(1, min(GROUP_ROWS, rows * GROUP_BYTES // max(size, 1))))
                held, rows, size = [], 0, 0
        _write_group(writer, held, GROUP_ROWS)


def _write_group(writer: pq.ParquetWriter, held: list[pa.RecordBatch], rows: int) -> None:
    if held:
        writer.write_table(pa.Table.from_batches(held), row_group_size=rows)


@contextmanager
def _readable(what: str) -> Iterator[None]:
    """Turn what pyarrow says of a table into InputError."""
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, OSError, TypeError, ValueError) as error:
        advice = "Allowed: Arrow IPC (file or stream; Feather version 2), with types that Parquet has."
        raise InputError(f"{what} cannot be read ({error}). {advice}") from None


def saved_dataset(folder: Path, kind: str) -> list[Path] | None:
    """The Arrow files of a folder that Hugging Face's `save_to_disk` wrote, in order; None when it is none.

    Raises:
        InputError: the folder is one, but damaged.
    """
    try:
        if (folder / _PARTS_FILE).is_file():
            parts = json.loads((folder / _PARTS_FILE).read_text(encoding="utf-8"))["splits"]
            return [file for part in parts for file in _data_files(folder / part)]
        return _data_files(folder) if (folder / _STATE_FILE).is_file() else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--{kind} {folder}: no complete folder of `datasets.save_to_disk` ({error!r}).") from None


def _data_files(folder: Path) -> list[Path]:
    state = json.loads((folder / _STATE_FILE).read_text(encoding="utf-8"))
    files = [folder / entry["filename"] for entry in state["_data_files"]]
    for file in files:
        if file.parent != folder or not file.is_file():
            raise FileNotFoundError(f"{file} is missing")
    return files


def part_of(file: Path) -> str | None:
    """Name of the part of a saved `DatasetDict` that a file is of, None where it is of none."""
    parts = file.parent.parent / _PARTS_FILE
    return file.parent.name if (file.parent / _STATE_FILE).is_file() and parts.is_file() else None
