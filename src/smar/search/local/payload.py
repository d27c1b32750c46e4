"""The item columns of a version, as files that every process maps: nothing is read or sorted when it is opened."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.core.errors import InputError
from smar.search.embeddings import INTERNAL_COLUMNS, PICTURES_FILE, check_items
from smar.search.local.item_store import Catalogue
from smar.search.local.ordered_table import ordered
from smar.search.local.ready import Rows, StoredJson, map_array, write_json

COLUMNS_FILE = "payload.arrow"
ORDER_FILE = "order.npy"


def write_payload(table: pa.Table, folder: Path, order: Rows | None = None, memory: int | None = None) -> None:
    """Write the columns of `table` (with item_id and where the pictures lie), the order of the ids, and the JSON.

    `order` and `memory` are those of `smar.search.local.ordered_table.ordered`.
    """
    for name in INTERNAL_COLUMNS & set(table.column_names):  # without nulls they are read as they lie
        at = table.column_names.index(name)
        table = table.set_column(at, name, pc.fill_null(table[name], 0).cast(pa.int64()))
    path = folder / COLUMNS_FILE
    with tempfile.TemporaryDirectory(dir=folder) as place:
        table = ordered(table, order, Path(place), memory)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as out:
            out.write_table(table)
        del table
    pa.default_memory_pool().release_unused()
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    np.save(folder / ORDER_FILE, pc.sort_indices(table["item_id"]).to_numpy().astype(np.int32))
    catalogue = Catalogue(table, None)
    write_json(catalogue.table, catalogue.has_pictures, folder)


def open_payload(folder: Path, items: int, made_by: str) -> Catalogue:
    """Map what `write_payload` wrote; InputError names the file that does not hold `items` items."""
    order = map_array(folder / ORDER_FILE, np.int32, items, made_by)
    table = _map_columns(folder / COLUMNS_FILE, items, made_by)
    return Catalogue(table, folder / PICTURES_FILE, StoredJson(folder, items, made_by), order)


def _map_columns(path: Path, items: int, made_by: str) -> pa.Table:
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except FileNotFoundError:
        raise InputError(f"{path} is missing. Run `{made_by}` again.") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} cannot be read as an Arrow file: {error}. Run `{made_by}` again.") from None
    check_items(table, items, path, made_by)
    return table
