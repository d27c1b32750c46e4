"""Vectors of all items for a report: encoded in this process, or in parts by tasks on the nodes of a Ray cluster."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from smar.core.errors import InputError
from smar.core.progress import track
from smar.data.dataset import Dataset
from smar.evaluation.metrics import Integers
from smar.evaluation.scores import Catalogue
from smar.model.device import CPU, pick_device
from smar.model.encoder import Encoder, Floats
from smar.model.picture_batches import BATCH
from smar.model.start import load_start, start_key
from smar.runners.run import run

PART_ITEMS = 16 * BATCH
"""Items of a task: whole batches, so that each batch, and with it each vector, is that of one process."""
Arrays = tuple[Floats, Floats, Floats]
"""`text`, `image`, `served` of some items, each [n, k]."""


@dataclass(frozen=True)
class Place:
    """What encodes: a `device` of this process; with Ray, the `choice` (`auto`, `cpu`, `cuda`) of each task."""

    device: torch.device = CPU
    choice: str = "cpu"
    runner: str = "local"


HERE = Place()


@dataclass(frozen=True)
class Start:
    """What a run's model, or its baseline's, was before the first step: another process makes it again from this."""

    run: Path
    baseline: str | None

    def __call__(self) -> Encoder | None:
        """The model as it began; None where it began from nothing."""
        return load_start(self.run, self.baseline)


@dataclass(frozen=True, eq=False)
class CataloguePart:
    """Items from row `start` on; `rows` locate their pictures."""

    what: str
    start: int
    rows: Integers

    def __str__(self) -> str:
        stop = self.start + len(self.rows) - 1
        return f"encode items ({self.what}): rows {self.start:,} to {stop:,} of items.parquet"


@dataclass(frozen=True)
class CatalogueTask:
    """Encodes parts in another process, which reads model and dataset once."""

    model: Path | Start
    key: str
    dataset: Path
    bf16: bool
    device: str

    def __call__(self, part: CataloguePart) -> tuple[int, Arrays]:
        """The first row of a part, and its vectors."""
        encoder, dataset = self.opened()
        here = slice(part.start, part.start + len(part.rows))
        fields = [field[here] for field in dataset.fields(tuple(encoder.config.text_fields))]
        return part.start, _joined(encoder.encode_items(fields, dataset.images, part.rows))

    @lru_cache(maxsize=1)  # noqa: B019 - one model and dataset a process
    def opened(self) -> tuple[Encoder, Dataset]:
        """The model on its device, and the dataset.

        Raises:
            InputError: the model is another one than that of the process which asked.
        """
        device = pick_device(self.device)
        if isinstance(self.model, Start):
            encoder, name = self.model(), self.model.run
        else:
            encoder, name = Encoder.from_pretrained(self.model, self.bf16, device), self.model
        if encoder is None or _key(encoder) != self.key:
            raise InputError(f"the model of {name} is another one here, or was changed meanwhile.")
        encoder.model.to(device)
        return encoder, Dataset.open(self.dataset)


def encode_catalogue(
    encoder: Encoder,
    dataset: Dataset,
    what: str,
    image_row: Integers | None = None,
    place: Place = HERE,
    start: Start | None = None,
) -> Catalogue:
    """Encode every item.

    Args:
        encoder: where `place` says; with Ray, tasks load it anew from its folder, or from `start` where it has none.
        dataset: whose items are encoded.
        what: names the model in the progress bar and where a part fails.
        image_row: gives the items other pictures than the dataset does.
        place: what encodes.
        start: see encoder.

    Raises:
        InputError: with Ray, a part's process died again and again, or a node reads another model.
    """
    rows = dataset.image_row if image_row is None else image_row
    if place.runner == "local":
        fields = dataset.fields(tuple(encoder.config.text_fields))
        batches = encoder.encode_items(fields, dataset.images, rows)
        found = _joined(track(batches, f"encode items ({what})", -(-len(rows) // BATCH)))
    else:
        found = _in_parts(encoder, dataset, what, rows, place, start)
    text, image, multimodal = found
    return Catalogue(text, image, text if np.array_equal(text, multimodal) else multimodal)


def _in_parts(
    encoder: Encoder, dataset: Dataset, what: str, rows: Integers, place: Place, start: Start | None
) -> Arrays:
    model = start if encoder.folder is None else encoder.folder.absolute()
    if model is None:
        raise InputError("tasks of Ray read the model from its folder: load it by Encoder.from_pretrained.")
    task = CatalogueTask(model, _key(encoder), dataset.path.absolute(), encoder.bf16, place.choice)
    starts = range(0, len(rows), PART_ITEMS)
    parts = [CataloguePart(what, at, rows[at : at + PART_ITEMS]) for at in starts]
    done = run([task], parts, len(parts), f"encode items ({what}), parts", place.runner, place.choice != "cpu")
    made = dict(done)
    return _stacked([made[at] for at in starts])


def _key(encoder: Encoder) -> str:
    return encoder.fingerprint or start_key(encoder)


def _joined(batches: Iterator[object]) -> Arrays:
    return _stacked([tuple(getattr(batch, name) for name in ("text", "image", "served")) for batch in batches])


def _stacked(parts: list[Arrays]) -> Arrays:
    text, image, served = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return text, image, served
