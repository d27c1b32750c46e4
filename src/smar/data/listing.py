"""Every picture that the tables list: which item it belongs to, where it stands, and how to read it there."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smar.core.errors import InputError
from smar.core.sections.data import DataSettings
from smar.data.columns import as_text, check_mapping, require
from smar.data.database import Connection, quote, script
from smar.data.references import MANY, references
from smar.data.tables import ROW, Table

BATCH = 64
"""Rows of a picture table held in memory at once."""
Tables = tuple[Table, Table | None]
"""The items table and the images table."""


@dataclass(frozen=True)
class Listing:
    """Every picture of the catalogue, ordered by (position, source, row, sub); int64 [pictures] each."""

    item: NDArray[np.int64]
    position: NDArray[np.int64]
    source: NDArray[np.int64]
    """0: the items table's own column, 1: the images table."""
    row: NDArray[np.int64]
    sub: NDArray[np.int64]
    """Place among the pictures that the row names; 0 for a single one."""


def list_pictures(con: Connection, items: Table, images: Table | None, settings: DataSettings) -> Listing:
    """Number the pictures of every item and reject rows of the images table that belong to none.

    Raises:
        InputError: a column is missing, or an image column has a type that holds no pictures.
    """
    own = _counted(con, items, settings) if items.column("image") else f"(SELECT 0 AS {ROW}, 0 AS pictures WHERE false)"
    con.execute(f"CREATE TEMP VIEW own_picture AS SELECT * FROM {own}")
    if images is None:
        con.execute(f"CREATE TEMP VIEW other_picture AS SELECT 0 AS {ROW}, '' AS item_id, 0 AS pictures WHERE false")
    else:
        require(images)
        check_mapping(images)
        con.execute(
            f"CREATE TEMP VIEW other_picture AS SELECT {ROW}, {as_text(images, 'item_id')} AS item_id, pictures "
            f"FROM {images.scan} JOIN {_counted(con, images, settings)} USING ({ROW})"
        )
    con.execute(script("pictures"))
    columns = con.execute(
        "SELECT item_index, position, source, row, sub FROM picture ORDER BY position, source, row, sub"
    ).fetchnumpy()
    names = ("item_index", "position", "source", "row", "sub")
    return Listing(*(np.asarray(columns[name], dtype=np.int64) for name in names))


def _counted(con: Connection, table: Table, settings: DataSettings) -> str:
    """SQL for the number of pictures in each row; lists count their elements, null and blank are none."""
    column, kind = quote(table.column("image") or "image"), table.type("image")
    if kind in ("VARCHAR", "JSON"):
        name = f"{table.kind}_pictures"
        con.register(name, pa.table({ROW: np.arange(table.rows), "pictures": _named(table, settings)}))
        return name
    if kind.endswith("]"):
        count = f"coalesce(len({column}), 0)"
    elif kind == "BLOB":
        count = f"CASE WHEN {column} IS NULL THEN 0 ELSE 1 END"
    elif kind.startswith("STRUCT") and {"bytes", "path"} <= set(kind.replace("(", " ").replace('"', "").split()):
        count = f"CASE WHEN {column}.bytes IS NULL AND {column}.path IS NULL THEN 0 ELSE 1 END"
    else:
        raise InputError(
            f"--{table.kind}: column {table.column('image')!r} has type {kind}. Allowed: a path or URL (text), "
            "encoded bytes, a struct of bytes and path, or a list of these."
        )
    return f"(SELECT {ROW}, {count} AS pictures FROM {table.scan})"


def _named(table: Table, settings: DataSettings) -> NDArray[np.int64]:
    """How many pictures each row of a text column names, int64 [rows]."""
    counts = np.zeros(table.rows, np.int64)
    column = table.column("image") or "image"
    for file, parquet, at, _ in table.spans():
        root = images_root(settings, file)
        with pq.ParquetFile(parquet, pre_buffer=False) as opened:
            batches = opened.iter_batches(columns=[column]) if column in opened.schema_arrow.names else iter(())
            for batch in batches:
                cells = pc.utf8_trim_whitespace(pc.fill_null(batch.column(0).cast(pa.string()), ""))
                own = counts[at : at + len(cells)]
                own[:] = pc.not_equal(cells, "")
                for place in np.flatnonzero(pc.match_substring_regex(cells, MANY)):
                    own[place] = len(references(cells[int(place)].as_py(), root))
                at += len(cells)
    return counts


def images_root(settings: DataSettings, file: Path) -> Path:
    """The folder that paths in one of the user's files start at."""
    return Path(os.path.realpath(settings.images_root or file.parent))


def named(
    listing: Listing, chosen: NDArray[np.int64], tables: Tables, settings: DataSettings
) -> Iterator[tuple[int, object, Path]]:
    """Read the chosen pictures (indices into `listing`, ascending) from their tables, in order.

    Yields the index, what the table has (bytes, text, a struct of both, None), and where paths start.
    """
    for number, table in enumerate(tables):
        mine = chosen[listing.source[chosen] == number]
        if table is None or not len(mine):
            continue
        column = table.column("image") or "image"
        for file, parquet, first, last in table.spans():
            part = mine[(listing.row[mine] >= first) & (listing.row[mine] < last)]
            root = images_root(settings, file)
            for index, cell in _cells(parquet, column, part, listing.row[part] - first):
                values = references(cell, root) if isinstance(cell, str) else cell if isinstance(cell, list) else [cell]
                sub = int(listing.sub[index])
                yield index, values[sub] if sub < len(values) else None, root


def _cells(
    parquet: Path, column: str, chosen: NDArray[np.int64], rows: NDArray[np.int64]
) -> Iterator[tuple[int, object]]:
    """Stream the cells of some rows of one file, skipping the row groups that hold none of them."""
    if not len(chosen):
        return
    with pq.ParquetFile(parquet, pre_buffer=False, buffer_size=1 << 20) as file:
        start = at = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            if at < len(rows) and rows[at] < stop:
                for batch in file.iter_batches(BATCH, row_groups=[group], columns=[column]):
                    while at < len(rows) and rows[at] < start + batch.num_rows:
                        yield int(chosen[at]), batch.column(0)[int(rows[at]) - start].as_py()
                        at += 1
                    start += batch.num_rows
            start = stop
