"""What to suggest for the beginning of a query: frequent queries of the log, and values of the catalogue.

Texts are compared in one form (`smar.data.words.folded`): accents, case, traditional characters and the like do not
count. They lie sorted, so those with a prefix are a range, found by bisection. A typo (a letter left out, put in, taken
for another, or swapped with the next) after the first letter is found by the beginning before it, which is still right:
each letter that goes on from there is tried with the rest.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from smar.core.errors import InputError
from smar.data.dataset import SUGGESTIONS_FILE
from smar.data.words import folded
from smar.search.column_values import Kind
from smar.search.local.facets import count_facets
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.versions import MADE_BY
from smar.search.ranked import Rows

_LAST = chr(0x10FFFF)
_LETTERS_FOR_TYPO = 3  # typed: before, nearly everything is one typo away
_TRIED = 100  # letters after a beginning
_BLOCK = 256
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class FilterWith:
    """A filter that goes with a query: a share of the clicks after it have this value."""

    column: str
    value: str
    share: float


@dataclass(frozen=True, slots=True)
class QueryWith:
    """A frequent query: how many shoppers asked it, and its popular filters."""

    text: str
    count: int
    filters: Sequence[FilterWith] = ()


@dataclass(frozen=True, slots=True)
class ValueWith:
    """A value of the catalogue: which column has it, and in how many items."""

    text: str
    count: int
    column: str


@dataclass(frozen=True, slots=True)
class Suggested:
    """What goes on from what was typed, the most frequent first; what takes a typo comes last."""

    queries: Sequence[QueryWith] = ()
    values: Sequence[ValueWith] = ()


class Prefixes:
    """Texts and how frequent each is, found by prefix.

    >>> Prefixes(["red shirt", "red dress", "reader"], [3, 9, 5]).find("red", 2)
    [1, 0]
    >>> Prefixes(["red shirt", "red dress", "reader"], [3, 9, 5]).find("rde dr", 2)
    [1]
    """

    def __init__(self, texts: Sequence[str], counts: Sequence[int]) -> None:
        keys = [folded(text) for text in texts]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        self._keys = [keys[at] for at in order]
        self._places = np.array(order, np.int64)
        self._counts = np.array(counts, np.int32)[self._places]  # in half the time of 64 bits
        whole = len(self._counts) // _BLOCK
        self._block_counts = self._counts[: whole * _BLOCK].reshape(whole, _BLOCK).max(axis=1)

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, typed: str, k: int) -> list[int]:
        """Places of the `k` most frequent texts that begin so, then of those that do with one typo."""
        prefix = folded(typed)
        found = self._best([self._span(prefix)], k)
        if len(found) < k and len(prefix) >= _LETTERS_FOR_TYPO:
            more = self._best([self._span(other) for other in self._typos(prefix)], k)
            found = list(dict.fromkeys([*found, *more]))[:k]
        places: list[int] = self._places[found].tolist()
        return places

    def _span(self, prefix: str, low: int = 0, high: int | None = None) -> Span:
        first = bisect_left(self._keys, prefix, low, high)
        return first, bisect_left(self._keys, prefix + _LAST, first, high)

    def _best(self, spans: Sequence[Span], k: int) -> list[int]:
        """The most frequent of some ranges, of equals the first in the alphabet."""
        rows = np.concatenate([np.arange(0), *(self._best_of(span, k) for span in set(spans))])
        order: list[int] = np.unique(rows).tolist()  # one range may lie within another
        return sorted(order, key=lambda row: -self._counts[row])[:k]

    def _best_of(self, span: Span, k: int) -> Rows:
        """The most frequent of a range. The blocks with the highest counts hold those of a wide one."""
        first, last = span
        if last - first <= 4 * _BLOCK:
            return _most(self._counts, np.arange(first, last), k)
        begin, end = -(-first // _BLOCK), last // _BLOCK
        blocks = _most(self._block_counts, np.arange(begin, end), k)
        within = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
        edges = np.arange(first, begin * _BLOCK), np.arange(end * _BLOCK, last)
        return _most(self._counts, np.concatenate([edges[0], np.sort(within), edges[1]]), k)

    def _typos(self, prefix: str) -> Iterator[str]:
        """Beginnings that somebody may have meant; some begin no text."""
        span = 0, len(self._keys)
        for at in range(1, len(prefix)):
            span = self._span(prefix[:at], *span)
            if span[0] == span[1]:
                return
            begin, rest = prefix[:at], prefix[at + 1 :]
            yield begin + rest
            yield begin + rest[:1] + prefix[at] + rest[1:]
            for letter in self._next(begin, span):
                yield begin + letter + rest
                yield begin + letter + prefix[at:]

    def _next(self, begin: str, span: Span) -> Iterator[str]:
        """Letters that follow a beginning."""
        at, last = span
        for _ in range(_TRIED):
            at = bisect_left(self._keys, begin + "\0", at, last)  # after the beginning itself
            if at >= last:
                return
            letter = self._keys[at][len(begin)]
            yield letter
            at = bisect_left(self._keys, begin + letter + _LAST, at, last)


def _most(counts: npt.NDArray[np.int32], places: Rows, k: int) -> Rows:
    """The `k` of ascending `places` with the highest counts; of equal ones those that come first."""
    own = counts[places]
    if len(places) > k:
        likely = np.flatnonzero(own >= np.partition(own, -k)[-k])  # many, where they are equal
        return places[likely[np.argsort(-own[likely], kind="stable")[:k]]]
    return places


@dataclass(frozen=True, slots=True)
class Suggestions:
    """Of one version of an index; `open` takes a second for 100,000 texts, `find` far less than one thousandth.

    >>> suggestions = Suggestions.open(EmbeddedIndex.open("index"), ["category"])
    >>> first = suggestions.find("", k=1).values[0]
    >>> [value.text for value in suggestions.find(first.text[:3], k=1).values] == [first.text]
    True
    """

    queries: Sequence[Mapping[str, Any]]
    values: Sequence[ValueWith]
    columns: frozenset[str]
    by_query: Prefixes = field(repr=False)
    by_value: Prefixes = field(repr=False)

    @classmethod
    def open(cls, index: EmbeddedIndex, columns: Sequence[str]) -> "Suggestions":
        """Those of an index: its log's queries, where it has any, and the values of its text `columns`."""
        queries, values = read_suggestions(index.path), _values(index, columns)
        return cls(
            queries,
            values,
            frozenset(columns),
            Prefixes([query["query"] for query in queries], [query["asked"] for query in queries]),
            Prefixes([value.text for value in values], [value.count for value in values]),
        )

    def find(self, typed: str, k: int) -> Suggested:
        """At most `k` queries and `k` values that begin so; where nothing is typed, the most frequent ones."""
        queries = [self.queries[at] for at in self.by_query.find(typed, k)]
        values = [self.values[at] for at in self.by_value.find(typed, k)]
        return Suggested([self._told(query) for query in queries], values)

    def _told(self, query: Mapping[str, Any]) -> QueryWith:
        filters = [FilterWith(**each) for each in query["filters"] if each["column"] in self.columns]
        return QueryWith(query["query"], query["asked"], filters)


def read_suggestions(folder: Path) -> list[dict[str, Any]]:
    """The queries to suggest of an index version, none where it has none; raises InputError where they are damaged."""
    path = folder / SUGGESTIONS_FILE
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).select(["query", "asked", "filters"]).to_pylist()
    except FileNotFoundError:
        return []
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}. Run `{MADE_BY}` again.") from None
    return rows


def _values(index: EmbeddedIndex, columns: Sequence[str]) -> list[ValueWith]:
    base = index.segments[0].catalogue.columns
    texts = [name for name in columns if name in index.schema.names and base.kind(name) is Kind.TEXT]
    counts = count_facets([segment.part(None) for segment in index.segments], tuple(texts), ()).values
    return [ValueWith(text, count, name) for name, own in counts.items() for text, (count, _) in own.items()]
