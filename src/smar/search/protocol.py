"""What every engine offers: query vectors in, ranked hits out; items in and out of the catalogue.

An item has a text vector S_t and a multimodal vector S_m; a query has a vector Q and the gate's probability p
that pictures help. Adaptive search ranks by ``p * Q.S_m + (1-p) * Q.S_t``. With item vectors ``[S_m ; S_t]``
and query vectors ``[p*Q ; (1-p)*Q]`` that sum is one inner product, so one index of 2k dimensions serves every
mode exactly.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.core.errors import InputError, member
from smar.search.counts import ColumnCounts
from smar.search.filters import Filter
from smar.search.query import QueryEncoder, QueryVectors

if TYPE_CHECKING:
    from smar.search.items import Items

MAX_HITS = 1000
"""Largest k of one search: the hits' exact scores are computed one by one."""


class Mode(StrEnum):
    """Which of an item's vectors are searched."""

    ADAPTIVE = "adaptive"
    ROUTE = "route"
    TEXT = "text"
    MULTIMODAL = "multimodal"
    HYBRID = "hybrid"
    """The adaptive ranking fused with BM25 (`smar.search.local.fusion`); needs the queries' texts."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One found item, with what explains its place.

    `score` is what it was ranked by; `text_score` and `multimodal_score` are exact inner products from the
    stored vectors; `words_score` is the BM25 score where words take part, else None. `rank_text` is its rank (from 1)
    had pictures been left out; None when not asked for or beyond `MAX_HITS`.

    >>> from smar.serving.engine import Engine
    >>> hit = Engine.open("index").search("red dress", k=1).hits[0]
    >>> sorted(hit.payload)[:3], hit.payload["item_id"] == hit.item_id
    (['brand', 'category', 'group'], True)
    """

    item_id: str
    score: float
    text_score: float
    multimodal_score: float
    rank_text: int | None
    row: int
    has_picture: bool
    payload: Mapping[str, Any]
    words_score: float | None = None


class Index(Protocol):
    """A searchable catalogue of one model, whatever holds it: the embedded engine, or one behind a URL.

    `smar.search.local.LocalIndex` and `smar.search.remote_index.RemoteIndex` are the two that there are; one contract
    (``tests/search/test_engines.py``) holds both to exact search.
    """

    @property
    def fingerprint(self) -> str:
        """Of the model that made the vectors; only its own query encoder may search them."""

    @property
    def dim(self) -> int:
        """k, the size of one query vector."""

    @property
    def schema(self) -> pa.Schema:
        """Item columns that filters may name."""

    @property
    def encoder(self) -> QueryEncoder:
        """Of the model that made the vectors; raises InputError where it is of another one, or damaged."""

    def __len__(self) -> int:
        """Number of items."""

    def search(
        self,
        vectors: QueryVectors,
        k: int = 10,
        mode: Mode | str = Mode.ADAPTIVE,
        filter: Filter | None = None,
        explain: bool = False,
    ) -> list[list[Hit]]:
        """The best `k` (1..MAX_HITS) items of each query, best first; fewer only when fewer match the filter.

        Raises:
            InputError: `k` is out of range, there is no such mode, or the engine does not answer it.
            EngineDown: the engine does not answer at all.
        """

    def similar(self, item_id: str, k: int = 10, filter: Filter | None = None) -> list[Hit]:
        """The `k` (1..999) items most like an item, best first, without itself; InputError where there is no such."""

    def count(self, filter: Filter | None = None) -> int:
        """How many items match."""

    def facet(self, name: str, filter: Filter | None = None, top: int = 30) -> ColumnCounts:
        """How often the values of a column occur among all that matches."""

    def item(self, item_id: str) -> Mapping[str, Any] | None:
        """The columns of an item, None when there is none."""

    def picture(self, item_id: str) -> bytes | None:
        """The encoded picture of an item, None when it has none."""

    def upsert(self, items: "Items") -> int:
        """Add items, replacing those of the same id; returns their number. Durable once it has returned.

        Raises:
            RefusedItems: the items do not fit the index, or (OtherModel) are of another model.
        """

    def delete(self, ids: Sequence[str]) -> int:
        """Remove items; returns how many there were."""

    def check(self) -> None:
        """Run a real query; raises RuntimeError or EngineDown where it gives no ranked item."""
        found = self.search(self.encoder.encode(["ready"]), 1, Mode.TEXT)[0]
        if not found or not np.isfinite(found[0].score):
            raise RuntimeError(f"a probe query of {type(self).__name__} found {len(found)} items")


class EngineDown(OSError):
    """The engine behind an index does not answer; the message names the engine and what it said."""


def check_k(k: int) -> None:
    """Raise InputError where no search answers with `k` hits."""
    if not 1 <= k <= MAX_HITS:
        raise InputError(f"k is {k}; allowed: 1 to {MAX_HITS}.")


def weigh(vectors: QueryVectors, mode: Mode | str) -> npt.NDArray[np.float32]:
    """Share of the multimodal score in each query's score, float32 [n]: p when adaptive or hybrid, else 0 or 1.

    Routing rounds p to 0 or 1 at the model's threshold. Raises InputError where there is no such mode.
    """
    mode = member(Mode, mode, "mode")
    if mode in (Mode.ADAPTIVE, Mode.HYBRID):
        return vectors.image_probability.astype(np.float32)
    if mode is Mode.ROUTE:
        return (vectors.image_probability > vectors.threshold).astype(np.float32)
    return np.full(len(vectors.embedding), mode is Mode.MULTIMODAL, np.float32)


def widen(vectors: QueryVectors, mode: Mode | str) -> npt.NDArray[np.float32]:
    """Query vectors of the 2k-dim index, float32 [n, 2k]: ``[w*Q ; (1-w)*Q]`` with w from `weigh`."""
    share = weigh(vectors, mode)[:, None]
    return np.concatenate([share * vectors.embedding, (1 - share) * vectors.embedding], axis=1, dtype=np.float32)
