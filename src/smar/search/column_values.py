"""Item columns as filters and facets read them: each is turned into numpy once and kept.

A comparison of codes costs a small part of one of Arrow's strings.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask: TypeAlias = npt.NDArray[np.bool_]
T = TypeVar("T")
_MAX_CODES = 65_536
"""Columns with more distinct texts (titles, ids) are looked through for the texts of each filter."""

OFFSETS_REACH = 2**31 - 1
"""Bytes of a column up to which its offsets have 32 bits."""
_WORD = 64  # bits
_BYTES = 256
_FEW = 8  # up to so many codes are compared one by one


class Kind(StrEnum):
    """What a column holds, as far as filters care."""

    TEXT = "text"
    NUMBER = "number"
    FLAG = "true or false"
    MOMENT = "a date"
    EMPTY = "nothing, as no item had a value when the index was built"
    LIST = "a list"
    OTHER = "a nested value"


def kind_of(column: pa.DataType) -> Kind:
    """Kind of an Arrow type."""
    types = pa.types
    if types.is_dictionary(column):
        return kind_of(column.value_type)
    if types.is_null(column):
        return Kind.EMPTY
    if types.is_string(column) or types.is_large_string(column):
        return Kind.TEXT
    if types.is_boolean(column):
        return Kind.FLAG
    if types.is_integer(column) or types.is_floating(column) or types.is_decimal(column):
        return Kind.NUMBER
    if types.is_date(column) or types.is_timestamp(column):
        return Kind.MOMENT
    inner = inner_kind(column)
    return Kind.OTHER if inner in (None, Kind.LIST, Kind.OTHER) else Kind.LIST


def inner_kind(column: pa.DataType) -> Kind | None:
    """Kind of what the lists of an Arrow type hold, None where it is no list."""
    types = pa.types
    lists = types.is_list(column) or types.is_large_list(column) or types.is_fixed_size_list(column)
    return kind_of(column.value_type) if lists else None


@dataclass(frozen=True, eq=False)
class Codes:
    """A text column as numbers: `code` [rows] points into `values`; ``len(values)`` stands for anything else.

    `code` has the narrowest type that holds them: 1 or 2 bytes an item.
    """

    values: Sequence[str]
    code: npt.NDArray[np.unsignedinteger[Any]]

    @classmethod
    def of(cls, values: Sequence[str], places: pa.Array) -> "Codes":
        """From places in `values`, null for anything else."""
        code = pc.fill_null(places, len(values)).to_numpy(zero_copy_only=False)
        return cls(values, code.astype(np.min_scalar_type(len(values))))

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each value lies in `values`."""
        return {value: at for at, value in enumerate(self.values)}

    @cached_property
    def ranks(self) -> npt.NDArray[np.int64]:
        """The place of each value among all of them in alphabetical order [values]."""
        order = pc.sort_indices(pa.array(self.values, pa.string())).to_numpy().astype(np.int64)
        return np.argsort(order)

    def among(self, values: Sequence[str]) -> Mask:
        """Rows whose text is one of `values`, boolean [rows]."""
        wanted = [self.places[value] for value in values if value in self.places]
        if len(wanted) <= _FEW:
            return any_equal(self.code, wanted)
        chosen = np.zeros(max(len(self.values) + 1, _BYTES), np.bool_)
        chosen[wanted] = True
        return np.take(chosen, self.code) if self.code.itemsize > 1 else _translated(self.code, chosen)


def _translated(code: npt.NDArray[np.unsignedinteger[Any]], chosen: Mask) -> Mask:
    """``chosen[code]`` for codes of one byte; numpy takes a third longer, as it makes indices of 8 bytes of them."""
    return np.frombuffer(bytearray(code).translate(chosen.tobytes()), np.bool_)


def any_equal(numbers: npt.NDArray[Any], values: Sequence[float]) -> Mask:
    """Rows whose number is one of `values`, boolean [rows]; two masks are held, not one a value."""
    found: Mask = np.zeros(len(numbers), np.bool_) if len(values) == 0 else numbers == values[0]
    for value in values[1:]:
        found |= numbers == value
    return found


class Columns:
    """The columns of a table, each converted at its first use; safe to share between threads.

    `before` are those of the same rows before the columns `changed` were: what it has converted of the others is taken.
    """

    def __init__(self, table: pa.Table, before: "Columns | None" = None, changed: Container[str] = ()) -> None:
        self.table, self._before, self._changed = table, before, changed
        self._kept: dict[tuple[str, str], Any] = {}

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def kind(self, name: str) -> Kind | None:
        """Kind of the column, None where the table has no such column."""

        def kind() -> Kind | None:
            return kind_of(self.table.schema.field(name).type) if name in self.table.column_names else None

        return self.keep("kind", name, kind)

    def entries(self, name: str) -> "tuple[npt.NDArray[np.int64], Columns]":
        """The entries of a column of lists: the row of each, ascending [entries], and their values as a column."""

        def entries() -> tuple[npt.NDArray[np.int64], Columns]:
            lists = one_array(self.table[name])
            if pa.types.is_fixed_size_list(lists.type):
                lists = lists.cast(pa.list_(lists.type.value_type))
            rows = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
            return rows, Columns(pa.table({name: pc.list_flatten(lists)}))

        return self.keep("entries", name, entries)

    def present(self, name: str) -> Mask:
        """Rows that have a value: neither null nor NaN, boolean [rows]."""
        return self.keep("present", name, lambda: _present(_plain(self.table[name])))

    def lacking(self, name: str) -> bool:
        """Whether some rows have no value."""
        return self.keep("lacking", name, lambda: not self.present(name).all())

    def numbers(self, name: str) -> npt.NDArray[Any]:
        """A number, flag or date column [rows], as it compares; anything at all where missing.

        Flags are 0 and 1, dates microseconds since 1970, decimals mostly whole numbers of their last digit (`scale`).
        """
        return self.keep("numbers", name, lambda: _numbers(_plain(self.table[name])))

    def scale(self, name: str) -> int:
        """By how many powers of ten `numbers` is larger than the column: the digits of a decimal after its point."""

        def scale() -> int:
            kind = _plain(self.table[name]).type
            return int(kind.scale) if pa.types.is_decimal(kind) and self.numbers(name).dtype == np.int64 else 0

        return self.keep("scale", name, scale)

    def unit(self, name: str) -> float:
        """By what `numbers` are divided to be in the column's own unit; dates become days."""
        return 86_400e6 if self.kind(name) is Kind.MOMENT else 10.0 ** self.scale(name)

    def codes(self, name: str) -> Codes | None:
        """A text column as codes of its values in Unicode NFC; None when it has more than 65,536 distinct values."""
        return self.keep("codes", name, lambda: _codes(_plain(self.table[name])))

    def labels(self, name: str) -> Codes | None:
        """A column as codes of its values as a filter names them (3, true, 2026-09-27); None where `codes` is.

        Lists have none; their entries have.
        """
        kind = self.kind(name)
        if kind in (None, Kind.EMPTY, Kind.LIST, Kind.OTHER):
            return None
        return self.codes(name) if kind is Kind.TEXT else self.keep("labels", name, lambda: _labels(self, name))

    def codes_of(self, name: str, values: Sequence[str]) -> Codes:
        """A text column as codes of `values` (NFC) at least; where it has too many others, they are all one."""
        codes = self.codes(name)
        if codes is None:
            array = self.keep("array", name, lambda: composed(_plain(self.table[name])))
            codes = Codes.of(values, pc.index_in(array, value_set=pa.array(values, array.type)))
        return codes

    def keep(self, what: str, name: str, make: Callable[[], T]) -> T:
        """What `make` makes of a column, made once; `what` names it."""
        if self._before is not None and name not in self._changed:
            return self._before.keep(what, name, make)
        found: Any = self._kept.get((what, name), self)
        if found is self:
            found = self._kept[what, name] = make()
        kept: T = found
        return kept


def widened(table: pa.Table) -> pa.Table:
    """The table with offsets of 64 bits in columns of texts and lists that offsets of 32 bits may not reach through.

    Arrow refuses to make one array of more than 2 GB of a column of type string.
    """
    for at, field in enumerate(table.schema):
        if table[at].nbytes > OFFSETS_REACH and (kind := _wide(field.type)) != field.type:
            table = table.set_column(at, field.with_type(kind), table[at].cast(kind))
    return table


def _wide(kind: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_string(kind):
        return pa.large_string()
    if types.is_binary(kind):
        return pa.large_binary()
    return pa.large_list(_wide(kind.value_type)) if types.is_list(kind) else kind


def one_array(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array; of a single chunk the chunk itself, where Arrow's own function would copy it."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = one_array(column)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _present(array: pa.Array) -> Mask:
    present: Mask = pc.is_valid(array).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(array.type):
        present &= ~np.isnan(_numbers(array))
    return present


def _numbers(array: pa.Array) -> npt.NDArray[Any]:
    """Values as numpy, in the column's own memory; whatever lies where a value is null is masked out by callers."""
    if pa.types.is_boolean(array.type):  # one bit each: copied
        flags: Mask = pc.fill_null(array, False).to_numpy(zero_copy_only=False)
        return flags.view(np.uint8)
    if kind_of(array.type) is Kind.MOMENT:
        array = array.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    if len(array) == 0 or array.null_count == len(array):
        return np.zeros(len(array), np.int64 if pa.types.is_decimal(array.type) else array.type.to_pandas_dtype())
    if pa.types.is_decimal(array.type):
        return _scaled(array)
    dtype = np.dtype(array.type.to_pandas_dtype())
    values: npt.NDArray[Any] = np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)
    return values


def _scaled(array: pa.Array) -> npt.NDArray[Any]:
    """Decimals as int64 without their point where all have at most 18 digits, else as float64."""
    kind = array.type
    if kind.bit_width <= _WORD:
        array = array.cast(pa.decimal128(kind.precision, kind.scale))
    array = pc.fill_null(array, pa.scalar(Decimal(0), array.type))
    words = array.type.bit_width // _WORD
    lanes = np.frombuffer(array.buffers()[1], np.int64, len(array) * words, array.offset * words * 8).reshape(-1, words)
    lowest = np.ascontiguousarray(lanes[:, 0])
    if all((lanes[:, at] == lowest >> 63).all() for at in range(1, words)):
        return lowest
    rounded: npt.NDArray[np.float64] = array.cast(pa.float64()).to_numpy()
    return rounded


def _codes(array: pa.Array) -> Codes | None:
    for size in sorted({min(2 * _MAX_CODES, len(array)), len(array)}):  # the first titles tell, mostly
        coded = array[:size].dictionary_encode()
        if len(coded.dictionary) > _MAX_CODES:
            return None
    texts = coded.dictionary.cast(pa.string())
    values = composed(texts)
    if values is texts:
        return Codes.of(texts.to_pylist(), coded.indices)
    merged = values.dictionary_encode()  # several spellings of a value are one
    return Codes.of(merged.dictionary.to_pylist(), merged.indices.take(coded.indices))


def _labels(columns: Columns, name: str) -> Codes | None:
    array, present = _plain(columns.table[name]), pa.array(columns.present(name))
    return _codes(pc.if_else(present, array, pa.scalar(None, array.type)))


def composed(texts: pa.Array) -> pa.Array:
    """Texts in Unicode NFC; the array itself where they are that already."""
    if pc.all(pc.string_is_ascii(texts)).as_py() is not False:
        return texts
    composed = pc.utf8_normalize(texts, "NFC")
    return texts if composed.equals(texts) else composed
