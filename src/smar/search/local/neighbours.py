"""Search with vectors that are there already: an item's own ("more like this"), or a picture's."""

import numpy as np

from smar.core.errors import InputError
from smar.search.embeddings import not_unit
from smar.search.filters import Filter
from smar.search.local.open_version import EmbeddedIndex
from smar.search.protocol import MAX_HITS
from smar.search.ranked import Queries, Ranked, Vectors

_HALF = np.full(1, 0.5, np.float32)
_ALL = np.ones(1, np.float32)


def similar(index: EmbeddedIndex, item_id: str, k: int = 10, filter: Filter | None = None) -> Ranked:
    """The `k` (1..999) items most like an item, best first, without itself.

    An item's score is ``S_m.S_m' / 2 + S_t.S_t' / 2``; `multimodal_score` and `text_score` are the two products.

    Raises:
        InputError: there is no such item, or k is out of range.
    """
    if not 1 <= k < MAX_HITS:
        raise InputError(f"k is {k}; allowed: 1 to {MAX_HITS - 1}.")
    row = index.catalogue.row_of(item_id)
    if row is None:
        raise InputError(f"there is no item {item_id[:100]!r} in this index.")
    multimodal, text = index.vectors(row)
    found = index.nearest(Queries(multimodal[None], _HALF, text[None]), k + 1, filter)[0]
    return found.pick(np.flatnonzero(found.rows != row)[:k])


def by_vector(index: EmbeddedIndex, vector: Vectors, k: int = 10, filter: Filter | None = None) -> Ranked:
    """The `k` (1..1000) items whose S_m is nearest to a unit vector [k] of the index's model, best first.

    Raises:
        InputError: the vector has another size or is no unit vector, or k is out of range.
    """
    if vector.shape != (index.dim,) or not_unit(vector[None]) is not None:
        length = float(np.linalg.norm(vector))
        raise InputError(f"the vector has shape {vector.shape} and length {length:.3f}; wanted: ({index.dim},) and 1.")
    return index.nearest(Queries(vector[None], _ALL), k, filter)[0]
