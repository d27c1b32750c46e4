"""Answers of a search as bytes, and the cache that keeps them.

Serialising with msgspec takes an eighth of the time (docs/decisions/0004-runtime.md), so pydantic describes the answer
(`schemas.SearchResponse`, a test compares) and does not write it.
"""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from operator import itemgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from smar.core.errors import InputError
from smar.search.local import PLAIN, EmbeddedIndex, Others, Page
from smar.search.protocol import MAX_HITS
from smar.search.ranked import Ranked, Rows
from smar.serving.engine import SearchResult
from smar.serving.highlight import Marked, marked
from smar.serving.question import Question
from smar.serving.rulebook import Active

_encode = msgspec.json.Encoder().encode
_DECIMALS = 7
_ENTRY = 400  # bytes that an entry of the cache takes beside its texts
_RANKS = [b',{"rank":%d,"score":' % rank for rank in range(1, MAX_HITS + 1)]
_TEXT, _MULTIMODAL = itertools.repeat(b',"text_score":'), itertools.repeat(b',"multimodal_score":')
_OTHERS = b',"rank_text":%b,"words_score":%b,'
_PICTURE = b'"picture":'
_V1 = "/v1"
BASE: ContextVar[str] = ContextVar("base", default=_V1)
"""What addresses of items begin with in the answer that is made: a proxy's prefix, ``/v1``, one of several indexes."""
_NO_OTHERS = itertools.repeat(_OTHERS % (b"null", b"null"))


class _Item(msgspec.Struct):
    """An item as `smar.search.local.ready` wrote it; its values stay as they were written."""

    item_id: msgspec.Raw
    picture: msgspec.Raw
    item: dict[str, msgspec.Raw]


_read_item = msgspec.json.Decoder(_Item).decode


def items_json(index: EmbeddedIndex, rows: Rows) -> list[bytes]:
    """Items as JSON objects, in the order of `rows` int64 [n]; pictures have the address of `BASE`."""
    items = index.catalogue.json(rows)
    return items if (base := BASE.get()) == _V1 else [_behind(item, base.encode()) for item in items]


def address_of(url: str) -> str:
    """An address of the index alone (``/v1/...``) as the answer shows it."""
    return BASE.get() + url.removeprefix(_V1)


def _behind(item: bytes, base: bytes) -> bytes:
    at = item.index(_PICTURE) + len(_PICTURE)  # the object's own: within an id quotes are escaped
    return item if item[at : at + 1] != b'"' else item[: at + 1] + base + item[at + 1 + len(_V1) :]


def hits_out(
    index: EmbeddedIndex, page: Page, fields: Sequence[str] | None = None, marks: Sequence[Marked] | None = None
) -> msgspec.Raw:
    """The hits of a page as a JSON array; see `schemas.HitOut`. Items are JSON already; `fields` as in `result_out`.

    Scores are float32, of which seven decimals are all there is. Pieces that are joined once cost half of a struct for
    each hit.
    """
    found, size = page.hits, len(page.hits)
    scores = _numbers(np.concatenate([found.score, found.text_score, found.multimodal_score]))
    columns = scores[:size], scores[size : 2 * size], scores[2 * size :]
    whole = items_json(index, found.rows)
    items = [item[1:] for item in (whole if fields is None else _with(index, whole, fields))]  # braces are the hit's
    if page.others is not None:
        items = [b'"others":%b,%b' % both for both in zip(map(_encode_told, page.others), items, strict=True)]
    if page.moved is not None:
        items = [b'"moved":%b,%b' % both for both in zip(map(_encode, page.moved), items, strict=True)]
    if marks is not None:
        items = [b'"highlight":%b,%b' % both for both in zip(map(_encode, marks), items, strict=True)]
    if page.factors is not None:
        items = [b'"factors":%b,%b' % both for both in zip(map(_encode, page.factors), items, strict=True)]
    ranks = _RANKS[page.first : page.first + size]
    pieces = zip(ranks, columns[0], _TEXT, columns[1], _MULTIMODAL, columns[2], _others(found), items, strict=False)
    return msgspec.Raw(b"[" + b"".join(itertools.chain.from_iterable(pieces))[1:] + b"]")


def _encode_told(others: Others) -> bytes:
    return _counted(others.count) if others.ids is None else _encode(others)


@lru_cache(maxsize=1024)
def _counted(count: int) -> bytes:
    return _encode({"count": count})


def _with(index: EmbeddedIndex, items: Sequence[bytes], fields: Sequence[str]) -> list[bytes]:
    """Items with some of their columns, in this order; raises InputError where the index has no such column."""
    for name in fields:
        if name not in index.schema.names:
            raise InputError(f"fields: unknown column {name[:100]!r}. Columns: {', '.join(index.schema.names)}.")
    read = map(_read_item, items)
    return [_encode(_Item(one.item_id, one.picture, {name: one.item[name] for name in fields})) for one in read]


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


def result_out(
    result: SearchResult, fields: Sequence[str] | None = None, highlight: Sequence[str] = ()
) -> dict[str, Any]:
    """A search's answer as `schemas.SearchResponse` describes it; items with the columns `fields`, None for all.

    In those of `highlight` matched words are marked.
    """
    marks = marked(result, highlight) if highlight else None
    return {
        "query": result.query,
        "mode": result.mode,
        "image_probability": result.image_probability,
        "routed": result.routed,
        "corrected": result.found.corrected,
        "unknown": round(result.unknown, _DECIMALS),
        **({} if result.note is None else {"note": result.note}),
        **page_out(result.index, result.page, fields, marks),
    }


def page_out(
    index: EmbeddedIndex, page: Page, fields: Sequence[str] | None = None, marks: Sequence[Marked] | None = None
) -> dict[str, Any]:
    """What every answer says of its hits; what was not asked for is left out."""
    told: dict[str, Any] = {"total": page.total}
    further: dict[str, Any] = {"redirect": page.redirect, "rules": page.rules, "cutoff": page.cut}
    further |= {"ranked": page.ranked, "sorted": page.sorted, "facets": page.facets}
    told |= {name: value for name, value in further.items() if value is not None}
    if page.near is not None:
        told["near"] = hits_out(index, Page(page.near, 0, page.total), fields)
    return told | {"hits": hits_out(index, page, fields, marks)}


def server_timing(timings: Mapping[str, float]) -> dict[str, str]:
    """The header that tells milliseconds by stage."""
    return {"Server-Timing": ", ".join(f"{stage};dur={spent:.3f}" for stage, spent in timings.items())}


def as_json(value: Any) -> bytes:
    """JSON bytes of an answer."""
    return _encode(value)


class Cache:
    """Finished answers by question, up to `size` bytes of both; emptied when the index or the rules change."""

    def __init__(self, size: int) -> None:
        self._kept: LRUCache[Question, tuple[bytes, int]] = LRUCache(size, getsizeof=itemgetter(1))
        self._index: EmbeddedIndex | None = None
        self._rules: Active | None = None

    def get(self, index: EmbeddedIndex, question: Question, rules: Active | None = None) -> bytes | None:
        """The answer of this index under these rules to the question, None when it must be searched."""
        if index is not self._index or rules is not self._rules:
            self._kept.clear()
            self._index, self._rules = index, rules
        kept = self._kept.get(question)
        return None if kept is None else kept[0]

    def keep(self, index: EmbeddedIndex, question: Question, answer: bytes, rules: Active | None = None) -> None:
        """Remember an answer that `index` gave, unless another index or other rules have taken its place meanwhile."""
        size = len(answer) + sum(map(sys.getsizeof, (question.query, question.filter))) + _ENTRY
        if question.shape is not PLAIN or question.fields or question.highlight:
            size += len(repr(question))
        if index is self._index and rules is self._rules and size <= self._kept.maxsize:
            self._kept[question] = answer, size
