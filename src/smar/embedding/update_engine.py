"""`smar index URL --update`: encode changed items and hand them to an engine."""

import tempfile
import time
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.core.progress import track
from smar.data.changes import Changed, prepare_changes
from smar.data.dataset import OWN_COLUMNS, text_columns
from smar.data.types import index_types
from smar.embedding.kept import as_items
from smar.embedding.update import BATCH, UpdateSummary, pictures_of
from smar.model.device import pick_device
from smar.model.encoder import Encoder
from smar.model.run_folder import load_encoder, run_settings
from smar.search.embeddings import INTERNAL_COLUMNS
from smar.search.remote_index import RemoteIndex

_UNTITLED = "a new item needs a title"


def update_engine(
    index: RemoteIndex, run: StrPath, items: list[str], images: list[str], device: str = "auto"
) -> UpdateSummary:
    """Take in the items of some tables; each batch is found by the next search.

    Columns that the tables do not have stay as they are. Items are encoded anew, with the pictures that tables name:
    an engine gives none back, so that tables without pictures are for items that have none.

    Raises:
        InputError: the index is of another model, the tables do not fit it, or they name no pictures of items that have
            some.
    """
    started, run = time.perf_counter(), Path(run)
    encoder = load_encoder(run, device=pick_device(device))
    if encoder.fingerprint != index.fingerprint:
        raise InputError(
            f"{run} is model {encoder.fingerprint}, the index was made by model {index.fingerprint}; their vectors do "
            "not go together. Give the run that the index was made of."
        )
    with tempfile.TemporaryDirectory(prefix="update-") as work:
        folder, types = Path(work) / "items", index_types(index.schema)
        changed = prepare_changes(run_settings(run).data, items, images, folder, types)
        written, untitled = _write(index, encoder, changed)
    rejects = dict(changed.rejects) | ({_UNTITLED: untitled} if untitled else {})
    status = changed.dataset.manifest.image_status if changed.pictured else {}
    return UpdateSummary(written, status, rejects, time.perf_counter() - started)


def _write(index: RemoteIndex, encoder: Encoder, changed: Changed) -> tuple[int, int]:
    """How many items were written, and how many new ones have no title."""
    dataset, own = changed.dataset, OWN_COLUMNS | INTERNAL_COLUMNS
    given = dataset.items.drop_columns([name for name in dataset.items.column_names if name in own])
    before = {hit.item_id: hit for hit in index.of_ids(given["item_id"].to_pylist())}
    if not changed.pictured and (pictured := [one.item_id for one in before.values() if one.has_picture]):
        raise InputError(f"item {pictured[0]!r} has a picture, and the tables name none: give --images or image.")
    for name in index.schema.names:
        if name not in given.column_names and name != "image_status":
            old = [before[one].payload[name] if one in before else None for one in given["item_id"].to_pylist()]
            given = given.append_column(name, pa.array(old, index.schema.field(name).type))
    if "image_status" in set(index.schema.names) - set(given.column_names):
        given = given.append_column("image_status", dataset.items["image_status"])
    rows = np.flatnonzero(pc.is_valid(given["title"]).to_numpy(zero_copy_only=False))
    given, items = given.take(rows), dataset.items.take(rows)
    fields = text_columns(given, encoder.config.text_fields)
    encoded = encoder.encode_items(fields, dataset.images, dataset.image_row[rows], BATCH)
    batches = zip(count(step=BATCH), encoded, strict=False)
    for start, vectors in track(batches, "update (batches)", -(-len(rows) // BATCH)):
        pictures = pictures_of(dataset.pictures, items.slice(start, BATCH))
        index.upsert(as_items(encoder, given.slice(start, BATCH), vectors, pictures))
    return len(rows), len(dataset.image_row) - len(rows)
