"""Search with vectors that are there already: an item's own ("more like this"), or a picture's."""

from typing import Any

import numpy as np

from smar.errors import InputError
from smar.index.base import MAX_HITS, Hit, Mode
from smar.index.embedded import EmbeddedIndex
from smar.index.filters import Filter
from smar.index.query import QueryVectors
from smar.index.vectors import Rows, Vectors


def vectors_of(index: EmbeddedIndex, item_id: str) -> tuple[Vectors, Vectors]:
    """S_m and S_t of an item, float32 [k] each, as they are stored.

    Raises:
        InputError: there is no such item.
    """
    found = index._vectors(np.array([_row_of(index, item_id)]))[0]
    return found[: index.dim], found[index.dim :]


def _row_of(index: EmbeddedIndex, item_id: str) -> int:
    row = index.catalogue.row_of(item_id)
    if row is None:
        raise InputError(f"there is no item {item_id[:100]!r} in this index.")
    return row


def similar(index: EmbeddedIndex, item_id: str, k: int = 10, filter: Filter | None = None) -> list[Hit]:
    """The `k` (1..999) items most like an item, best first, without itself.

    An item's score is ``S_m.S_m' / 2 + S_t.S_t' / 2``; `multimodal_score` and `text_score` are the two products.

    Raises:
        InputError: there is no such item, or k is out of range.
    """
    if not 1 <= k < MAX_HITS:
        raise InputError(f"k is {k}; allowed: 1 to {MAX_HITS - 1}.")
    row = _row_of(index, item_id)
    own = np.ascontiguousarray(index._vectors(np.array([row])), np.float32)
    found = index._top(np.float32(0.5) * own, k + 1, filter)[0]
    return _hits(index, found[found != row][:k], own[0])


def by_vector(index: EmbeddedIndex, vector: Vectors, k: int = 10, filter: Filter | None = None) -> list[Hit]:
    """The `k` (1..1000) items whose S_m is nearest to a unit vector [k] of the index's model, best first.

    Raises:
        InputError: the vector has another size or is no unit vector, or k is out of range.
    """
    length = float(np.linalg.norm(vector)) if vector.shape == (index.dim,) else 0.0
    if not abs(length - 1) < 0.01:  # written so that NaN fails too
        raise InputError(f"the vector has shape {vector.shape} and length {length:.3f}; wanted: ({index.dim},) and 1.")
    query = QueryVectors(vector[None].astype(np.float32), np.ones(1, np.float32))
    return index.search(query, k, Mode.MULTIMODAL, filter)[0]


def _hits(index: EmbeddedIndex, rows: Rows, own: Vectors) -> list[Hit]:
    block = index._vectors(rows) * own
    multimodal, text = block[:, : index.dim].sum(1), block[:, index.dim :].sum(1)
    payload: list[dict[str, Any]] = index.catalogue.items(rows.tolist())
    return [
        Hit(
            item_id=item["item_id"],
            score=float(multimodal[at] + text[at]) / 2,
            text_score=float(text[at]),
            multimodal_score=float(multimodal[at]),
            rank_text=None,
            row=int(rows[at]),
            has_picture=index.catalogue.has_picture(int(rows[at])),
            payload=item,
        )
        for at, item in enumerate(payload)
    ]
