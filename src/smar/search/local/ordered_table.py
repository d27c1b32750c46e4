"""A table's rows in another order, each column one array, in memory or, where they do not fit, mapped from files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.search.column_values import one_array
from smar.search.local.ready import write_npy
from smar.search.ranked import Rows

_HELD = 3  # times a part is held at most: as found, as one array, in order


def ordered(table: pa.Table, order: Rows | None, folder: Path, memory: int | None = None) -> pa.Table:
    """The rows `order` [n] of `table`, or all of them as they are; each column is one array.

    What needs more than `memory` (bytes) is put in order part by part, reading the table from its beginning to its end
    for each, and then column by column; the columns are mapped from files of `folder`, an empty one. Texts are copied
    piece by piece, a column of any other type is held once.
    """
    rows = table.num_rows
    fit = rows if memory is None else max(memory * rows // max(_HELD * table.nbytes, 1), 1)
    if fit >= rows:
        return table.combine_chunks() if order is None else _taken(table, order)
    if order is not None:
        starts = range(0, rows, fit)
        parts = (_mapped(_taken(table, order[at : at + fit]), folder / f"part-{at}.arrow") for at in starts)
        table = pa.concat_tables(parts)
    columns = [_whole(column, folder / f"column-{at}") for at, column in enumerate(table.columns)]
    return pa.table(columns, schema=table.schema)


def _taken(table: pa.Table, places: Rows) -> pa.Table:
    """The rows at `places` [n], in their order; `table` is read in its own."""
    ascending = np.argsort(places)
    wanted, first, at, found = places[ascending], 0, 0, []
    for batch in table.to_batches():
        stop = int(np.searchsorted(wanted, first + len(batch)))
        found.append(batch.take(pa.array(wanted[at:stop] - first)))
        first, at = first + len(batch), stop
    together = pa.Table.from_batches(found, table.schema).combine_chunks()
    del found
    places = np.empty_like(ascending)
    places[ascending] = np.arange(len(ascending))
    return together.take(pa.array(places))


def _mapped(table: pa.Table, path: Path) -> pa.Table:
    """The table in a file, whose pages the system reads and takes back as it needs memory."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    del table
    pa.default_memory_pool().release_unused()
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def _whole(column: pa.ChunkedArray, path: Path) -> pa.Array:
    """A column as one array that is mapped from a file."""
    if column.num_chunks == 1:
        return column.chunk(0)
    types = pa.types
    if types.is_string(column.type) or types.is_binary(column.type):
        return _texts(column, path, np.int32)
    if types.is_large_string(column.type) or types.is_large_binary(column.type):
        return _texts(column, path, np.int64)
    return _mapped(pa.table({"column": one_array(column)}), path)["column"].chunk(0)


def _texts(column: pa.ChunkedArray, path: Path, kind: type[np.integer[Any]]) -> pa.Array:
    """`_whole` of texts: what lies between the chunks' offsets, and these as if it had always lain there."""
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    ends = [np.frombuffer(chunk.buffers()[1], kind)[chunk.offset :][: len(chunk) + 1] for chunk in chunks]

    def places() -> Iterator[Any]:
        yield np.zeros(1, kind)
        before = 0
        for own in ends:
            yield own[1:] - own[0] + kind(before)
            before += int(own[-1] - own[0])

    offsets, letters = path.with_suffix(".npy"), path.with_suffix(".bytes")
    write_npy(offsets, (len(column) + 1,), places(), kind)
    with letters.open("wb") as out:
        for chunk, own in zip(chunks, ends, strict=True):
            if own[-1] > own[0]:
                out.write(chunk.buffers()[2][int(own[0]) : int(own[-1])])
    held = None
    if column.null_count:
        valid = np.concatenate([pc.is_valid(chunk).to_numpy(zero_copy_only=False) for chunk in chunks])
        held = pa.py_buffer(np.packbits(valid, bitorder="little"))
    mapped = pa.memory_map(str(letters)).read_buffer() if letters.stat().st_size else pa.py_buffer(b"")
    begin = pa.py_buffer(np.asarray(np.load(offsets, mmap_mode="r")))
    return pa.Array.from_buffers(column.type, len(column), [held, begin, mapped], column.null_count)
