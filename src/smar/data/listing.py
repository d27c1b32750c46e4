"""Every picture that the tables list: which item it belongs to, where it stands, and how to read it there."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smar.data.columns import as_text, check_mapping, require
from smar.data.database import Connection, quote, script
from smar.data.fetch import Source, Url
from smar.data.images import Unusable
from smar.data.tables import ROW, Table
from smar.errors import InputError
from smar.sections.data import DataSettings

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
    """Place in the row's list; 0 for a single picture."""


def list_pictures(con: Connection, items: Table, images: Table | None) -> Listing:
    """Number the pictures of every item and reject rows of the images table that belong to none.

    Raises:
        InputError: a column is missing, or an image column has a type that holds no pictures.
    """
    own = _picture_count(items) if items.column("image") else "0"
    con.execute(f"CREATE TEMP VIEW own_picture AS SELECT {ROW}, {own} AS pictures FROM {items.scan}")
    if images is None:
        con.execute(f"CREATE TEMP VIEW other_picture AS SELECT 0 AS {ROW}, '' AS item_id, 0 AS pictures WHERE false")
    else:
        require(images)
        check_mapping(images)
        con.execute(
            f"CREATE TEMP VIEW other_picture AS SELECT {ROW}, {as_text(images, 'item_id')} AS item_id, "
            f"{_picture_count(images)} AS pictures FROM {images.scan}"
        )
    con.execute(script("pictures"))
    columns = con.execute(
        "SELECT item_index, position, source, row, sub FROM picture ORDER BY position, source, row, sub"
    ).fetchnumpy()
    names = ("item_index", "position", "source", "row", "sub")
    return Listing(*(np.asarray(columns[name], dtype=np.int64) for name in names))


def _picture_count(table: Table) -> str:
    """SQL for the number of pictures in a row; lists count their elements, null and blank are none."""
    column, kind = quote(table.column("image") or "image"), table.type("image")
    if kind.endswith("]"):
        return f"coalesce(len({column}), 0)"
    if kind == "VARCHAR":
        return f"CASE WHEN is_blank({column}) THEN 0 ELSE 1 END"
    if kind == "BLOB":
        return f"CASE WHEN {column} IS NULL THEN 0 ELSE 1 END"
    if kind.startswith("STRUCT") and {"bytes", "path"} <= set(kind.replace("(", " ").replace('"', "").split()):
        return f"CASE WHEN {column}.bytes IS NULL AND {column}.path IS NULL THEN 0 ELSE 1 END"
    raise InputError(
        f"--{table.kind}: column {table.column('image')!r} has type {kind}. Allowed: a path or URL (text), "
        "encoded bytes, a struct of bytes and path, or a list of these."
    )


def sources(
    listing: Listing, chosen: NDArray[np.int64], tables: Tables, settings: DataSettings
) -> Iterator[tuple[int, Source | Unusable]]:
    """Read the chosen pictures (indices into `listing`, ascending) from their tables, in order."""
    for number, table in enumerate(tables):
        mine = chosen[listing.source[chosen] == number]
        if table is None or not len(mine):
            continue
        for file, parquet, first, last in table.spans():
            part = mine[(listing.row[mine] >= first) & (listing.row[mine] < last)]
            root = Path(os.path.realpath(settings.images_root or file.parent))
            column = table.column("image") or "image"
            for index, value in _values(parquet, column, part, listing.row[part] - first, listing.sub[part]):
                yield index, _source(value, root)


def _values(
    parquet: Path, column: str, chosen: NDArray[np.int64], rows: NDArray[np.int64], subs: NDArray[np.int64]
) -> Iterator[tuple[int, object]]:
    """Stream the values of (row, sub) in one file, skipping the row groups that hold none of them."""
    if not len(chosen):
        return
    with pq.ParquetFile(parquet, pre_buffer=False, buffer_size=1 << 20) as file:
        start = at = 0
        for group in range(file.num_row_groups):
            stop = start + file.metadata.row_group(group).num_rows
            if at < len(rows) and rows[at] < stop:
                for batch in file.iter_batches(BATCH, row_groups=[group], columns=[column]):
                    while at < len(rows) and rows[at] < start + batch.num_rows:
                        value = batch.column(0)[int(rows[at]) - start].as_py()
                        yield int(chosen[at]), value[subs[at]] if isinstance(value, list) else value
                        at += 1
                    start += batch.num_rows
            start = stop


def _source(value: object, root: Path) -> Source | Unusable:
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes):
        return value
    text = str(value or "").strip()
    if not text:
        return Unusable("missing", "an empty reference")
    if "://" not in text:
        return _below(root, text)
    if text.lower().startswith(("http://", "https://")):
        return Url(text)
    return Unusable("fetch_failed", f"{text.partition(':')[0]}: only http and https are fetched")


def _below(root: Path, text: str) -> Path | Unusable:
    """The file that a table's path leads to, which no absolute path, `..` or link may place outside of `root`.

    Links are followed here (30 us a path), and what is opened later is where they led.
    """
    try:
        full = Path(os.path.realpath(root / text))
    except ValueError as error:  # a null character
        return Unusable("missing", f"no path: {error}")
    if full.is_relative_to(root):
        return full
    advice = "set data.images_root to a folder that holds it (relative paths then start there)"
    return Unusable("fetch_failed", f"leads out of {root}, links followed: {advice}")
