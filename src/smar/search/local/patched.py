"""Columns of items that were changed without the rest of the item: values that lie over those of a table.

A price that changes is no new item: its vectors, words and picture stay where they are, so nothing that is searched
grows, however often it happens.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from smar.search.column_values import Mask, one_array
from smar.search.ranked import Rows

Part: TypeAlias = tuple[Rows, pa.Array]
"""Rows int64 [n] and their new values [n]; the last one of a row counts."""
Changes: TypeAlias = Mapping[str, Sequence[Part]]
"""Column -> parts in the order in which they came: the last value of a row counts."""
_MOST_PARTS = 128


class Overlay:
    """Changes that only grow; a `view` taken earlier keeps what it had."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Part]] = {}

    def add(self, rows: Rows, columns: Mapping[str, pa.Array]) -> None:
        """New values of some rows; `columns` are kept as they are."""
        for name, values in columns.items():
            parts = self._parts.setdefault(name, [])
            parts.append((rows, values))
            if len(parts) > _MOST_PARTS:
                self._parts[name] = [last_of(parts)]

    def view(self) -> Changes:
        """What there is now."""
        return {name: tuple(parts) for name, parts in self._parts.items()}


def last_of(parts: Sequence[Part]) -> Part:
    """The last value of each row, as one part."""
    rows = np.concatenate([rows for rows, _ in parts])
    values = pa.concat_arrays([values for _, values in parts])
    unique, from_end = np.unique(rows[::-1], return_index=True)
    return unique, values.take(pa.array(len(rows) - 1 - from_end))


def replaced(column: pa.ChunkedArray, parts: Sequence[Part]) -> pa.Array:
    """A column with new values in some rows."""
    old = one_array(column)
    kind = old.type
    if pa.types.is_dictionary(kind):
        old = old.dictionary_decode()
    rows, values = last_of(parts)
    places = np.arange(len(old))
    places[rows] = len(old) + np.arange(len(rows))
    new = pa.concat_arrays([old, values.cast(old.type)]).take(pa.array(places))
    return new.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else new


def touched(changes: Changes, rows: int) -> Mask:
    """Which of `rows` rows have a value of their own, boolean [rows]."""
    mask: Mask = np.zeros(rows, np.bool_)
    for parts in changes.values():
        for changed, _ in parts:
            mask[changed] = True
    return mask
