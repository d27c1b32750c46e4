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
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from smar.index.columns import Columns, Kind, Mask


@dataclass(frozen=True, slots=True)
class Comparison:
    """`column` against `values`: one for ``< <= > >=``, any number for ``in``, ``not in`` (also = and !=)."""

    column: str
    kind: Kind
    op: str
    values: tuple[Any, ...]

    def mask(self, columns: Columns) -> Mask:
        """Boolean [rows]."""
        mask = self._fitting(columns)
        return mask & columns.present(self.column) if columns.lacking(self.column) else mask

    def _fitting(self, columns: Columns) -> Mask:
        if self.op == "in":
            return _is_in(columns, self.column, self.kind, self.values)
        if self.op == "not in":
            return ~_is_in(columns, self.column, self.kind, self.values)
        return _ordered(columns, self.column, _ORDER[self.op], self.values[0])


@dataclass(frozen=True, slots=True)
class Exists:
    """Rows that have a value in `column`."""

    column: str

    def mask(self, columns: Columns) -> Mask:
        """Boolean [rows]."""
        return columns.present(self.column)


@dataclass(frozen=True, slots=True)
class Not:
    """Complement."""

    term: "Node"

    def mask(self, columns: Columns) -> Mask:
        """Boolean [rows]."""
        return ~self.term.mask(columns)


@dataclass(frozen=True, slots=True)
class Both:
    """Intersection of `terms`, or their union when `any_of`."""

    terms: tuple["Node", ...]
    any_of: bool

    def mask(self, columns: Columns) -> Mask:
        """Boolean [rows]."""
        combine = np.logical_or if self.any_of else np.logical_and
        result: Mask = combine.reduce([term.mask(columns) for term in self.terms])
        return result


Node: TypeAlias = Comparison | Exists | Not | Both


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter, bound to the columns it was parsed for; equal filters hash equally."""

    root: Node

    def mask(self, table: pa.Table | Columns) -> Mask:
        """Which rows of `table` match: boolean [rows]; `Columns` remember what they converted."""
        return self.root.mask(table if isinstance(table, Columns) else Columns(table))


_FEW = 8
_ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def _ordered(columns: Columns, name: str, compare: Callable[[Any, Any], Any], value: Any) -> Mask:
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # a literal beyond a float32 column becomes inf, which compares right
        mask: Mask = compare(columns.numbers(name), value)
    return mask


def _among(numbers: Any, values: tuple[Any, ...]) -> Mask:
    """Membership in many values at once; a literal that the column's type cannot hold matches nothing."""
    kind = numbers.dtype
    if kind.kind in "iu":
        ends = np.iinfo(kind)
        values = tuple(int(value) for value in values if int(value) == value and ends.min <= value <= ends.max)
    with np.errstate(over="ignore"):
        found: Mask = np.isin(numbers, np.array(values).astype(kind))
    return found


def _is_in(columns: Columns, name: str, kind: Kind, values: tuple[Any, ...]) -> Mask:
    if kind is Kind.TEXT:
        return columns.is_text(name, values)
    if len(values) > _FEW:
        return _among(columns.numbers(name), values)
    matches: Mask = np.logical_or.reduce([_ordered(columns, name, operator.eq, value) for value in values])
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
