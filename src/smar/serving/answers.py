"""Answers of a search as bytes, and the cache that keeps them.

Serialising 50 hits takes 6 us with msgspec and 50 with pydantic (choices.md), so pydantic describes the answer
(`schemas.SearchResponse`, a test compares) and does not write it.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from smar.index.base import MAX_HITS, Ranked
from smar.index.embedded import EmbeddedIndex
from smar.serving.engine import Question, SearchResult

_encode = msgspec.json.Encoder().encode
_DECIMALS = 7
_ENTRY = 400  # bytes that an entry of the cache takes beside its texts
_RANKS = [b',{"rank":%d,"score":' % rank for rank in range(1, MAX_HITS + 1)]
_TEXT, _MULTIMODAL = itertools.repeat(b',"text_score":'), itertools.repeat(b',"multimodal_score":')
_OTHERS = b',"rank_text":%b,"words_score":%b,'
_NO_OTHERS = itertools.repeat(_OTHERS % (b"null", b"null"))


def hits_out(index: EmbeddedIndex, found: Ranked) -> msgspec.Raw:
    """What was found as a JSON array; `schemas.HitOut` describes a hit. Items are JSON already.

    Scores are float32, of which seven decimals are all there is. Pieces that are joined once cost half of a struct for
    each hit.
    """
    size, scores = len(found), _numbers(np.concatenate([found.score, found.text_score, found.multimodal_score]))
    columns = scores[:size], scores[size : 2 * size], scores[2 * size :]
    items = [item[1:] for item in index.catalogue.json(found.rows)]  # an object's braces are the hit's
    pieces = zip(_RANKS, columns[0], _TEXT, columns[1], _MULTIMODAL, columns[2], _others(found), items, strict=False)
    return msgspec.Raw(b"[" + b"".join(itertools.chain.from_iterable(pieces))[1:] + b"]")


def _others(found: Ranked) -> Iterator[bytes]:
    """What not every search knows."""
    if found.rank_text is None and found.words_score is None:
        return _NO_OTHERS
    nulls = [b"null"] * len(found)
    ranks = nulls if found.rank_text is None else [b"%d" % at if at > 0 else b"null" for at in found.rank_text.tolist()]
    words = nulls if found.words_score is None else _numbers(found.words_score)
    return (_OTHERS % both for both in zip(ranks, words, strict=False))


def _numbers(values: npt.NDArray[np.float32]) -> list[bytes]:
    """Each of `values` [n] as JSON."""
    return _encode(np.round(values.astype(np.float64), _DECIMALS).tolist())[1:-1].split(b",")


def result_out(result: SearchResult) -> dict[str, Any]:
    """A search's answer as `schemas.SearchResponse` describes it."""
    return {
        "query": result.query,
        "mode": result.mode,
        "image_probability": result.image_probability,
        "routed": result.routed,
        "corrected": result.found.corrected,
        "unknown": round(result.unknown, _DECIMALS),
        "hits": hits_out(result.index, result.found),
    }


def server_timing(timings: Mapping[str, float]) -> dict[str, str]:
    """The header that tells milliseconds by stage."""
    return {"Server-Timing": ", ".join(f"{stage};dur={spent:.3f}" for stage, spent in timings.items())}


def as_json(value: Any) -> bytes:
    """JSON bytes of an answer."""
    return _encode(value)


class Cache:
    """Finished answers by question, up to `size` bytes of both; it empties itself when the index changes."""

    def __init__(self, size: int) -> None:
        self._kept: LRUCache[Question, tuple[bytes, int]] = LRUCache(size, getsizeof=itemgetter(1))
        self._index: EmbeddedIndex | None = None

    def get(self, index: EmbeddedIndex, question: Question) -> bytes | None:
        """The answer of this index to the question, None when it must be searched."""
        if index is not self._index:
            self._kept.clear()
            self._index = index
        kept = self._kept.get(question)
        return None if kept is None else kept[0]

    def keep(self, index: EmbeddedIndex, question: Question, answer: bytes) -> None:
        """Remember an answer that `index` gave, unless another index has taken its place meanwhile."""
        size = len(answer) + sum(map(sys.getsizeof, (question.query, question.filter))) + _ENTRY
        if index is self._index and size <= self._kept.maxsize:
            self._kept[question] = answer, size
