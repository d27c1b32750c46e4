"""`smar index --update`: encode changed items and hand them to an index."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pyarrow as pa

from smar.data.changes import prepare_changes
from smar.data.dataset import OWN_COLUMNS, Dataset
from smar.data.types import index_types
from smar.errors import InputError
from smar.files import StrPath
from smar.index.base import INTERNAL_COLUMNS
from smar.index.delta import Items
from smar.index.live import UpdatableIndex
from smar.model.encoder import Encoder, ItemVectors
from smar.model.run import load_encoder, run_settings
from smar.progress import track

BATCH = 1024
"""Items encoded and written at once: each such record is flushed to disk and then visible to every worker."""


@dataclass(frozen=True)
class UpdateSummary:
    """What an update did."""

    items: int
    image_status: dict[str, int]
    rejects: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def update_index(folder: StrPath, run: StrPath, items: list[str], images: list[str]) -> UpdateSummary:
    """Upsert the items of some tables; what was written before an interruption stays.

    Raises:
        InputError: the index is of another model, or the tables do not fit it.
    """
    folder = Path(folder)
    run = Path(run)
    started = time.perf_counter()
    index, encoder = open_for_update(folder, run)
    with tempfile.TemporaryDirectory(prefix="update-", dir=folder) as work:
        dataset, rejects = prepare_changes(
            run_settings(run).data, items, images, Path(work) / "items", index_types(index.snapshot.schema)
        )
        total = len(dataset.image_row)
        for batch in track(_encoded(encoder, dataset), "update (batches)", -(-total // BATCH)):
            index.upsert(batch)
    return UpdateSummary(total, dataset.manifest.image_status, rejects, time.perf_counter() - started)


def open_for_update(folder: StrPath, run: StrPath, check: bool = True) -> tuple[UpdatableIndex, Encoder]:
    """The index (`check` as for `UpdatableIndex.open`) and the model of the run.

    Raises:
        InputError: the index is of another model, or one of the two is damaged.
    """
    folder = Path(folder)
    run = Path(run)
    index = UpdatableIndex.open(folder, check)
    encoder = load_encoder(run)
    if encoder.fingerprint != index.snapshot.fingerprint:
        raise InputError(
            f"{run} is model {encoder.fingerprint}, {folder} was made by model {index.snapshot.fingerprint}; "
            "their vectors do not go together. Give the run that the index was made of."
        )
    return index, encoder


def as_items(encoder: Encoder, payload: pa.Table, vectors: ItemVectors, pictures: Sequence[bytes | None]) -> Items:
    """Encoded items as an index takes them."""
    return Items(
        encoder.fingerprint,
        payload,
        vectors.text,
        vectors.served,
        pictures,
        mixed=encoder.config.category_share is not None,
    )


def _encoded(encoder: Encoder, dataset: Dataset) -> Iterator[Items]:
    own = OWN_COLUMNS | INTERNAL_COLUMNS
    payload = dataset.items.drop_columns([name for name in dataset.items.column_names if name in own])
    fields = dataset.fields(tuple(encoder.config.text_fields))
    for start, vectors in zip(
        count(step=BATCH),
        encoder.encode_items(fields, dataset.images, dataset.image_row, BATCH),
        strict=False,
    ):
        part = dataset.items.slice(start, BATCH)
        yield as_items(encoder, payload.slice(start, BATCH), vectors, _pictures(dataset.pictures, part))


def _pictures(path: Path, items: pa.Table) -> list[bytes | None]:
    with path.open("rb") as file:
        found: list[bytes | None] = []
        for offset, length in zip(
            items["picture_offset"].to_pylist(), items["picture_length"].to_pylist(), strict=True
        ):
            file.seek(max(offset, 0))
            found.append(file.read(length) if length else None)
    return found
