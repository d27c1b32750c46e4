"""Items that change without their pictures: only words that become others are encoded."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.data.dataset import text_columns
from smar.model.encoder import Encoder, Floats, ItemVectors
from smar.search.items import Items
from smar.search.local import EmbeddedIndex, UpdatableIndex
from smar.search.ranked import Rows

_LEAST_SHARE = 0.01


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


class Words(NamedTuple):
    """What becomes of items whose words change and whose pictures stay."""

    read: Callable[[EmbeddedIndex], set[str]]
    """Columns that are words."""
    encode: Callable[[EmbeddedIndex, Sequence[dict[str, Any]]], Items]
    """Encodes items as they are to be: all their columns."""


def words_of(encoder: Encoder) -> Words:
    """Those of a model."""
    return Words(partial(read_columns, encoder), partial(reworded, encoder))


def change_columns(index: UpdatableIndex, rows: Sequence[dict[str, Any]], words: Words) -> int:
    """Change columns of items that are there; only those whose words become others are encoded.

    Args:
        index: whose items they are.
        rows: `item_id` and the columns to change, each id once.
        words: of the index's model.

    Returns:
        How many items were encoded.
    """
    read, snapshot = words.read(index.snapshot), index.snapshot
    plain = [row for row in rows if not read & row.keys()]
    asked = [row for row in rows if read & row.keys()]
    places = [snapshot.catalogue.row_of(row["item_id"]) for row in asked]
    now = snapshot.catalogue.items([place for place in places if place is not None]) if asked else []
    others = [{name for name in row if row[name] != old[name]} for row, old in zip(asked, now, strict=True)]
    found = list(zip(asked, now, others, strict=True))
    if whole := [old | row for row, old, other in found if other & read]:
        index.upsert(words.encode(snapshot, whole))
    rest = [(row, other) for row, _, other in found if other and not other & read]
    plain += [{name: row[name] for name in ("item_id", *sorted(other))} for row, other in rest]
    if plain:
        index.patch(*_tables(plain, snapshot.schema))
    return len(whole)


def _tables(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> list[pa.Table]:
    """A table for each set of columns that is changed."""
    alike: dict[frozenset[str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        alike[frozenset(row)].append(row)
    return [
        pa.Table.from_pylist(some, pa.schema([schema.field(name) for name in schema.names if name in names]))
        for names, some in alike.items()
    ]


def read_columns(encoder: Encoder, index: EmbeddedIndex) -> set[str]:
    """Columns whose change asks for other vectors or other words: what the towers, the gate and BM25 read."""
    hybrid = index.manifest.hybrid
    return {*(encoder.config.text_fields or ()), *(() if hybrid is None else hybrid.fields)}


def reworded(encoder: Encoder, index: EmbeddedIndex, rows: Sequence[dict[str, Any]]) -> Items:
    """Items of the index as they are to be, with the pictures that they have.

    S_t is that of the new words; an item without a picture gets both vectors anew. With a picture S_m stays what the
    fusion made of it and of the words before, as the index holds no picture of the model's size; a model that only
    adds S_t and S_i (kind clip) gets the very S_m that it would give.

    Args:
        encoder: the index's model.
        index: the index as it is.
        rows: all columns of each item, each id once; `item_id` names an item of the index.
    """
    catalogue = index.catalogue
    places = [catalogue.row_of(row["item_id"]) for row in rows]
    at = np.array([place for place in places if place is not None], np.int64)
    payload = pa.Table.from_pylist(list(rows), schema=index.schema.remove_metadata())
    fields = text_columns(payload, encoder.config.text_fields)
    new = _without_pictures(encoder, fields, len(rows))
    seen = catalogue.pictured(at) | np.array([row.get("image_status") == "ok" for row in rows])
    if seen.any():
        old = index.catalogue.items(at.tolist())
        before = text_columns(pa.Table.from_pylist(old, payload.schema), encoder.config.text_fields)
        new = _seen(encoder, (before, fields), new, _stored(index, at), seen)
    return as_items(encoder, payload, new, [catalogue.picture(int(row)) for row in at])


def _without_pictures(encoder: Encoder, fields: list[list[str]], count: int) -> ItemVectors:
    size = 1 if encoder.config.kind == "dpsr" else encoder.processor.image_processor.size["height"]
    none = np.zeros((0, size, size, 3), np.uint8)
    (vectors,) = encoder.encode_items(fields, none, np.full(count, -1), count)
    return vectors


def _stored(index: EmbeddedIndex, rows: Rows) -> tuple[Floats, Floats]:
    both = [index.vectors(int(row)) for row in rows]
    return np.stack([served for served, _ in both]), np.stack([text for _, text in both])


def _seen(
    encoder: Encoder,
    fields: tuple[list[list[str]], list[list[str]]],
    new: ItemVectors,
    stored: tuple[Floats, Floats],
    seen: npt.NDArray[np.bool_],
) -> ItemVectors:
    """Vectors of the new words where an item's picture was `seen` [n]: `fields` and `stored` are those of before."""
    served, text = stored
    kind, words = encoder.config.kind, new.text
    if kind == "dpsr":
        return new
    if kind == "dpsr-i":  # it reads no words
        words = np.where(seen[:, None], text, new.text)
    elif kind == "clip":  # S_m is the unit vector of S_t + S_i, so S_i is S_t mirrored at it
        image = 2 * (served * text).sum(1, keepdims=True) * served - text
        served = _unit(new.text + image)
    elif encoder.config.category_share is not None:
        old, now = (encoder.share(part)[:, None] for part in fields)
        alone = _unit((served - (1 - old) * text) / np.maximum(old, _LEAST_SHARE))
        alone = np.where(old < _LEAST_SHARE, new.multimodal, alone)  # hardly any of it is left in the mixture
        served = now * alone + (1 - now) * new.text
    vectors = np.where(seen[:, None], served, new.served).astype(np.float32)
    return ItemVectors(words, new.image, new.multimodal, seen, vectors)


def _unit(vectors: npt.NDArray[Any]) -> Floats:
    unit: Floats = (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return unit
