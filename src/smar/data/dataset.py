"""The prepared dataset on disk: its manifest, and the reader that every later stage shares."""

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from smar.core.errors import InputError, one_of
from smar.core.files import FileEntry, Manifest, StrPath, sha256

OWN_COLUMNS = frozenset({"image_row", "image_rows", "clicked_in_train"})
"""Item columns that only a dataset has: where its packed pictures are, and what its log says."""
FORMAT: Final = "smar-dataset/1"
Part = Literal["train", "valid", "test"]
PARTS: tuple[Part, ...] = get_args(Part)
SUGGESTIONS_FILE = "suggestions.parquet"


class DatasetManifest(Manifest):
    """``manifest.json`` of a dataset. It holds no clock time, so equal inputs give equal bytes."""

    format: Literal["smar-dataset/1"] = FORMAT
    counts: dict[str, int]
    """Items, pictures, pairs, clicks, rejects: see `smar.data.prepare`."""
    image_status: dict[str, int]
    """Picture status -> items."""
    settings: dict[str, Any]
    """The data section of the configuration as applied (without default fields that the catalogue lacks)."""
    test_from: datetime | None
    """First moment of the test period (UTC); None when the table has no time and was split by a hash."""
    valid_from: datetime | None
    image_size: int
    files: dict[str, FileEntry]
    """Path inside the folder -> size and checksum."""


class Dataset:
    """A dataset folder made by ``smar prepare``, opened for reading. Tables are read on first use.

    >>> dataset = Dataset.open("dataset")
    >>> dataset.text_fields
    ('title', 'category', 'brand')
    >>> dataset.pairs("train").column_names[:2]
    ['query', 'item_index']
    """

    def __init__(self, path: Path, manifest: DatasetManifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: StrPath) -> "Dataset":
        """Open a dataset; raises InputError if it is none, or a file is missing or has another size."""
        path = Path(path)
        manifest = DatasetManifest.read(path, "smar prepare")
        for name, entry in manifest.files.items():
            file = path / name
            size = file.stat().st_size if file.is_file() else None
            if size != entry.size:
                seen = "is missing" if size is None else f"has {size:,} bytes instead of {entry.size:,}"
                raise InputError(f"{file} {seen}: the dataset is damaged. Run `smar prepare` again.")
        return cls(path, manifest)

    def _read(self, name: str) -> pa.Table:
        try:
            return pq.read_table(self.path / name)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{self.path / name} cannot be read ({error}). Run `smar prepare` again.") from None

    @cached_property
    def items(self) -> pa.Table:
        """The catalogue; the row number is the item_index of every other file."""
        return self._read("items.parquet")

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """Packed pictures uint8 [rows, S, S, 3], RGB, memory-mapped; see `image_row`."""
        file = self.path / "images.npy"
        images: NDArray[np.uint8] = np.load(file, mmap_mode="r" if self.manifest.counts["images_packed"] else None)
        return images

    @cached_property
    def image_row(self) -> NDArray[np.int64]:
        """Row of each item's picture in `images`, int64 [items]; -1 where it has none.

        Where an item has several, int64 [items, most]: an item's rows follow each other, and -1 fills up.
        """
        first = np.asarray(self.items["image_row"].to_numpy(), dtype=np.int64)
        if "image_rows" not in self.items.column_names:  # a dataset from before there could be several
            return first
        count = np.asarray(self.items["image_rows"].to_numpy(), dtype=np.int64)
        if count.max() <= 1:
            return first
        number = np.arange(count.max())
        return np.where(number < count[:, None], first[:, None] + number, -1)

    @cached_property
    def digest(self) -> str:
        """Identity of the dataset: SHA-256 of its manifest, which holds the checksums of all its files."""
        return sha256(self.path / "manifest.json")

    @property
    def text_fields(self) -> tuple[str, ...]:
        """``data.text_fields`` as applied: the item columns that are the item's text."""
        return tuple(self.manifest.settings["text_fields"])

    @property
    def language(self) -> str | None:
        """``data.language``: whose stemmer shortens the words of texts and queries, None for none."""
        return self.manifest.settings.get("language")

    @property
    def slice_columns(self) -> tuple[str, ...]:
        """``data.slice_columns`` as applied: the item columns whose values are report slices."""
        return tuple(self.manifest.settings["slice_columns"])

    @property
    def pictures(self) -> Path:
        """File of the display pictures; items have picture_offset and picture_length in it."""
        return self.path / "pictures.bin"

    def pairs(self, part: Part) -> pa.Table:
        """Pairs of a part; columns query, item_index, clicks, orders, weight, first_click, last_click,
        seen_in_train.
        """
        if part not in get_args(Part):
            raise one_of(part, get_args(Part), "the part of a dataset")
        return self._read(f"pairs/{part}.parquet")

    def qrels(self) -> pa.Table:
        """Judgements of the test part: query, item_id, relevance (1 clicked, 2 ordered, or what its table says)."""
        return self._read("qrels.parquet")

    def queries(self) -> pa.Table | None:
        """Query attributes (query + the user's columns), None if none were given."""
        return self._read("queries.parquet") if "queries.parquet" in self.manifest.files else None

    def suggestions(self) -> pa.Table | None:
        """Frequent queries (query, asked), the most frequent first; None where none were to be kept."""
        kept = any(Path(file).parts[0] == SUGGESTIONS_FILE for file in self.manifest.files)  # or a folder of parts
        return self._read(SUGGESTIONS_FILE) if kept else None

    def rejects(self) -> pa.Table:
        """Every rejected row: table, row, key, reason."""
        return self._read("rejects.parquet")

    def fields(self, names: tuple[str, ...] | list[str]) -> list[list[str]]:
        """One list of strings per named item column, in item order; null becomes the empty string.

        Raises:
            InputError: the dataset has no such column.
        """
        for name in names:
            if name not in self.items.column_names:
                raise one_of(name, self.items.column_names, "an item column")
        return text_columns(self.items, names)


def text_columns(items: pa.Table, names: Sequence[str]) -> list[list[str]]:
    """The item's text as towers read it: one list of strings per named column; null becomes the empty string."""
    return [_texts(items[name]) for name in names]


def _texts(column: pa.ChunkedArray) -> list[str]:
    if pa.types.is_string(column.type):  # in half the time
        texts: list[str] = pc.fill_null(column, "").to_pylist()
        return texts
    return [as_text(value) for value in column.to_pylist()]


def as_text(value: object) -> str:
    """A value of a text field as towers read it."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " ".join(map(as_text, value))
    return str(value)
