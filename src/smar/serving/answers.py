"""Answers of a search as bytes, and the cache that keeps them.

Serialising 50 hits takes 6 us with msgspec and 50 with pydantic (choices.md), so pydantic describes the answer
(`schemas.SearchResponse`, a test compares) and does not write it.
"""

import itertools
from typing import Any

import msgspec
from cachetools import LRUCache

from smar.index.base import Ranked
from smar.index.embedded import EmbeddedIndex
from smar.serving.engine import Question, SearchResult
from smar.serving.wire import picture_url

_encode = msgspec.json.Encoder().encode


class HitLine(msgspec.Struct, gc=False):
    """A hit as it is sent; `schemas.HitOut` describes it. Made 50 times an answer, at half of a dict's cost."""

    rank: int
    item_id: str
    score: float
    text_score: float
    multimodal_score: float
    rank_text: int | None
    words_score: float | None
    picture: str | None
    item: msgspec.Raw


def hits_out(index: EmbeddedIndex, found: Ranked) -> list[HitLine]:
    """What was found as it is sent; each item's own columns are JSON already."""
    rows, catalogue = found.rows, index.catalogue
    none: list[None] = [None] * len(found)
    ids = catalogue.item_ids(rows)
    pictured = zip(ids, catalogue.pictured(rows).tolist(), strict=True)
    columns = zip(
        itertools.count(1),
        ids,
        found.score.tolist(),
        found.text_score.tolist(),
        found.multimodal_score.tolist(),
        none if found.rank_text is None else [rank if rank > 0 else None for rank in found.rank_text.tolist()],
        none if found.words_score is None else found.words_score.tolist(),
        [picture_url(item_id) if shown else None for item_id, shown in pictured],
        map(msgspec.Raw, catalogue.json(rows)),
        strict=False,  # the count has no end
    )
    return list(itertools.starmap(HitLine, columns))


def result_out(result: SearchResult) -> dict[str, Any]:
    """A search's answer as `schemas.SearchResponse` describes it."""
    return {
        "query": result.query,
        "mode": result.mode,
        "image_probability": result.image_probability,
        "routed": result.routed,
        "hits": hits_out(result.index, result.found),
    }


def as_json(value: Any) -> bytes:
    """JSON bytes of an answer."""
    return _encode(value)


class Cache:
    """Finished answers by question, up to `size` bytes; it empties itself when the index changes."""

    def __init__(self, size: int) -> None:
        self._kept: LRUCache[Question, bytes] = LRUCache(size, getsizeof=len)
        self._index: EmbeddedIndex | None = None

    def get(self, index: EmbeddedIndex, question: Question) -> bytes | None:
        """The answer of this index to the question, None when it must be searched."""
        if index is not self._index:
            self._kept.clear()
            self._index = index
        return self._kept.get(question)

    def keep(self, index: EmbeddedIndex, question: Question, answer: bytes) -> None:
        """Remember an answer that `index` gave, unless another index has taken its place meanwhile."""
        if index is self._index and len(answer) <= self._kept.maxsize:
            self._kept[question] = answer
