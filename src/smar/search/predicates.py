"""A filter as engines are asked for it: without `not`, in the values that they hold.

`positive` rewrites the tree once: what is negated becomes its opposite, or a missing value. Each engine prints what is
left with a `Dialect` of its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa

from smar.search.column_values import Kind
from smar.search.filters import EXACT, ORDER, Both, Comparison, Exists, Filter, Holds, Node, Not
from smar.search.stored import Column, Stored

_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_ENDS = np.iinfo(np.int64)


@dataclass(frozen=True, slots=True)
class Compare:
    """Rows whose value is `op` (``< <= > >=``) than `value`."""

    column: Column
    op: str
    value: float


@dataclass(frozen=True, slots=True)
class Among:
    """Rows that have a value, which is one of `values`, or (`none`) none of them; there is one at least."""

    column: Column
    values: tuple[Any, ...]
    none: bool


@dataclass(frozen=True, slots=True)
class Lists:
    """Rows that have a list with one of `values`, or all (`every`); or (`none`) a list of which that is not so."""

    column: Column
    values: tuple[Any, ...]
    every: bool
    none: bool


@dataclass(frozen=True, slots=True)
class Present:
    """Rows that have a value, or (not `there`) have none."""

    column: Column
    there: bool


@dataclass(frozen=True, slots=True)
class Constant:
    """All rows, or none."""

    value: bool


@dataclass(frozen=True, slots=True)
class Joined:
    """All of `terms`, or (`any_of`) one of them."""

    terms: tuple["Predicate", ...]
    any_of: bool


Predicate: TypeAlias = Compare | Among | Lists | Present | Constant | Joined


def positive(filter: Filter | None, stored: Stored) -> Predicate | None:
    """What a filter asks of an engine; None for no filter."""
    return None if filter is None else _positive(filter.root, stored, False)


def _positive(node: Node, stored: Stored, negated: bool) -> Predicate:
    if isinstance(node, Not):
        return _positive(node.term, stored, not negated)
    if isinstance(node, Both):
        return joined([_positive(term, stored, negated) for term in node.terms], node.any_of != negated)
    if (isinstance(node, Comparison) and node.kind is Kind.EMPTY) or node.column not in _names(stored):
        return Constant(negated)  # nothing has a value
    column = stored.field(node.column)
    if isinstance(node, Exists):
        return Present(column, not negated)
    if isinstance(node, Holds):
        values = _values(node.values, column.held.value_type, column.scale, node.kind)
        missing = node.every and len(values) < len(node.values)  # one that the column cannot hold is in no list
        found: Predicate = Constant(False)
        if values and not missing:
            found = Lists(column, values, node.every, negated)
        elif negated:
            found = Present(column, True)
        return _or_missing(found, column) if negated else found
    found = _comparison(node, column, negated)
    return _or_missing(found, column) if negated else found


def _names(stored: Stored) -> set[str]:
    return {column.name for column in stored.columns}


def _or_missing(found: Predicate, column: Column) -> Predicate:
    return joined([found, Present(column, False)], True)


def _comparison(node: Comparison, column: Column, negated: bool) -> Predicate:
    """The comparison, or its opposite among the rows that have a value."""
    if node.op in ORDER:
        return _ordered(node, column, _OPPOSITE[node.op] if negated else node.op)
    none = (node.op == "not in") != negated
    values = _values(node.values, column.held, column.scale, node.kind)
    if not values:
        return Present(column, True) if none else Constant(False)
    return Among(column, values, none)


def _ordered(node: Comparison, column: Column, op: str) -> Predicate:
    if pa.types.is_floating(column.held):
        return Compare(column, op, _float(node.values[0], column.held))
    scaled = node.values[0].scaleb(column.scale, EXACT)
    whole = ORDER[op][1](scaled)
    if not _ENDS.min <= whole <= _ENDS.max:  # beyond all that the column can hold
        return Present(column, True) if (whole > 0) == (op in ("<", "<=")) else Constant(False)
    return Compare(column, op, whole)


def _values(values: Sequence[Any], held: pa.DataType, scale: int, kind: Kind) -> tuple[Any, ...]:
    """Those that a column of the type `held` can hold."""
    if kind is Kind.TEXT:
        return tuple(values)
    if kind is Kind.FLAG:
        return tuple(bool(value) for value in values)
    if pa.types.is_floating(held):
        return tuple(_float(value, held) for value in values)
    scaled = [value.scaleb(scale, EXACT) for value in values]
    return tuple(int(value) for value in scaled if value == math.floor(value) and _ENDS.min <= value <= _ENDS.max)


def _float(value: Decimal, held: pa.DataType) -> float:
    """A number in the column's precision."""
    if not pa.types.is_float32(held):
        return float(value)
    with np.errstate(over="ignore"):
        short = float(np.float32(float(value)))
    return short if math.isfinite(short) else float(value)


def joined(terms: Sequence[Predicate], any_of: bool) -> Predicate:
    """Terms as one, without those that say nothing."""
    decisive = Constant(any_of)
    if decisive in terms:
        return decisive
    left = [term for term in dict.fromkeys(terms) if not isinstance(term, Constant)]
    if not left:
        return Constant(not any_of)
    return Joined(tuple(left), any_of) if len(left) > 1 else left[0]


class Dialect(Protocol):
    """How an engine writes the parts of a predicate."""

    def compare(self, term: Compare) -> str:
        """A comparison."""

    def among(self, term: Among) -> str:
        """Membership; with `none`, of rows that have a value."""

    def lists(self, term: Lists) -> str:
        """What lists hold; with `none`, of rows that have a list."""

    def present(self, term: Present) -> str:
        """Whether there is a value."""

    def constant(self, term: Constant) -> str:
        """All or none."""


def printed(predicate: Predicate, dialect: Dialect) -> str:
    """A predicate in the words of an engine."""
    match predicate:
        case Compare():
            return dialect.compare(predicate)
        case Among():
            return dialect.among(predicate)
        case Lists():
            return dialect.lists(predicate)
        case Present():
            return dialect.present(predicate)
        case Constant():
            return dialect.constant(predicate)
        case Joined(terms, any_of):
            return "(" + (" or " if any_of else " and ").join(printed(term, dialect) for term in terms) + ")"
