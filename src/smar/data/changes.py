"""Items to add to an index that exists: tables and pictures to a small dataset without a log."""

import shutil
from collections import Counter
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from smar.core.files import FileEntry, StrPath, describe
from smar.core.progress import console
from smar.core.sections.data import DataSettings
from smar.data.catalogue import build_items, item_columns, write_items
from smar.data.database import connect, number
from smar.data.dataset import Dataset, DatasetManifest
from smar.data.pictures import pack
from smar.data.selected import Tables
from smar.data.sources import Given
from smar.data.tables import Table

LISTED = 100
"""Rejected rows that are printed; all are counted."""


class Changed(NamedTuple):
    """Items as they were read: the columns that the table has; reason -> rejected rows."""

    dataset: Dataset
    rejects: dict[str, int]
    pictured: bool
    """Whether the tables say which pictures the items have; if not, those of the index are to stay."""


def prepare_changes(
    settings: DataSettings,
    items: Given,
    images: Given,
    folder: StrPath,
    types: Mapping[str, str] | None = None,
) -> Changed:
    """Prepare items as `smar prepare` does, into `folder`; of their columns only `item_id` has to be there.

    `types` holds the types of the index's columns (see `smar.data.types`): they rule, whatever else the tables hold.

    Raises:
        InputError: a table or the settings are wrong.
    """
    folder = Path(folder)
    work = folder / "work"
    work.mkdir(parents=True)
    with connect(settings, work) as con:
        tables = Tables.of(con, settings, {"items": items, "images": images}, work)
        catalogue = tables.open("items", ("item_id", "title", *settings.text_fields), types)
        settings = _present(settings, catalogue)
        columns = item_columns(catalogue, settings, whole=False)
        pictures = tables.open_optional("images", None)
        build_items(con, catalogue, settings)
        packed = pack(con, catalogue, pictures, columns.settings, folder)
        rejected = con.execute(
            """SELECT row, key, reason, split_part(reason, ': ''', 1) FROM reject ORDER BY "table", row"""
        ).fetchall()
        bad = [(table.kind, line) for table in (catalogue, pictures) if table is not None for line in table.bad_lines]
        lines = [f"row {row}, {key!r}: {reason}" for row, key, reason, _ in rejected]
        lines += [f"{key!r}: {reason}" for _, (key, reason) in bad]
        # these are nowhere else: the folder goes when the items are in the index
        for note in (*tables.notes, *packed.notes, *(f"rejected {line}" for line in lines[:LISTED])):
            console.print(note, markup=False, soft_wrap=True)
        con.execute("CREATE TEMP VIEW train AS SELECT 0 AS item_index WHERE false")
        write_items(con, catalogue, columns, folder / "items.parquet")
        rejects = Counter(reason for *_, reason in sorted(rejected, key=itemgetter(3)))
        rejects.update(f"unreadable line of --{kind}" for kind, _ in bad)
        count = number(con, "SELECT count(*) FROM item")
    shutil.rmtree(work)
    DatasetManifest(
        counts={"items": count, "images_packed": packed.packed},
        image_status=packed.item_status,
        settings=columns.settings.model_dump(mode="json"),
        test_from=None,
        valid_from=None,
        image_size=settings.image_size,
        files=describe(folder, FileEntry.of),
    ).write(folder)
    pictured = pictures is not None or catalogue.column("image") is not None
    return Changed(Dataset.open(folder), rejects, pictured)


def _present(settings: DataSettings, table: Table) -> DataSettings:
    """Without the columns that this table does not have."""
    keys = ("text_fields", "slice_columns", "drop_columns")
    return settings.model_copy(
        update={key: tuple(name for name in getattr(settings, key) if table.column(name)) for key in keys}
    )
