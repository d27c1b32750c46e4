"""Answers of a search as bytes, and the cache that keeps them.

Serialising 50 hits takes 6 us with msgspec and 50 with pydantic (choices.md), so pydantic describes the answer
(`schemas.SearchResponse`, a test compares) and does not write it.
"""

from typing import Any

import msgspec
from cachetools import LRUCache

from smar.index.base import Ranked
from smar.index.embedded import EmbeddedIndex
from smar.serving.engine import Question, SearchResult
from smar.serving.wire import picture_url

_encode = msgspec.json.Encoder().encode


def hits_out(index: EmbeddedIndex, found: Ranked) -> list[dict[str, Any]]:
    """What was found as `schemas.HitOut` describes it; each item's own columns are JSON already."""
    rows, catalogue = found.rows, index.catalogue
    words = [None] * len(found) if found.words_score is None else found.words_score.tolist()
    ranks = [None] * len(found) if found.rank_text is None else found.rank_text.tolist()
    return [
        {
            "item_id": item_id,
            "rank": rank,
            "score": score,
            "text_score": text,
            "multimodal_score": multimodal,
            "rank_text": rank_text if rank_text is None or rank_text > 0 else None,
            "words_score": words_score,
            "picture": picture_url(item_id) if pictured else None,
            "item": msgspec.Raw(item),
        }
        for rank, (item_id, score, text, multimodal, rank_text, words_score, pictured, item) in enumerate(
            zip(
                catalogue.item_ids(rows),
                found.score.tolist(),
                found.text_score.tolist(),
                found.multimodal_score.tolist(),
                ranks,
                words,
                catalogue.pictured(rows).tolist(),
                catalogue.json(rows),
                strict=True,
            ),
            start=1,
        )
    ]


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
