"""A trained model for a Python program: texts and pictures in, unit vectors and scores out."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from smar.api.picture_input import squares
from smar.core.errors import InputError, member
from smar.core.files import StrPath
from smar.core.sections.data import DataSettings
from smar.data.dataset import as_text
from smar.data.images import ImageOptions
from smar.data.text import normalise
from smar.model.checkpoint import pinned
from smar.model.device import pick_device
from smar.model.encoder import Encoder as Towers
from smar.model.encoder import Floats, ItemVectors
from smar.model.ragged import rows_of
from smar.model.run_folder import load_encoder, run_settings
from smar.search.protocol import Mode, weigh
from smar.search.query import QueryVectors

_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
Item = Mapping[str, Any]
"""An item: its text fields by name, and under `image` a picture, several, or None; other keys are not read."""


class Encoder:
    """A trained model: queries and items to vectors. `load` makes one; `towers` is the model itself.

    >>> import smar
    >>> encoder = smar.load("run")
    >>> encoder.text_fields
    ('title', 'category', 'brand')
    >>> queries = encoder.encode_query(["red dress", "kettle"])
    >>> queries.embedding.shape, queries.image_probability.shape
    ((2, 32), (2,))
    >>> dress, kettle = {"title": "Summer dress", "image": "dress.jpg"}, {"title": "Kettle", "image": None}
    >>> items = encoder.encode_item([dress, kettle])
    >>> items.has_image.tolist()
    [True, False]
    >>> encoder.score(queries, items).shape
    (2, 2)
    """

    def __init__(self, towers: Towers, options: ImageOptions) -> None:
        self.towers, self._options = towers, options

    @property
    def kind(self) -> str:
        """`smar`, `dpsr`, `dpsr-i` or `clip`."""
        return str(self.towers.config.kind)

    @property
    def text_fields(self) -> tuple[str, ...]:
        """Keys of an item that are its text, in their order."""
        return tuple(self.towers.config.text_fields)

    @property
    def dim(self) -> int:
        """k, the length of a vector."""
        return int(self.towers.config.dim)

    @property
    def fingerprint(self) -> str:
        """Identity of the model, 16 hex digits: vectors of one model and queries of another do not go together."""
        return self.towers.fingerprint

    def encode_query(self, queries: str | Sequence[str]) -> QueryVectors:
        """Queries, however written, to `embedding` float32 [n, k] of length 1 and `image_probability` [n], 0 to 1.

        Raises:
            InputError: something is no text.
        """
        texts = [queries] if isinstance(queries, str) else list(queries)
        for place, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"query {place} is {text!r}; give texts.")
        if not texts:
            return QueryVectors(np.zeros((0, self.dim), np.float32), np.zeros(0, np.float32), self._threshold, ())
        normal = tuple(map(normalise, texts))
        return QueryVectors(*self.towers.encode_queries(normal), self._threshold, normal)

    @property
    def _threshold(self) -> float:
        return float(self.towers.config.threshold)

    def encode_item(self, items: Item | Sequence[Item]) -> ItemVectors:
        """Items to `text`, `image`, `multimodal` and `served` float32 [n, k], and `has_image` [n].

        Raises:
            InputError: an item has nothing that the model reads, a key of it is no text, or a picture cannot be used.
        """
        rows = [items] if isinstance(items, Mapping) else list(items)
        for place, row in enumerate(rows):
            self._check(row, f"item {place}")
        pictures = [self._pictures(row, f"item {place}") for place, row in enumerate(rows)]
        flat = [picture for own in pictures for picture in own]
        size = self._options.size
        images = np.stack(flat) if flat else np.zeros((0, size, size, 3), np.uint8)
        fields = [[as_text(row.get(name)) for row in rows] for name in self.text_fields]
        image_row = rows_of(np.array([len(own) for own in pictures], np.int64))
        found = list(self.towers.encode_items(fields, images, image_row, readers=0))
        if not found:
            none = np.zeros((0, self.dim), np.float32)
            return ItemVectors(none, none, none, np.zeros(0, np.bool_), none)
        names = [field.name for field in dataclass_fields(ItemVectors)]
        return ItemVectors(*(np.concatenate([getattr(part, name) for part in found]) for name in names))

    def _check(self, row: object, where: str) -> None:
        if not isinstance(row, Mapping):
            raise InputError(
                f"{where} is {str(row)[:60]!r}; give a dict such as {{'title': 'Red dress', 'image': None}}."
            )
        if not row.keys() & {*self.text_fields, "image"}:
            raise InputError(
                f"{where} has {', '.join(map(str, row)) or 'no key'}; the model reads {', '.join(self.text_fields)} "
                "and image."
            )

    def _pictures(self, row: Item, where: str) -> list[npt.NDArray[np.uint8]]:
        return [] if self.kind == "dpsr" else squares(row.get("image"), self._options, where)

    def score(
        self,
        queries: str | Sequence[str] | QueryVectors,
        items: Item | Sequence[Item] | ItemVectors,
        mode: Mode | str = Mode.ADAPTIVE,
    ) -> Floats:
        """Scores of each query and item, float32 [queries, items]: ``p Q.S_m + (1 - p) Q.S_t`` in mode `adaptive`.

        `text` and `multimodal` are its two parts alone, `route` is one of them. Words have a voice of their own
        (BM25) in an index only, which knows how rare they are.

        Raises:
            InputError: the mode is unknown or `hybrid`, or as `encode_query` and `encode_item`.
        """
        if member(Mode, mode, "mode") is Mode.HYBRID:
            raise InputError("mode 'hybrid' needs the words of a catalogue: search an index (smar.Index).")
        asked = queries if isinstance(queries, QueryVectors) else self.encode_query(queries)
        found = items if isinstance(items, ItemVectors) else self.encode_item(items)
        share = weigh(asked, mode)[:, None]
        scores: Floats = share * (asked.embedding @ found.served.T) + (1 - share) * (asked.embedding @ found.text.T)
        return scores


def load(name: StrPath, baseline: str | None = None, device: str = "auto") -> Encoder:
    """A trained model: a run, one of its stages, or a model of a hub (``org/name``, ``org/name@revision``).

    >>> import smar
    >>> smar.load("run").dim
    32
    >>> smar.load("run", baseline="dpsr").kind
    'dpsr'

    Args:
        name: folder or hub name.
        baseline: a baseline of the run in place of its own model.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: there is no such model, or it is unfinished or damaged.
    """
    chosen, folder = pick_device(device), Path(name)
    if (folder / "config.json").is_file() or (not folder.exists() and _HUB.fullmatch(str(name))):
        if baseline is not None:
            raise InputError(f"{name} is a single model and has no baseline: give the run.")
        towers = Towers.from_pretrained(folder if folder.exists() else _downloaded(str(name)), device=chosen)
        return Encoder(towers, ImageOptions.of(_framing(towers)))
    return Encoder(load_encoder(folder, baseline, chosen), ImageOptions.of(run_settings(folder).data))


def _framing(towers: Towers) -> DataSettings:
    """How a model alone says that its pictures were made square."""
    config, size = towers.config, towers.processor.image_processor.size["height"]
    return DataSettings(image_size=size, image_fit=config.image_fit, image_resample=config.image_resample)


def _downloaded(name: str) -> Path:
    source, revision = pinned(name)
    try:
        return Path(snapshot_download(source, revision=revision))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise InputError(f"{name} is no folder here, and the hub gives no model of this name: {error}") from None
