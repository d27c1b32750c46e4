"""What changed since a version was built, in memory: new and replaced items, and which rows are gone.

The log is replayed into it. Vectors lie in a buffer that only grows, so that an index opened earlier keeps seeing its
own part of it; everything else that a search reads is copied when a new segment is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.errors import InputError
from smar.index.base import INTERNAL_COLUMNS
from smar.index.catalogue import Catalogue
from smar.index.columns import Mask, one_array
from smar.index.embeddings import not_unit
from smar.index.growing import GrowingWords
from smar.index.ranked import Vectors
from smar.index.ready import FreshJson
from smar.index.segment import Segment
from smar.index.vectors import VectorStore
from smar.index.words import WordIndex

_MANY = 200  # from so many ids on, one hash table over all ids beats a binary search for each
VECTORS = ("text", "multimodal")
PICTURE = "picture"


@dataclass(frozen=True, slots=True)
class Items:
    """Items to upsert: their columns (`payload`, with item_id) and what the model made of them.

    `text` and `multimodal` are float32 unit vectors [n, k] of the model `fingerprint`; `pictures` are encoded pictures
    for display, None for none. `mixed`: the model has an item-side gate, and `multimodal` holds each item's mixture
    P S_m + (1 - P) S_t, which may be shorter.
    """

    fingerprint: str
    payload: pa.Table
    text: Vectors
    multimodal: Vectors
    pictures: Sequence[bytes | None]
    mixed: bool = False

    def as_table(self, schema: pa.Schema, fingerprint: str, dim: int) -> pa.Table:
        """The log's form of them; `schema` is the index's item columns.

        Raises:
            InputError: another model, wrong shapes or norms, unknown columns or values, ids that are missing or double.
        """
        if self.fingerprint != fingerprint:
            raise InputError(
                f"the items' vectors are of model {self.fingerprint}, the index is of model {fingerprint}; "
                "their scores would mean nothing. Encode them with the run that the index was made of."
            )
        payload = _fit(self.payload, schema)
        if len(self.pictures) != payload.num_rows:
            raise InputError(
                f"{len(self.pictures)} pictures for {payload.num_rows} items; give None where there is none."
            )
        for name in VECTORS:
            mixed = self.mixed and name == "multimodal"
            _check_vectors(name, getattr(self, name), payload.num_rows, dim, mixed)
            flat = pa.array(getattr(self, name).astype(np.float32).ravel())
            payload = payload.append_column(f"__{name}", pa.FixedSizeListArray.from_arrays(flat, dim))
        return payload.append_column(f"__{PICTURE}", pa.array(self.pictures, pa.binary()))


def _fit(payload: pa.Table, schema: pa.Schema) -> pa.Table:
    unknown = sorted(set(payload.column_names) - set(schema.names) - INTERNAL_COLUMNS)
    if unknown or "item_id" not in payload.column_names:
        raise InputError(
            f"the items' columns {payload.column_names} do not fit: item_id is needed, and {unknown or 'nothing else'} "
            f"is unknown. The index has: {', '.join(schema.names)}."
        )
    columns = []
    for field in schema:
        try:
            column = payload[field.name].cast(field.type) if field.name in payload.column_names else None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(f"column {field.name} of the items does not fit {field.type}: {error}") from None
        columns.append(pa.nulls(payload.num_rows, field.type) if column is None else column)
    ids = payload["item_id"]
    if ids.null_count or pc.count_distinct(ids).as_py() != len(ids):
        raise InputError("item_id is missing for some items or occurs twice in one upsert; give every item one id.")
    return pa.table(columns, schema=schema.remove_metadata())


def _check_vectors(name: str, vectors: Vectors, rows: int, dim: int, mixed: bool) -> None:
    if vectors.shape != (rows, dim):
        raise InputError(f"{name} vectors have shape {vectors.shape}, expected ({rows}, {dim}).")
    if (row := not_unit(vectors, mixed)) is not None:
        raise InputError(f"row {row} of the {name} vectors is not a unit vector.")


class _Changed(Catalogue):
    """The catalogue of a delta: ids by a dictionary, pictures where the log holds them."""

    def __init__(
        self, table: pa.Table, pictures: pa.ChunkedArray, row_of: dict[str, int], json: dict[int, bytes]
    ) -> None:
        lengths = pc.fill_null(pc.binary_length(pictures), 0).to_numpy().astype(np.int64)
        super().__init__(table, None, FreshJson(table, lengths > 0, json))
        self._own, self._rows, self._length = pictures, row_of, lengths

    def row_of(self, item_id: str) -> int | None:
        """Row of the item's latest form."""
        return self._rows.get(item_id)

    def picture(self, row: int) -> bytes | None:
        """The encoded picture of an item, None when it has none."""
        picture: bytes | None = self._own[row].as_py() if self.has_picture(row) else None
        return picture


class Delta:
    """Changes on top of `base`, applied record by record."""

    def __init__(self, base: Segment, dim: int) -> None:
        self._base, self._dim = base, dim
        self._base_dead: Mask = np.zeros(len(base.store), np.bool_)
        self._vectors: Vectors = np.empty((0, 2 * dim), np.float32)
        self._dead: Mask = np.zeros(0, np.bool_)
        self._tables: list[pa.Table] = []
        self._pictures: list[pa.ChunkedArray] = []
        self._rows: dict[str, int] = {}
        self._json: dict[int, bytes] = {}  # rows are never reused, so what was encoded once stays right
        self._words = GrowingWords(base.words) if isinstance(base.words, WordIndex) else None
        self.count = 0

    def apply(self, table: pa.Table, upsert: bool) -> None:
        """One record of the log."""
        ids = table["item_id"].to_pylist()
        self._kill(table["item_id"], ids)
        if not upsert:
            return
        start, self.count = self.count, self.count + len(ids)
        self._grow()
        for at, name in enumerate(("__multimodal", "__text")):
            block = table[name].combine_chunks().flatten().to_numpy().reshape(-1, self._dim)
            self._vectors[start : self.count, at * self._dim : (at + 1) * self._dim] = block
        self._rows.update(zip(ids, range(start, self.count), strict=True))
        schema = self._base.catalogue.table.schema
        # logs may say of a column that it has no nulls; the index's own columns may have some
        self._tables.append(pa.Table.from_arrays(table.select(schema.names).columns, schema=schema))
        self._pictures.append(table[f"__{PICTURE}"])
        if self._words is not None:
            self._words.add(self._tables[-1])

    def _kill(self, column: pa.ChunkedArray, ids: list[str]) -> None:
        for item_id in ids:
            if (row := self._rows.pop(item_id, None)) is not None:
                self._dead[row] = True
        if len(ids) < _MANY:
            rows = [row for row in map(self._base.catalogue.row_of, ids) if row is not None]
        else:
            found = pc.index_in(column, value_set=one_array(self._base.catalogue.table["item_id"]))
            rows = found.drop_null().to_numpy()
        self._base_dead[rows] = True

    def _grow(self) -> None:
        if self.count > len(self._vectors):
            grown = np.empty((max(1024, 2 * self.count), 2 * self._dim), np.float32)
            grown[: len(self._vectors)] = self._vectors
            self._vectors = grown
            self._dead = np.concatenate([self._dead, np.zeros(len(grown) - len(self._dead), np.bool_)])

    @property
    def base_dead(self) -> int:
        """How many rows of the base are deleted or replaced."""
        return int(self._base_dead.sum())

    def segments(self) -> list[Segment]:
        """The base without its dead rows, and the changes as a segment of their own when there are any."""
        base = Segment(self._base.store, self._base.catalogue, dead=self._base_dead.copy(), words=self._base.words)
        if self.count == 0:
            return [base]
        self._tables = [pa.concat_tables(self._tables).combine_chunks()]
        pictures = pa.chunked_array(_chunks(self._pictures), pa.binary())
        catalogue = _Changed(self._tables[0], pictures, dict(self._rows), self._json)
        store = VectorStore(None, self._vectors[: self.count], None)
        words = None if self._words is None else self._words.view()
        return [base, Segment(store, catalogue, len(self._base.store), self._dead[: self.count].copy(), words)]


def _chunks(columns: list[pa.ChunkedArray]) -> list[pa.Array]:
    return [chunk for column in columns for chunk in column.chunks]
