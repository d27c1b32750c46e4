"""Items that are to be written into an index: columns, vectors and pictures, checked against what the index holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.core.errors import InputError
from smar.search.embeddings import INTERNAL_COLUMNS, not_unit
from smar.search.ranked import Vectors

VECTORS = ("text", "multimodal")
PICTURE = "picture"


class RefusedItems(InputError):
    """Items that do not fit the index they are for; nothing was written."""


class OtherModel(RefusedItems):
    """The items' vectors are of another model than the index."""


@dataclass(frozen=True, slots=True)
class Items:
    """Items to upsert: their columns (`payload`, with item_id) and what the model made of them.

    `text` and `multimodal` are float32 unit vectors [n, k] of the model `fingerprint`; `pictures` are encoded pictures
    for display, None for none. `mixed`: the model has an item-side gate, and `multimodal` holds each item's mixture
    P S_m + (1 - P) S_t, which may be shorter.

    >>> payload, one = pa.table({"item_id": ["a"], "title": ["Red dress"]}), np.eye(1, 32, dtype=np.float32)
    >>> Items("0123456789abcdef", payload, one, one, [None]).payload.num_rows
    1
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
            OtherModel: the vectors are of another model.
            RefusedItems: wrong shapes or norms, unknown columns or values, ids that are missing or double.
        """
        if self.fingerprint != fingerprint:
            raise OtherModel(
                f"the items' vectors are of model {self.fingerprint}, the index is of model {fingerprint}; "
                "their scores would mean nothing. Encode them with the run that the index was made of."
            )
        payload = fit(self.payload, schema)
        if len(self.pictures) != payload.num_rows:
            raise RefusedItems(
                f"{len(self.pictures)} pictures for {payload.num_rows} items; give None where there is none."
            )
        for name in VECTORS:
            mixed = self.mixed and name == "multimodal"
            _check_vectors(name, getattr(self, name), payload.num_rows, dim, mixed)
            flat = pa.array(getattr(self, name).astype(np.float32).ravel())
            payload = payload.append_column(f"__{name}", pa.FixedSizeListArray.from_arrays(flat, dim))
        return payload.append_column(f"__{PICTURE}", pa.array(self.pictures, pa.binary()))


def fit(payload: pa.Table, schema: pa.Schema, whole: bool = True) -> pa.Table:
    """The columns in the types of `schema`; `whole`: all of them, null where none is given.

    Raises:
        RefusedItems: unknown columns or values, ids that are missing or double.
    """
    unknown = sorted(set(payload.column_names) - set(schema.names) - INTERNAL_COLUMNS)
    if unknown or "item_id" not in payload.column_names:
        raise RefusedItems(
            f"the items' columns {payload.column_names} do not fit: item_id is needed, and {unknown or 'nothing else'} "
            f"is unknown. The index has: {', '.join(schema.names)}."
        )
    columns = []
    if not whole:
        schema = pa.schema([field for field in schema if field.name in payload.column_names])
    for field in schema:
        try:
            column = payload[field.name].cast(field.type) if field.name in payload.column_names else None
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise RefusedItems(f"column {field.name} of the items does not fit {field.type}: {error}") from None
        columns.append(pa.nulls(payload.num_rows, field.type) if column is None else column)
    ids = payload["item_id"]
    if ids.null_count or pc.count_distinct(ids).as_py() != len(ids):
        raise RefusedItems("item_id is missing for some items or occurs twice in one upsert; give every item one id.")
    return pa.table(columns, schema=schema.remove_metadata())


def _check_vectors(name: str, vectors: Vectors, rows: int, dim: int, mixed: bool) -> None:
    if vectors.shape != (rows, dim):
        raise RefusedItems(f"{name} vectors have shape {vectors.shape}, expected ({rows}, {dim}).")
    if (row := not_unit(vectors, mixed)) is not None:
        raise RefusedItems(f"row {row} of the {name} vectors is not a unit vector.")
