"""Filters: ``price<50 and brand in (Nike, "Le Coq") and not exists(discount)`` -> the items that match.

The grammar, loosest first: ``or``, ``and``, ``not``, then parentheses, ``exists(column)``, ``column op
value`` with ``= != < <= > >=``, and ``column [not] in (value, ...)``. Words need quotes when they hold spaces
or punctuation; inside quotes a backslash takes the next character as it is.

A missing value (null or NaN) matches no comparison, not even ``!=``; ``not`` is the plain complement, so
``not price<50`` does keep items without a price. A number is compared in its column's precision:
``price=0.1`` finds a float32 0.1.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Mask: TypeAlias = npt.NDArray[np.bool_]


class Kind(StrEnum):
    """What a column holds, as far as filters care."""

    TEXT = "text"
    NUMBER = "number"
    FLAG = "true or false"
    MOMENT = "a date"
    OTHER = "a list or nested value"


def kind_of(column: pa.DataType) -> Kind:
    """Kind of an Arrow type."""
    types = pa.types
    if types.is_dictionary(column):
        return kind_of(column.value_type)
    if types.is_string(column) or types.is_large_string(column):
        return Kind.TEXT
    if types.is_boolean(column):
        return Kind.FLAG
    if types.is_integer(column) or types.is_floating(column) or types.is_decimal(column):
        return Kind.NUMBER
    return Kind.MOMENT if types.is_date(column) or types.is_timestamp(column) else Kind.OTHER


@dataclass(frozen=True, slots=True)
class Comparison:
    """`column` against `values`: one for ``< <= > >=``, any number for ``in``, ``not in`` (also = and !=)."""

    column: str
    kind: Kind
    op: str
    values: tuple[Any, ...]

    def mask(self, table: pa.Table) -> Mask:
        """Boolean [rows]."""
        column = _plain(table[self.column])
        present = _present(column)
        if self.op == "in":
            return present & _is_in(column, self.kind, self.values)
        if self.op == "not in":
            return present & ~_is_in(column, self.kind, self.values)
        return present & _ordered(column, self.kind, _ORDER[self.op], self.values[0])


@dataclass(frozen=True, slots=True)
class Exists:
    """Rows that have a value in `column`."""

    column: str

    def mask(self, table: pa.Table) -> Mask:
        """Boolean [rows]."""
        return _present(_plain(table[self.column]))


@dataclass(frozen=True, slots=True)
class Not:
    """Complement."""

    term: "Node"

    def mask(self, table: pa.Table) -> Mask:
        """Boolean [rows]."""
        return ~self.term.mask(table)


@dataclass(frozen=True, slots=True)
class Both:
    """Intersection of `terms`, or their union when `any_of`."""

    terms: tuple["Node", ...]
    any_of: bool

    def mask(self, table: pa.Table) -> Mask:
        """Boolean [rows]."""
        combine = np.logical_or if self.any_of else np.logical_and
        result: Mask = combine.reduce([term.mask(table) for term in self.terms])
        return result


Node: TypeAlias = Comparison | Exists | Not | Both


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter, bound to the columns it was parsed for; equal filters hash equally."""

    root: Node

    def mask(self, table: pa.Table) -> Mask:
        """Which rows of `table` match: boolean [rows]."""
        return self.root.mask(table)


_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # combining no chunk, or more than fits one array, keeps the wrapper
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array.cast(pa.float64()) if pa.types.is_decimal(array.type) else array


def _present(array: pa.Array) -> Mask:
    present: Mask = pc.is_valid(array).to_numpy(zero_copy_only=False)
    if pa.types.is_floating(array.type):
        present = present & ~np.isnan(_numbers(array))
    return present


def _numbers(array: pa.Array) -> npt.NDArray[Any]:
    """Values as numpy with 0 where null; callers mask these out."""
    filled = pc.fill_null(array, pa.scalar(0, pa.int64()).cast(array.type)) if array.null_count else array
    values: npt.NDArray[Any] = filled.to_numpy(zero_copy_only=False)
    return values


def _moments(array: pa.Array) -> npt.NDArray[Any]:
    values = array.cast(pa.timestamp("us")) if pa.types.is_date(array.type) else array
    return _numbers(values.cast(pa.timestamp("us"), safe=False).cast(pa.int64()))


def _ordered(array: pa.Array, kind: Kind, compare: Callable[[Any, Any], Any], value: Any) -> Mask:
    values = _moments(array) if kind is Kind.MOMENT else _numbers(array)
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # a literal beyond a float32 column becomes inf, which compares right
        mask: Mask = compare(values, value)
    return mask


def _is_in(array: pa.Array, kind: Kind, values: tuple[Any, ...]) -> Mask:
    if kind in (Kind.TEXT, Kind.FLAG):
        found: Mask = pc.is_in(array, value_set=pa.array(values, array.type)).to_numpy(zero_copy_only=False)
        return found
    matches: Mask = np.logical_or.reduce([_ordered(array, kind, operator.eq, value) for value in values])
    return matches


def literal(text: str, kind: Kind) -> Any:
    """A written value as one that compares with a column of `kind`; ValueError says what is expected."""
    if kind is Kind.TEXT:
        return text
    if kind is Kind.FLAG:
        if text.lower() not in ("true", "false"):
            raise ValueError("expected true or false")
        return text.lower() == "true"
    if kind is Kind.MOMENT:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError("expected a date such as 2026-09-27") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    try:
        number = float(text)
    except ValueError:
        raise ValueError("expected a number") from None
    if not np.isfinite(number):
        raise ValueError("expected a finite number")
    digits = text.lstrip("+-")
    # whole numbers stay integers: a float64 cannot tell apart ids beyond 2**53
    return int(text) if digits.isdecimal() else int(number) if number.is_integer() else number
