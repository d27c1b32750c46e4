"""Search as the service and the command line do it: limits, normal form, encoding, filter, index, timings."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Self

from smar.core.files import StrPath
from smar.search.expansion import Expansion
from smar.search.filters import Filter
from smar.search.local import (
    PLAIN,
    EmbeddedIndex,
    FacetCounts,
    Influence,
    Page,
    Plan,
    Shape,
    UnreadableIndex,
    UpdatableIndex,
    browse,
)
from smar.search.local import search as search_index
from smar.search.protocol import Hit, Mode
from smar.search.query import QueryEncoder, QueryVectors
from smar.search.ranked import Ranked
from smar.search.remote_index import RemoteIndex
from smar.serving.question import FilterParser, Question, check_mode, check_query
from smar.serving.rulebook import NOTHING_TOLD, Active, Rulebook, Told

_TOGETHER = 8
_but_words = attrgetter("browses", "k", "offset", "mode", "filter", "explain", "shape")


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits of one query, the gate's word on it, milliseconds by stage, and the index that answered.

    `unknown` is the share of the query that neither the model's vocabulary nor the items' words hold, 0..1. Of what was
    browsed the query is empty, and the gate says 0. `note` says what an engine leaves out.

    >>> found = Engine.open("index").search("red dress", k=3)
    >>> len(found.hits), 0 <= found.image_probability <= 1
    (3, True)
    """

    query: str
    mode: Mode
    image_probability: float
    routed: bool
    unknown: float
    page: Page
    timings: dict[str, float] = field(compare=False)
    index: EmbeddedIndex = field(compare=False, repr=False)
    rules: Active | None = field(default=None, compare=False, repr=False)
    expansion: Expansion | None = None
    note: str | None = None

    @property
    def found(self) -> Ranked:
        """The hits of the page, in their order."""
        return self.page.hits

    @property
    def mostly_unknown(self) -> bool:
        """Whether the ranking says little about the query, as most of it is unknown."""
        return self.unknown > 0.5

    @property
    def hits(self) -> list[Hit]:
        """What was found, with the items' columns."""
        return self.index.hits(self.found)


class Searching(ABC):
    """What is the same of the embedded engine and of one behind a URL."""

    def __init__(self) -> None:
        self._parse = FilterParser()

    @property
    @abstractmethod
    def index(self) -> EmbeddedIndex | RemoteIndex:
        """The index as it is now."""

    @abstractmethod
    def ask(self, asked: Question) -> SearchResult:
        """Answer one question; raises as `search`."""

    def search(
        self,
        query: str,
        k: int = 10,
        mode: Mode | str = Mode.ADAPTIVE,
        filter: str | None = None,
        explain: bool = False,
        offset: int = 0,
        shape: Shape = PLAIN,
    ) -> SearchResult:
        """Answer one query with at most `k` (1..200) hits from number `offset` + 1 on.

            Engine.open("index").search("red dress", mode="hybrid", filter="price<50").hits
            Engine.open("index").search("red dress", offset=10, shape=Shape(sort=("price",))).page.total

        Raises:
            InputError: as `Question.of`; or the filter is wrong, or the shape names what the index does not have.
            EngineDown: there is an engine behind a URL, and it does not answer.
        """
        return self.ask(Question.of(query, k, mode, filter, explain, offset, shape))

    def search_many(
        self, queries: Sequence[str], k: int = 50, mode: Mode | str = Mode.ADAPTIVE, filter: str | None = None
    ) -> Iterator[list[Hit]]:
        """Answer many queries in batches, in order, with at most `k` (1..1000) hits each.

        Raises:
            RequestError: as `search` does; for a query, the message names its line, from 1.
        """
        index, mode = self.index, check_mode(mode)
        chosen = self.filter(filter, index)
        texts = [check_query(query, f"line {line}: ") for line, query in enumerate(queries, start=1)]
        for start in range(0, len(texts), 256):
            yield from index.search(index.encoder.encode(texts[start : start + 256]), k, mode, chosen)

    def filter(self, text: str | None, index: EmbeddedIndex | RemoteIndex) -> Filter | None:
        """The parsed filter, None when it is blank; raises RequestError when it is wrong."""
        return self._parse(text, index.schema)


class Engine(Searching):
    """An index that may change while it is searched, with the query encoder of its model."""

    def __init__(self, live: UpdatableIndex, rules: Rulebook | None = None) -> None:
        super().__init__()
        self.live, self.rules = live, rules

    @classmethod
    def open(cls, path: StrPath, check: bool = True, rules: StrPath | None = None, kept: StrPath | None = None) -> Self:
        """Open an index folder, with a file of `rules` that is followed; see `Rulebook` for `kept`.

        Raises InputError naming the file when it is damaged or does not fit.
        """
        live = UpdatableIndex.open(Path(path), check)
        if rules is None:
            return cls(live)
        return cls(live, Rulebook.open(Path(rules), live.snapshot, None if kept is None else Path(kept)))

    @property
    def index(self) -> EmbeddedIndex:
        """The index as it is now; it never changes itself, a newer one takes its place.

        Raises UnreadableIndex while a file of it is not what was opened: reading what is gone would end the process.
        """
        if self.live.unsafe is not None:
            raise UnreadableIndex(self.live.unsafe)
        return self.live.snapshot

    @property
    def encoder(self) -> QueryEncoder:
        """Of the model of `index`."""
        return self.index.encoder

    def ask(self, asked: Question) -> SearchResult:
        """Answer one question; raises as `search`."""
        answer = next(self.answer([asked]))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def answer(self, questions: Sequence[Question]) -> Iterator[SearchResult | Exception]:
        """Answer questions that came together: encoded as one batch, neighbours that are alike searched together.

        A question whose filter is wrong gets its RequestError; the others are answered. `timings` share the batch's
        time out evenly.
        """
        index = self.index  # one and the same for the whole batch: a new version may have another model
        active, timings = self.active(index), dict[str, float]()
        texts, told = [question.query for question in questions], [NOTHING_TOLD] * len(questions)
        if active is not None:
            told = [active.told(text) for text in texts]
        if active is not None and any(expansions := [each.expansion for each in told]):
            vectors = index.encoder.encode_expanded(texts, expansions, timings)
        else:
            vectors = index.encoder.encode(texts, timings)
        shared = {stage: spent / len(questions) for stage, spent in timings.items()}
        for first, last in _alike(questions, told):
            try:
                part = slice(first, last)
                yield from self._answer(index, questions[part], vectors[part], shared, told[part], active)
            except Exception as error:
                yield from [error] * (last - first)

    def _answer(
        self,
        index: EmbeddedIndex,
        alike: Sequence[Question],
        vectors: QueryVectors,
        shared: dict[str, float],
        told: Sequence[Told],
        active: Active | None,
    ) -> list[SearchResult]:
        timings: dict[str, float] = {}
        asked, influence = alike[0], told[0].influence
        if asked.browses:
            return [self._browse(index, question, influence, active) for question in alike]
        with timed(timings, "gate"):
            probability = vectors.image_probability.tolist()
            routed = [share > vectors.threshold for share in probability]
        chosen = self.prepared(asked.filter, index, timings)
        with timed(timings, "search"):
            plan = Plan.of(asked.shape, index.schema, influence)
            found = search_index(index, vectors, asked.k, asked.mode, chosen, asked.explain, asked.offset, plan)
        assert vectors.unknown is not None  # they come from the index's own encoder
        unknown = [
            min(share, *map(index.unheld, vectors.readings(at))) if share else 0.0
            for at, share in enumerate(vectors.unknown.tolist())
        ]
        each = shared | {stage: spent / len(alike) for stage, spent in timings.items()}
        return [
            SearchResult(
                question.query, question.mode, share, yes, new, items, dict(each), index, active, own.expansion
            )
            for question, share, yes, new, items, own in zip(
                alike, probability, routed, unknown, found, told, strict=True
            )
        ]

    def _browse(
        self, index: EmbeddedIndex, asked: Question, influence: Influence, active: Active | None
    ) -> SearchResult:
        timings: dict[str, float] = {}
        chosen = self.prepared(asked.filter, index, timings)
        with timed(timings, "search"):
            plan = Plan.of(asked.shape, index.schema, influence)
            page = browse(index, asked.k, chosen, asked.offset, plan, asked.explain)
        return SearchResult("", asked.mode, 0.0, False, 0.0, page, timings, index, active)

    def check(self) -> None:
        """Run a real query; raises RuntimeError when the answer is not a ranked list of items."""
        catalogue = self.index.catalogue
        title = catalogue.items([catalogue.first()])[0].get("title")
        found = self.search(str(title or "ready")[:100] or "ready", k=1).found
        if not len(found) or not math.isfinite(found.score[0]):
            raise RuntimeError(f"a probe query found {len(found)} items with score {found.score.tolist()}")

    def facets(self, filter: str | None, top: int) -> FacetCounts:
        """Count the items that match; raises RequestError when the filter is wrong."""
        index = self.index
        return index.facets(self.shown(self.filter(filter, index), index), top)

    def refresh(self) -> bool:
        """Take in updates and new versions; returns whether there were."""
        changed = self.live.refresh()
        if changed:  # here, in a thread, and not in the first search that reads them
            for segment in self.index.segments:
                segment.catalogue.settle()
        return changed

    def active(self, index: EmbeddedIndex) -> Active | None:
        """The rules that hold now, None where there are none."""
        return None if self.rules is None else self.rules.active(index)

    def shown(self, filter: Filter | None, index: EmbeddedIndex) -> Filter | None:
        """A filter without what rules hide everywhere, for what is not asked for in words."""
        active = self.active(index)
        return filter if active is None else active.everywhere.shown(filter)

    def refresh_rules(self) -> bool:
        """Take in a changed file of rules; raises InputError when it is wrong, and the rules before stay."""
        return self.rules is not None and self.rules.refresh(self.live.snapshot)

    def prepared(self, text: str | None, index: EmbeddedIndex, timings: dict[str, float]) -> Filter | None:
        """As `filter`, and what matches it is found; its milliseconds are noted in `timings`."""
        with timed(timings, "filter"):
            chosen = self.filter(text, index)
            if chosen is not None:
                index.prepare(chosen)
        return chosen


def _alike(questions: Sequence[Question], told: Sequence[Told]) -> Iterator[tuple[int, int]]:
    """First and last + 1 of neighbours that differ in their words only, and have the same rules; `_TOGETHER` at most.

    Together they read the centres of the lists once. More would keep other requests waiting.
    """
    first = 0
    for at in range(1, len(questions) + 1):
        same = at < len(questions) and _but_words(questions[at]) == _but_words(questions[first])
        same = same and told[at].influence is told[first].influence
        if not same or at - first == _TOGETHER:
            yield first, at
            first = at


@contextmanager
def timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    """Note the milliseconds that a stage takes."""
    start = time.perf_counter()
    yield
    timings[stage] = (time.perf_counter() - start) * 1000
