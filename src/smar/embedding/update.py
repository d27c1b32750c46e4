"""`smar index --update`: encode changed items and hand them to an index."""

import tempfile
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.core.progress import console, track
from smar.data.changes import LISTED, Changed, prepare_changes
from smar.data.dataset import OWN_COLUMNS, text_columns
from smar.data.types import index_types
from smar.embedding.kept import as_items, change_columns, words_of
from smar.model.device import pick_device
from smar.model.encoder import Encoder
from smar.model.run_folder import load_encoder, run_settings
from smar.search.embeddings import INTERNAL_COLUMNS
from smar.search.items import fit
from smar.search.local import UpdatableIndex
from smar.search.ranked import Rows

BATCH = 1024
"""Items encoded and written at once: each such record is flushed to disk and then visible to every worker."""
_PATCHED = 65_536  # of which nothing is encoded
_UNTITLED = "a new item needs a title"


@dataclass(frozen=True)
class UpdateSummary:
    """What an update did."""

    items: int
    image_status: dict[str, int]
    rejects: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def update_index(
    folder: StrPath, run: StrPath, items: list[str], images: list[str], device: str = "auto"
) -> UpdateSummary:
    """Take in the items of some tables; what was written before an interruption stays.

    Columns that the tables do not have stay as they are, and so do the pictures where neither table names any. Then
    only other words are encoded. A new item needs a title.

    Raises:
        InputError: the index is of another model, or the tables do not fit it.
    """
    folder = Path(folder)
    run = Path(run)
    started = time.perf_counter()
    index, encoder = open_for_update(folder, run, device=device)
    with tempfile.TemporaryDirectory(prefix="update-", dir=folder) as work:
        changed = prepare_changes(
            run_settings(run).data, items, images, Path(work) / "items", index_types(index.snapshot.schema)
        )
        rejects = dict(changed.rejects)
        untitled = Update(index, encoder, changed).write()
    dataset = changed.dataset
    if untitled:
        rejects[_UNTITLED] = len(untitled)
        for item_id in untitled[:LISTED]:
            console.print(f"rejected {item_id!r}: {_UNTITLED}", markup=False, soft_wrap=True)
    total = len(dataset.image_row) - len(untitled)
    status = dataset.manifest.image_status if changed.pictured else {}
    return UpdateSummary(total, status, rejects, time.perf_counter() - started)


def open_for_update(
    folder: StrPath, run: StrPath, check: bool = True, device: str = "auto"
) -> tuple[UpdatableIndex, Encoder]:
    """The index (`check` as for `UpdatableIndex.open`) and the model of the run, on a device.

    Raises:
        InputError: the index is of another model, or one of the two is damaged.
    """
    folder = Path(folder)
    run = Path(run)
    index = UpdatableIndex.open(folder, check)
    encoder = load_encoder(run, device=pick_device(device))
    if encoder.fingerprint != index.snapshot.fingerprint:
        raise InputError(
            f"{run} is model {encoder.fingerprint}, {folder} was made by model {index.snapshot.fingerprint}; "
            "their vectors do not go together. Give the run that the index was made of."
        )
    return index, encoder


class Update:
    """Items of tables on their way into an index."""

    def __init__(self, index: UpdatableIndex, encoder: Encoder, changed: Changed) -> None:
        self._index, self._encoder, self._changed = index, encoder, changed
        own = OWN_COLUMNS | INTERNAL_COLUMNS | (set() if changed.pictured else {"image_status"})
        items = changed.dataset.items
        self._given = items.drop_columns([name for name in items.column_names if name in own])
        row_of = index.snapshot.catalogue.row_of
        places = [row_of(item_id) for item_id in items["item_id"].to_pylist()]
        self._places = pa.array(places, pa.int64())
        self._there = np.array([place is not None for place in places], np.bool_)

    def write(self) -> list[str]:
        """Write them all; returns the ids of new ones that have no title and are left out."""
        titled = "title" in self._given.column_names
        whole = np.full(len(self._there), True) if self._changed.pictured else ~self._there
        if not titled:
            whole &= self._there
        self._write_whole(np.flatnonzero(whole))
        if not self._changed.pictured:
            self._write_some(self._given.filter(pa.array(self._there)))
        return [] if titled else self._given["item_id"].filter(pa.array(~self._there)).to_pylist()

    def _write_whole(self, rows: Rows) -> None:
        """Encode items with their pictures; what the tables do not say of them is as it was."""
        index, dataset = self._index, self._changed.dataset
        payload, before = self._given, index.snapshot.catalogue.table
        for name in before.column_names:
            if name not in payload.column_names and name != "image_status":
                payload = payload.append_column(name, before[name].take(self._places))
        if "image_status" not in payload.column_names:
            payload = payload.append_column("image_status", dataset.items["image_status"])
        payload, items = payload.take(rows), dataset.items.take(rows)
        fields = text_columns(payload, self._encoder.config.text_fields)
        encoded = self._encoder.encode_items(fields, dataset.images, dataset.image_row[rows], BATCH)
        batches = zip(count(step=BATCH), encoded, strict=False)
        for start, vectors in track(batches, "update (batches)", -(-len(rows) // BATCH)):
            pictures = pictures_of(dataset.pictures, items.slice(start, BATCH))
            index.upsert(as_items(self._encoder, payload.slice(start, BATCH), vectors, pictures))

    def _write_some(self, table: pa.Table) -> None:
        """Change columns of items that are there."""
        table, words = fit(table, self._index.snapshot.schema, whole=False), words_of(self._encoder)
        size = BATCH if words.read(self._index.snapshot) & set(table.column_names) else _PATCHED
        for start in track(range(0, table.num_rows, size), "update (columns)", -(-table.num_rows // size)):
            part = table.slice(start, size)
            if size == BATCH:
                change_columns(self._index, part.to_pylist(), words)
            else:
                self._index.patch(part)


def pictures_of(path: Path, items: pa.Table) -> list[bytes | None]:
    """The encoded picture of each item, None where it has none."""
    with path.open("rb") as file:
        found: list[bytes | None] = []
        for offset, length in zip(
            items["picture_offset"].to_pylist(), items["picture_length"].to_pylist(), strict=True
        ):
            file.seek(max(offset, 0))
            found.append(file.read(length) if length else None)
    return found
