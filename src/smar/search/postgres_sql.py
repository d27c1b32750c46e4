"""PostgreSQL's words for what an engine holds: types, vectors, rows as tables, and filters as its predicates."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
from psycopg.adapt import Buffer, Dumper
from psycopg.pq import Format

from smar.search.predicates import Among, Compare, Constant, Lists, Predicate, Present, printed
from smar.search.ranked import Vectors
from smar.search.stored import VECTOR, Stored

_TYPES = {pa.string(): "text", pa.int64(): "int8", pa.float64(): "float8", pa.float32(): "float4", pa.bool_(): "bool"}


class Vector(bytes):
    """A vector as pgvector sends and takes it: its size, nothing, and its numbers, all big-endian."""

    @classmethod
    def of(cls, numbers: Vectors) -> "Vector":
        """Numbers [n] as such bytes."""
        return cls(len(numbers).to_bytes(2, "big") + b"\0\0" + numbers.astype(">f4").tobytes())


class VectorDumper(Dumper):
    """Hands such bytes over as they are; a subclass of it names the type's `oid`, which a database gives."""

    format = Format.BINARY

    def dump(self, obj: Vector) -> Buffer:
        """See psycopg."""
        return obj


def type_name(kind: pa.DataType) -> str:
    """The type of a column."""
    if pa.types.is_fixed_size_list(kind):
        return f"vector({kind.list_size})"
    return f"{type_name(kind.value_type)}[]" if pa.types.is_list(kind) else _TYPES[kind]


def quoted(text: str) -> str:
    """A literal, for the commands that take no parameters."""
    return "'" + text.replace("'", "''") + "'"


def copy_rows(connection: "psycopg.Connection[Any]", table: str, rows: pa.Table) -> None:
    """Add rows to a table by COPY, in binary."""
    names = ", ".join(f'"{name}"' for name in rows.column_names)
    vectors = rows[VECTOR].combine_chunks()
    flat = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)
    columns = [map(Vector.of, flat) if name == VECTOR else rows[name].to_pylist() for name in rows.column_names]
    with connection.cursor().copy(f"COPY {table} ({names}) FROM STDIN (FORMAT binary)") as copy:
        copy.set_types([type_name(field.type).partition("(")[0] for field in rows.schema])
        for row in zip(*columns, strict=True):
            copy.write_row(row)


def table_of(rows: Sequence[tuple[Any, ...]], stored: Stored) -> pa.Table:
    """Rows that were fetched in binary, with their vectors, as `Stored.held` has them."""
    at = stored.held.get_field_index(VECTOR)
    vectors = [np.frombuffer(row[at], ">f4", offset=4).astype(np.float32) for row in rows]
    flat = pa.array(np.concatenate(vectors) if vectors else np.empty(0, np.float32))
    others = columns_of([(*row[:at], *row[at + 1 :]) for row in rows], stored.held.remove(at))
    return others.add_column(at, VECTOR, pa.FixedSizeListArray.from_arrays(flat, 2 * stored.dim))


def columns_of(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Rows that were fetched, without vectors."""
    columns = zip(*rows, strict=True) if rows else [()] * len(schema)
    return pa.table([pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema)


def where_of(predicate: Predicate | None) -> tuple[str, list[Any]]:
    """The clause, and the values that it leaves out."""
    dialect = _Dialect()
    return ("", []) if predicate is None else (f" WHERE {printed(predicate, dialect)}", dialect.values)


class _Dialect:
    """Plain predicates, which indexes of columns answer; values are parameters."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def _value(self, value: Any, kind: pa.DataType) -> str:
        self.values.append(value)
        return f"%s::{type_name(kind)}"

    def compare(self, term: Compare) -> str:
        kind = pa.float64() if pa.types.is_floating(term.column.held) else term.column.held
        return f'"{term.column.field}" {term.op} {self._value(term.value, kind)}'

    def among(self, term: Among) -> str:
        values = self._value(list(term.values), pa.list_(term.column.held))
        return f'"{term.column.field}" {"<> ALL" if term.none else "= ANY"} ({values})'

    def lists(self, term: Lists) -> str:
        held = (
            f'"{term.column.field}" {"@>" if term.every else "&&"} {self._value(list(term.values), term.column.held)}'
        )
        return f"NOT ({held})" if term.none else held

    def present(self, term: Present) -> str:
        return f'"{term.column.field}" IS {"NOT " if term.there else ""}NULL'

    def constant(self, term: Constant) -> str:
        return "true" if term.value else "false"
