"""Filters: ``price<50 and brand in (Nike, "Le Coq") and not exists(discount)`` -> the items that match.

The grammar, loosest first: ``or``, ``and``, ``not``, then parentheses, ``exists(column)``, ``column op
value`` with ``= != < <= > >=``, and ``column [not] in (value, ...)``. Words need quotes when they hold spaces
or punctuation; inside quotes a backslash takes the next character as it is. Of lists, ``sizes=M`` and
``sizes in (S, M)`` ask for one of the values, ``sizes all (S, M)`` for all of them, ``!=`` and ``not in`` for none.

A missing value (null or NaN) matches no comparison, not even ``!=``; ``not`` is the plain complement, so
``not price<50`` does keep items without a price. A number is compared in its column's precision:
``price=0.1`` finds a float32 0.1. Whole numbers and decimals compare exactly. Texts compare in Unicode NFC, so that it
does not matter how an accent is stored; case does.
"""

import math
import operator
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from smar.data.text import compose
from smar.search.column_values import Codes, Columns, Kind, Mask, any_equal

Texts: TypeAlias = Mapping[str, Codes]
"""The text columns that a filter names."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`column` against `values`: one for ``< <= > >=``, any number for ``in``, ``not in`` (also = and !=).

    Values are what `literal` returns.
    """

    column: str
    kind: Kind
    op: str
    values: tuple[Any, ...]

    def mask(self, columns: Columns, texts: Texts) -> Mask:
        """Boolean [rows], the caller's own."""
        mask = self._fitting(columns, texts)
        if self.op == "not in":
            np.logical_not(mask, out=mask)
        if columns.lacking(self.column):
            mask &= columns.present(self.column)
        return mask

    def _fitting(self, columns: Columns, texts: Texts) -> Mask:
        if self.kind is Kind.EMPTY:
            return np.zeros(len(columns), np.bool_)
        if self.kind is Kind.TEXT:
            return texts[self.column].among(self.values)
        if self.op in ORDER:
            return _ordered(columns, self.column, self.op, self.values[0])
        return _among(columns, self.column, self.values)


@dataclass(frozen=True, slots=True)
class Holds:
    """Lists of `column` that hold one of `values`, or all of them (`every`); `kind` is that of their entries."""

    column: str
    kind: Kind
    values: tuple[Any, ...]
    every: bool

    def mask(self, columns: Columns, texts: Texts) -> Mask:
        """Boolean [rows], the caller's own."""
        rows, entries = columns.entries(self.column)
        mask = np.full(len(columns), self.every)
        for values in [(value,) for value in self.values] if self.every else [self.values]:
            codes = {self.column: entries.codes_of(self.column, values)} if self.kind is Kind.TEXT else {}
            found = np.zeros(len(columns), np.bool_)
            found[rows[Comparison(self.column, self.kind, "in", values).mask(entries, codes)]] = True
            mask = mask & found if self.every else found
        return mask


@dataclass(frozen=True, slots=True)
class Exists:
    """Rows that have a value in `column`."""

    column: str

    def mask(self, columns: Columns, texts: Texts) -> Mask:
        """Boolean [rows], the caller's own."""
        return columns.present(self.column).copy()


@dataclass(frozen=True, slots=True)
class Not:
    """Complement."""

    term: "Node"

    def mask(self, columns: Columns, texts: Texts) -> Mask:
        """Boolean [rows], the caller's own."""
        mask = self.term.mask(columns, texts)
        return np.logical_not(mask, out=mask)


class Hidden(Not):
    """Complement of what a shop hides: no choice of the shopper's, so no facet is counted without it."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Both:
    """Intersection of `terms`, or their union when `any_of`."""

    terms: tuple["Node", ...]
    any_of: bool

    def mask(self, columns: Columns, texts: Texts) -> Mask:
        """Boolean [rows], the caller's own; in place of the first term's, as new memory costs more than the work."""
        first, *others = self.terms
        mask = first.mask(columns, texts)
        combine = np.logical_or if self.any_of else np.logical_and
        for term in others:
            combine(mask, term.mask(columns, texts), out=mask)
        return mask


Node: TypeAlias = Comparison | Holds | Exists | Not | Both


@dataclass(frozen=True, slots=True)
class Filter:
    """A parsed filter, bound to the columns it was parsed for; equal filters hash equally."""

    root: Node
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.root))

    def __hash__(self) -> int:  # masks and counts are looked up by it many times in a search
        return self._hash

    def __reduce__(self) -> tuple[type["Filter"], tuple[Node]]:  # another process hashes texts otherwise
        return Filter, (self.root,)

    def mask(self, table: pa.Table | Columns) -> Mask:
        """Which rows of `table` match: boolean [rows]; `Columns` remember what they converted."""
        columns = table if isinstance(table, Columns) else Columns(table)
        sought: defaultdict[str, set[str]] = defaultdict(set)
        for name, value in _texts(self.root):
            sought[name].add(value)
        # all that a column is asked for at once: many texts cost a pass hardly more than one does
        return self.root.mask(columns, {name: columns.codes_of(name, [*texts]) for name, texts in sought.items()})


def columns_of(node: Node) -> set[str]:
    """The columns that a part of a filter names."""
    match node:
        case Hidden():
            return set()
        case Comparison(column) | Holds(column) | Exists(column):
            return {column}
        case Not(term):
            return columns_of(term)
        case Both(terms):
            return set().union(*map(columns_of, terms))


@lru_cache(maxsize=1024)
def without(filter: Filter | None, column: str) -> Filter | None:
    """The filter as if nothing had been chosen of `column`: without the terms of its ``and`` that name it alone.

    The same filter where there is nothing such.
    """
    if filter is None:
        return None
    terms = filter.root.terms if isinstance(filter.root, Both) and not filter.root.any_of else (filter.root,)
    kept = tuple(term for term in terms if columns_of(term) != {column})
    if len(kept) == len(terms):
        return filter
    return Filter(Both(kept, any_of=False) if len(kept) > 1 else kept[0]) if kept else None


def along(filter: Filter | None, node: Node) -> Filter:
    """What passes a filter, None for everything, and a node."""
    if filter is None:
        return Filter(node)
    terms = filter.root.terms if isinstance(filter.root, Both) and not filter.root.any_of else (filter.root,)
    return Filter(Both((*terms, node), any_of=False))


def _texts(node: Node) -> Iterator[tuple[str, str]]:
    """Text columns and what they are compared with."""
    match node:
        case Comparison(column, Kind.TEXT, _, values):
            yield from ((column, value) for value in values)
        case Not(term):
            yield from _texts(term)
        case Both(terms):
            for term in terms:
                yield from _texts(term)


_MANY = 8
EXACT = Context(prec=10_000, Emin=MIN_EMIN, Emax=MAX_EMAX)
ORDER: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Decimal], int]]] = {
    "<": (operator.lt, math.ceil),
    "<=": (operator.le, math.floor),
    ">": (operator.gt, math.floor),
    ">=": (operator.ge, math.ceil),
}
"""With what a whole number compares as it does with a fraction: n < 2.5 as n < 3."""


def _ordered(columns: Columns, name: str, op: str, value: Decimal) -> Mask:
    numbers, (compare, whole) = columns.numbers(name), ORDER[op]
    value = value.scaleb(columns.scale(name), EXACT)
    with np.errstate(over="ignore"):  # a literal beyond a float32 column becomes inf, which compares right
        mask: Mask = compare(numbers, float(value) if numbers.dtype.kind == "f" else whole(value))
    return mask


def _among(columns: Columns, name: str, values: tuple[Decimal, ...]) -> Mask:
    """Membership; a literal that the column cannot hold, such as a fraction among whole numbers, matches nothing."""
    numbers, scale = columns.numbers(name), columns.scale(name)
    scaled = [value.scaleb(scale, EXACT) for value in values]
    if numbers.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return any_equal(numbers, [float(value) for value in scaled])
    whole, ends = [math.floor(value) for value in scaled if value == math.floor(value)], np.iinfo(numbers.dtype)
    whole = [value for value in whole if ends.min <= value <= ends.max]
    if len(whole) > _MANY and max(whole) - min(whole) < len(numbers):  # a table is faster then
        return np.isin(numbers, np.array(whole, numbers.dtype), kind="table")
    return any_equal(numbers, whole)


def literal(text: str, kind: Kind) -> Any:
    """A written value as a str or Decimal that compares with a column of `kind`; ValueError says what is expected."""
    if kind in (Kind.TEXT, Kind.EMPTY):
        if text.encode("utf-8", "ignore").decode() != text:
            raise ValueError("expected text that UTF-8 can hold")
        return compose(text)
    if kind is Kind.FLAG:
        if text.lower() not in ("true", "false"):
            raise ValueError("expected true or false")
        return Decimal(text.lower() == "true")
    if kind is Kind.MOMENT:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError("expected a date such as 2026-09-27") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return Decimal((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)
    try:
        number = Decimal(text)  # a float64 cannot tell apart ids beyond 2**53
    except ArithmeticError:
        raise ValueError("expected a number") from None
    if not (number.is_finite() and math.isfinite(float(number))):
        raise ValueError("expected a finite number")
    return number
