"""Rows by the value of a column: which variants a product has, in one segment or in all."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from smar.search.column_values import Columns, Kind, one_array
from smar.search.local.vectors import Allowed
from smar.search.ranked import Rows


class Groups:
    """A column's rows in groups of equal value; made at a column's first use, some tenths of a second for 1 M rows.

    `code` int32 [rows] is each row's group, -1 for a missing value: such a row is a group by itself.
    """

    def __init__(self, columns: Columns, name: str) -> None:
        self._values, self.code = _coded(columns, name)
        order = np.argsort(self.code, kind="stable").astype(np.int32)
        sizes = np.bincount(self.code + 1, minlength=len(self._values) + 1)
        self._rows = order[sizes[0] :]
        self._starts = np.concatenate([[0], np.cumsum(sizes[1:])])

    def __len__(self) -> int:
        return len(self._values)

    def value(self, code: int) -> Any:
        """What the rows of a group have in common."""
        found = self._values[code]
        return found.as_py() if isinstance(found, pa.Scalar) else found.item()

    def find(self, value: Any) -> int:
        """The group of a value, -1 where there is none."""
        at = bisect_left(range(len(self)), value, key=self.value)
        return at if at < len(self) and self.value(at) == value else -1

    def rows(self, code: int) -> npt.NDArray[np.int32]:
        """The rows of a group, ascending; none of group -1."""
        return self._rows[self._starts[code] : self._starts[code + 1]] if code >= 0 else self._rows[:0]

    def sizes(self, codes: Rows, allowed: Allowed | None) -> Rows:
        """How many of the `allowed` rows, None for all, each of some groups has [n]; none in group -1."""
        starts, lengths = self._starts[codes], np.where(codes >= 0, self._starts[codes + 1] - self._starts[codes], 0)
        if allowed is None:
            return lengths
        if (others := allowed.few_others) is not None:
            without = self.code[others]
            few: Rows = lengths - np.count_nonzero(codes[:, None] == without[without >= 0], axis=1)
            return few
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths - starts, lengths)
        passed = np.concatenate([[0], np.cumsum(allowed.mask[self._rows[places]])])
        sizes: Rows = passed[ends] - passed[ends - lengths]
        return sizes


def groups_of(columns: Columns, name: str) -> Groups:
    """The groups of a column, made once."""
    return columns.keep("groups", name, lambda: Groups(columns, name))


def _coded(columns: Columns, name: str) -> tuple[Any, npt.NDArray[np.int32]]:
    """Ascending values, and each row's place among them."""
    if columns.kind(name) is Kind.EMPTY:
        return np.empty(0), np.full(len(columns), -1, np.int32)
    if columns.kind(name) is not Kind.TEXT:
        held, code = columns.present(name), np.full(len(columns), -1, np.int32)
        numbers = columns.numbers(name)
        scaled = numbers / 10.0 ** columns.scale(name) if columns.scale(name) else numbers
        values, code[held] = np.unique(scaled[held], return_inverse=True)
        return values, code
    array = one_array(columns.table[name])
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    coded = array.dictionary_encode()
    texts = coded.dictionary
    # by code points, as Python compares texts, which is the order of UTF-8's bytes
    order = pc.sort_indices(texts)
    ranks = np.empty(len(order) + 1, np.int32)
    ranks[order.to_numpy()], ranks[-1] = np.arange(len(order)), -1
    return texts.take(order), ranks[pc.fill_null(coded.indices, len(order)).to_numpy(zero_copy_only=False)]


def found_in(groups: Sequence[Groups], own: int, code: int) -> list[int]:
    """The group of the same value in each segment, -1 for none; `code` is that of segment `own`."""
    value = groups[own].value(code)
    return [code if at == own else other.find(value) for at, other in enumerate(groups)]
