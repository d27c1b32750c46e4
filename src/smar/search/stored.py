"""Item columns as engines hold them: texts, whole numbers, floats, flags, and lists of these.

A date is whole microseconds since 1970, a decimal a whole number of its last digit, a nested value JSON, as filters
compare them (`smar.search.column_values`) and as every engine can hold them. Texts are in Unicode NFC, and NaN is a
missing value, as filters have it, too.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc

from smar.core.errors import InputError
from smar.search.column_values import Kind, composed, kind_of
from smar.search.embeddings import INTERNAL_COLUMNS

ID, VECTOR, PICTURE = "item_id", "smar_vector", "smar_picture"
"""Columns of every engine: the item's id, ``[S_m ; S_t]``, and where its picture lies (null: it has none)."""
_DIGITS = 18  # that int64 holds
_PLAIN = re.compile(r"(?!smar_)[a-z][a-z0-9_]{0,50}", re.ASCII)
_WORDS = frozenset({"all", "and", "any", "array", "between", "case", "exists", "false", "in", "is", "json", "like"}) | {
    *("not", "null", "or", "true", "user")
}


@dataclass(frozen=True, slots=True)
class Column:
    """An item column: its `name` and `type` in the shop, the name of its `field` in the engine, and its `kind`."""

    name: str
    type: pa.DataType
    field: str
    kind: Kind

    @property
    def held(self) -> pa.DataType:
        """The type that the engine holds."""
        return _held(self.type)

    @property
    def scale(self) -> int:
        """By how many powers of ten a decimal, or a list's, is larger in the engine."""
        inner = self.type.value_type if self.kind is Kind.LIST else self.type
        return int(inner.scale) if pa.types.is_decimal(inner) else 0


@dataclass(frozen=True)
class Stored:
    """How the item columns of `schema` are held; `dim` is k.

    >>> columns = Stored(pa.schema({"item_id": pa.string(), "Price": pa.decimal128(8, 2)}), 2)
    >>> columns.field("Price").field, str(columns.field("Price").held)
    ('column_1', 'int64')
    """

    schema: pa.Schema
    dim: int

    @classmethod
    def of(cls, schema: pa.Schema, dim: int) -> Self:
        """Without the columns that locate pictures."""
        fields = [field for field in schema if field.name not in INTERNAL_COLUMNS]
        return cls(pa.schema([pa.field(field.name, field.type) for field in fields]), dim)

    def text(self) -> str:
        """The schema as text, to stand in the engine."""
        return base64.b64encode(self.schema.serialize()).decode()

    @classmethod
    def read(cls, text: str, dim: int) -> Self:
        """What `text` wrote."""
        return cls(pa.ipc.read_schema(pa.BufferReader(base64.b64decode(text))), dim)

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """Those that the engine holds beside `VECTOR` and `PICTURE`: all but the ones without any value."""
        columns = []
        for at, field in enumerate(self.schema):
            plain = _PLAIN.fullmatch(field.name) and field.name not in _WORDS
            name = field.name if plain else f"column_{at}"
            if (kind := kind_of(field.type)) is not Kind.EMPTY:
                columns.append(Column(field.name, field.type, name, kind))
        return tuple(columns)

    def field(self, name: str) -> Column:
        """The column of a name that the shop has."""
        return next(column for column in self.columns if column.name == name)

    @cached_property
    def held(self) -> pa.Schema:
        """What a table of the engine has."""
        fields = {column.field: column.held for column in self.columns}
        return pa.schema(fields | {VECTOR: pa.list_(pa.float32(), 2 * self.dim), PICTURE: pa.string()})

    def table(self, payload: pa.Table, vectors: Any, pictures: Sequence[str | None]) -> pa.Table:
        """Items as the engine holds them.

        Args:
            payload: the columns of `schema`.
            vectors: ``[S_m ; S_t]``, float32 [n, 2k].
            pictures: where each picture lies.

        Raises:
            InputError: a value has no place in an engine, such as a decimal of more than 18 digits.
        """
        held = {}
        for column in self.columns:
            try:
                held[column.field] = _hold(payload[column.name].combine_chunks(), column)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError, OverflowError) as error:
                said = f"column {column.name} ({column.type}) holds what an engine cannot: {error}. Leave it out."
                raise InputError(said) from None
        if (odd := pc.not_equal(held[ID], payload[ID].combine_chunks())).true_count:
            name = payload[ID].filter(odd)[0].as_py()
            raise InputError(f"item_id {name!r} is not in Unicode NFC, which engines compare texts in; write it so.")
        flat = pa.array(vectors.ravel(), pa.float32())
        held[VECTOR] = pa.FixedSizeListArray.from_arrays(flat, 2 * self.dim)
        return pa.table({**held, PICTURE: pa.array(pictures, pa.string())}, self.held)

    def items(self, rows: pa.Table) -> pa.Table:
        """Item columns of rows of an engine, as the shop has them."""
        found = {column.name: _shown(rows[column.field].to_pylist(), column) for column in self.columns}
        return pa.table(
            [found[field.name] if field.name in found else pa.nulls(len(rows), field.type) for field in self.schema],
            self.schema,
        )


def _held(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    what = kind_of(kind)
    if what is Kind.LIST:
        return pa.list_(_held(kind.value_type))
    if what is Kind.FLAG:
        return pa.bool_()
    if what is Kind.MOMENT or (what is Kind.NUMBER and not pa.types.is_floating(kind)):
        return pa.int64()
    if what is Kind.NUMBER:
        return pa.float64() if pa.types.is_float64(kind) else pa.float32()
    return pa.string()


def _hold(array: pa.Array, column: Column) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    what = kind_of(array.type)
    if what is Kind.LIST:
        lists = pa.concat_arrays(
            [array.cast(pa.list_(array.type.value_type)), pa.array([], pa.list_(array.type.value_type))]
        )
        held = _hold(lists.values, column)
        return pa.ListArray.from_arrays(lists.offsets, held, mask=lists.is_null())
    if what is Kind.OTHER:
        texts = [None if one is None else json.dumps(one, ensure_ascii=False) for one in array.to_pylist()]
        return pa.array(texts, pa.string())
    if what is Kind.TEXT:
        return composed(array.cast(pa.string()))
    if what is Kind.MOMENT:
        return array.cast(pa.timestamp("us", getattr(array.type, "tz", None))).cast(pa.int64())
    if pa.types.is_decimal(array.type):
        return pa.array([None if one is None else _whole(one, column.scale) for one in array.to_pylist()], pa.int64())
    array = array.cast(_held(array.type))
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
    return array


def _whole(value: Decimal, scale: int) -> int:
    whole = int(value.scaleb(scale))
    if len(str(abs(whole))) > _DIGITS:
        raise OverflowError(f"{value} has more than {_DIGITS} digits")
    return whole


def _shown(values: list[Any], column: Column) -> pa.Array:
    if column.kind is Kind.OTHER:
        values = [None if one is None else json.loads(one) for one in values]
    return _typed(values, column.type, column.scale)


def _typed(values: list[Any], kind: pa.DataType, scale: int) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return _typed(values, kind.value_type, scale).cast(kind)
    if kind_of(kind) is Kind.LIST:
        entries = [None if own is None else _typed(list(own), kind.value_type, scale).to_pylist() for own in values]
        return pa.array(entries, kind)
    if kind_of(kind) is Kind.MOMENT:
        return pa.array(values, pa.int64()).cast(pa.timestamp("us", getattr(kind, "tz", None))).cast(kind)
    if pa.types.is_decimal(kind):
        return pa.array([None if one is None else Decimal(one).scaleb(-scale) for one in values], kind)
    return pa.array(values, kind)


def label(value: Any, column: Column) -> str:
    """A value of a column, or of its lists, as a filter names it."""
    kind = column.type.value_type if column.kind is Kind.LIST else column.type
    (shown,) = _typed([value], kind, column.scale).cast(pa.string()).to_pylist()
    return str(shown)
