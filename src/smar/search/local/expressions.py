"""Ranking by an expression: ``score * (1 + 0.2 * log1p(sold)) - 0.3 * not(in_stock)``.

The grammar is the filter's, with numbers in it, loosest first: ``or``, ``and``, ``not``, comparisons (``price < 50``,
``brand in (Nike, Casio)``, ``exists(sold)``), ``+ -``, ``* /``, a sign, then parentheses, functions, numbers and names.
What is true counts 1, else 0; a number is true unless it is 0. Names are `score`, `text_score`, `multimodal_score`,
`words_score`, and columns of numbers, dates (days since 1970) and true or false; a missing value counts 0. A column
that is compared with a value is compared as the filter does it. Whatever the filter takes as one word but this grammar
would take apart needs quotes, such as a date or a name with a minus.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.search.column_values import Columns, Kind
from smar.search.filters import Filter
from smar.search.local.segment import Segment
from smar.search.local.taken import by_segment, floats
from smar.search.ranked import Ranked, Rows

SCORES = ("score", "text_score", "multimodal_score", "words_score")

Values: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Number:
    """A number as it was written."""

    value: float


@dataclass(frozen=True, slots=True)
class Name:
    """A score, or a column (`kind` is its kind then)."""

    name: str
    kind: Kind | None


@dataclass(frozen=True, slots=True)
class Matches:
    """Whether an item passes a comparison of the filter's; `again` where the same one is asked for again and again."""

    filter: Filter
    columns: tuple[str, ...]
    again: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """A function of some terms."""

    name: str
    apply: Callable[..., Any]
    terms: tuple["Term", ...]


Term: TypeAlias = Number | Name | Matches | Call


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression, bound to the columns that it was parsed for."""

    text: str
    root: Term

    def values(self, segments: Sequence[Segment], found: Ranked) -> Values:
        """What it makes of each hit [n]; NaN or infinite where it is not defined."""
        inputs = {name: _scores(found, name) for name in SCORES}
        with np.errstate(all="ignore"):
            values: Values = np.broadcast_to(_value(self.root, segments, found.rows, inputs), len(found))
        return values.astype(np.float64)

    def factors(self, segments: Sequence[Segment], found: Ranked) -> dict[str, Values]:
        """The value of each name in it [n]."""
        inputs = {name: _scores(found, name) for name in SCORES}
        return {name.name: _value(name, segments, found.rows, inputs) for name in _names(self.root)}


def _scores(found: Ranked, name: str) -> Values:
    scores = getattr(found, name)
    return np.zeros(len(found)) if scores is None else scores.astype(np.float64)


def _value(term: Term, segments: Sequence[Segment], rows: Rows, scores: Mapping[str, Values]) -> Any:
    match term:
        case Number(value):
            return value
        case Name(name, None):
            return scores[name]
        case Name(name):
            return floats(segments, name, rows)[0]
        case Matches():
            return matching_rows(term, segments, rows)
        case Call(_, apply, terms):
            return apply(*(_value(each, segments, rows, scores) for each in terms))


def matching_rows(term: Matches, segments: Sequence[Segment], rows: Rows) -> Values:
    """Looked up in those rows alone where what matches among all items may never be asked for again."""
    if term.again and len(segments) == 1 and (allowed := segments[0].allowed(term.filter)) is not None:
        return allowed.mask[rows].astype(np.float64)
    found = np.zeros(len(rows))
    for segment, places, own in by_segment(segments, rows):
        if term.again and (allowed := segment.allowed(term.filter)) is not None:
            found[places] = allowed.mask[own]
        else:
            table = segment.catalogue.table.select(list(term.columns)).take(pa.array(own, pa.int64()))
            found[places] = term.filter.mask(Columns(table))
    return found


def _names(term: Term) -> list[Name]:
    match term:
        case Name():
            return [term]
        case Call(_, _, terms):
            return list(dict.fromkeys(name for each in terms for name in _names(each)))
    return []
