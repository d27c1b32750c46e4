"""Sorting by columns: ``price``, ``-created_at``, several of them; equal ones stay in the order that they came in.

Missing values come last in either direction. Texts sort by their letters, whatever the case.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.core.errors import InputError
from smar.data.text import normalise
from smar.search.column_values import Kind
from smar.search.local.segment import Segment
from smar.search.local.taken import by_segment, kind_in, numbers, texts
from smar.search.ranked import Rows

MOST_KEYS = 4
_READ = 5_000
"""Texts of so many rows are read and sorted one by one: a millisecond for a thousand."""

Key = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class SortKey:
    """A column to sort by."""

    column: str
    kind: Kind
    descending: bool

    def __str__(self) -> str:
        return f"-{self.column}" if self.descending else self.column


def parse_sort(names: Sequence[str], schema: pa.Schema) -> tuple[SortKey, ...]:
    """Columns by name, a minus before those to sort downwards.

    Raises:
        InputError: an unknown column, one that holds lists, the same one twice, or more than four.
    """
    if len(names) > MOST_KEYS:
        raise InputError(f"sort names {len(names)} columns; at most {MOST_KEYS} are allowed.")
    keys = []
    for name in names:
        descending = name.startswith("-") and name not in schema.names
        column = name[1:] if descending else name
        keys.append(SortKey(column, kind_in(schema, column, "sort"), descending))
    if len({key.column for key in keys}) < len(keys):
        raise InputError(f"sort names a column twice: {', '.join(names)}.")
    return tuple(keys)


def sorted_places(segments: Sequence[Segment], keys: Sequence[SortKey], rows: Rows, most: int) -> Rows:
    """Places in `rows` of the first `most` in sorted order; rows with equal values in the order of `rows`."""
    arrays = [array for key in keys for array in _arrays(segments, key, rows)]
    return _first(arrays, np.arange(len(rows)), most)


def _first(keys: Sequence[Key], places: Rows, most: int) -> Rows:
    """The first `most` of `places` by `keys`; of a million only those that come first are sorted."""
    if not keys or most == 0:
        return places[:most]
    if most >= len(places):
        return places[np.lexsort([key[places] for key in reversed(keys)])]
    values = keys[0][places]
    last = np.partition(values, most - 1)[most - 1]
    before, equal = places[values < last], places[values == last]
    return np.concatenate([_first(keys, before, len(before)), _first(keys[1:], equal, most - len(before))])


def _arrays(segments: Sequence[Segment], key: SortKey, rows: Rows) -> list[Key]:
    """Two keys, of which smaller comes first: without a value, and the value."""
    if key.kind is Kind.EMPTY:
        return []
    if key.kind is Kind.TEXT:
        values: Key = _text_ranks(segments, key.column, rows)
        present = values >= 0
    else:
        values, present = numbers(segments, key.column, rows)
        present &= np.isfinite(values) if values.dtype.kind == "f" else True
    values = np.where(present, values, np.zeros(1, values.dtype))
    if key.descending:
        values = -values if values.dtype.kind == "f" else ~values  # exact at both ends
    return [values] if present.all() else [~present, values]


def _text_ranks(segments: Sequence[Segment], name: str, rows: Rows) -> npt.NDArray[np.int64]:
    """Places of texts among all of them in alphabetical order [n], -1 for none."""
    if len(rows) <= _READ:
        found = [text if text is None else normalise(text) for text in texts(segments, name, rows)]
        places = {text: at for at, text in enumerate(sorted({text for text in found if text is not None}))}
        return np.array([-1 if text is None else places[text] for text in found], np.int64)
    coded = [(segment, segment.catalogue.columns.codes(name)) for segment in segments]
    if any(codes is None for _, codes in coded):
        raise InputError(
            f"sort: {name} has too many different texts to sort {len(rows):,} items by it; at most {_READ:,} items may "
            "be left then. Filter further, or sort by another column."
        )
    normal = {id(codes): [normalise(text) for text in codes.values] for _, codes in coded if codes is not None}
    places = {text: at for at, text in enumerate(sorted({text for values in normal.values() for text in values}))}
    ranks, own_codes = np.full(len(rows), -1, np.int64), {id(segment): codes for segment, codes in coded}
    for segment, at, own in by_segment(segments, rows):
        codes = own_codes[id(segment)]
        assert codes is not None
        of_value = np.array([*(places[text] for text in normal[id(codes)]), -1], np.int64)
        ranks[at] = of_value[codes.code[own]]
    return ranks
