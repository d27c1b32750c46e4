"""Search as the service and the command line do it: limits, normal form, encoding, filter, index, timings."""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self

from smar.data.text import normalise_query
from smar.errors import InputError
from smar.index.base import Hit, Mode
from smar.index.embedded import EmbeddedIndex
from smar.index.filter_parser import parse_filter
from smar.index.filters import Filter
from smar.index.query import QueryEncoder
from smar.serving.schemas import MAX_K, MAX_QUERY


class RequestError(InputError):
    """A request that cannot be answered; `code` names the reason for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits of one query, the gate's word on it, and milliseconds by stage."""

    query: str
    mode: Mode
    image_probability: float
    routed: bool
    hits: list[Hit]
    timings: dict[str, float] = field(compare=False)


class Engine:
    """An index and its query encoder."""

    def __init__(self, index: EmbeddedIndex, encoder: QueryEncoder) -> None:
        self.index = index
        self.encoder = encoder
        self._parse = lru_cache(maxsize=256)(self._parse_filter)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an index folder; raises InputError naming the file when it is damaged or does not fit."""
        index = EmbeddedIndex.open(path)
        return cls(index, index.load_encoder())

    def search(
        self,
        query: str,
        k: int = 10,
        mode: Mode = Mode.ADAPTIVE,
        filter: str | None = None,
        explain: bool = False,
    ) -> SearchResult:
        """Answer one query with at most `k` (1..200) hits.

        Raises:
            RequestError: the query is empty or too long, k is out of range, or the filter is wrong.
        """
        if not 1 <= k <= MAX_K:
            raise RequestError("invalid_request", f"k is {k}; allowed: 1 to {MAX_K}.")
        timings: dict[str, float] = {}
        with _timed(timings, "filter"):
            chosen = self._filter(filter)
        with _timed(timings, "encode"):
            vectors = self.encoder.encode([checked := check_query(query)])
        with _timed(timings, "search"):
            hits = self.index.search(vectors, k, mode, chosen, explain)[0]
        probability = float(vectors.image_probability[0])
        routed = probability > self.encoder.manifest.threshold
        return SearchResult(checked, mode, probability, routed, hits, timings)

    def search_many(
        self, queries: Sequence[str], k: int = 50, mode: Mode = Mode.ADAPTIVE, filter: str | None = None
    ) -> Iterator[list[Hit]]:
        """Answer many queries in batches, in order, with at most `k` (1..1000) hits each.

        Raises:
            RequestError: as `search` does; for a query, the message names its line, from 1.
        """
        chosen = self._filter(filter)
        texts = [check_query(query, f"line {line}: ") for line, query in enumerate(queries, start=1)]
        for start in range(0, len(texts), 256):
            yield from self.index.search(self.encoder.encode(texts[start : start + 256]), k, mode, chosen)

    def check(self) -> None:
        """Run a real query; raises RuntimeError when the answer is not a ranked list of items."""
        title = self.index.catalogue.items([0])[0].get("title")
        hits = self.search(str(title or "ready")[:100] or "ready", k=1).hits
        if not hits or not math.isfinite(hits[0].score):
            raise RuntimeError(f"a probe query found {len(hits)} items with score {hits[0].score if hits else None}")

    def _filter(self, text: str | None) -> Filter | None:
        if text is None or not text.strip():
            return None
        try:
            return self._parse(text)
        except InputError as error:
            raise RequestError("invalid_filter", str(error)) from None

    def _parse_filter(self, text: str) -> Filter:
        return parse_filter(text, self.index.schema)


def check_query(query: str, where: str = "") -> str:
    """The query as the model was trained to see it; raises RequestError when it is empty or too long."""
    if len(query) > MAX_QUERY:
        raise RequestError(
            "query_too_long",
            f"{where}the query has {len(query):,} characters; at most {MAX_QUERY:,} are allowed.",
        )
    normal = normalise_query(query.encode("utf-8", "replace").decode("utf-8"))  # a lone surrogate has no UTF-8 form
    if not normal:
        raise RequestError("empty_query", f"{where}the query is empty; type what to search for.")
    return normal


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[stage] = (time.perf_counter() - start) * 1000
