"""PostgreSQL with pgvector: a version is a table, and the view ``NAME`` says which one is searched.

The `COMMENT` of a table is its `About`, that of the view names the version and the one before. A loaded version takes
the place of the one before in one transaction. Searches name the table itself, so that vectors and query encoder
always belong together.

Where a filter leaves few rows they are taken out first and ranked exactly; an HNSW scan that has to pass by most rows
finds next to nothing. Where it leaves many, the scan goes on (``hnsw.iterative_scan``) until enough of them match.
"""

import json
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
import pyarrow as pa
from psycopg.types import TypeInfo

from smar.core.errors import InputError
from smar.search.column_values import Kind
from smar.search.counts import ColumnCounts
from smar.search.engine_counts import ranged, tallied, unit_of
from smar.search.postgres_sql import Vector, VectorDumper, columns_of, copy_rows, quoted, table_of, type_name, where_of
from smar.search.predicates import Predicate
from smar.search.protocol import EngineDown
from smar.search.ranked import Vectors
from smar.search.store import Store
from smar.search.stored import ID, VECTOR, Column, Stored

T = TypeVar("T")
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,40}", re.ASCII)
_MOST_DIMENSIONS = 2000  # that pgvector's HNSW takes
_EFFORTS = (50, 100, 200, 400, 800, 1000)
_SESSION = (
    "SET hnsw.iterative_scan = strict_order",
    "SET hnsw.max_scan_tuples = 2147483647",
    "SET hnsw.scan_mem_multiplier = 16",
    "SET client_encoding = 'UTF8'",
)
_BUILD = ("SET statement_timeout = 0", "SET maintenance_work_mem = '512MB'")
_SHORT = 100  # characters of texts that are indexed
_LABELS = 1000  # different ones
_LABELLED = 50


_BEGUN = "smar is loading "
_WITHOUT_INDEXES = """DO $$ DECLARE one regclass; BEGIN
    FOR one IN SELECT indexrelid FROM pg_index WHERE indrelid = '{table}'::regclass AND NOT indisprimary
    LOOP EXECUTE 'DROP INDEX ' || one; END LOOP; END $$"""
"""A load that was killed while it built indexes builds them again, after the rows."""


class PostgresStore(Store):
    """A database; each thread has a connection of its own, which is made again when it broke."""

    name: ClassVar[str] = "postgresql"

    def __init__(self, url: str, deadline: float) -> None:
        parts = urlsplit(url)
        asked = dict(parse_qsl(parts.query, keep_blank_values=True))
        self._table = asked.pop("table", "smar")
        if not _NAME.fullmatch(self._table):
            raise InputError(f"table={self._table!r}: give a name of a-z, 0-9 and _, at most 41 characters.")
        self._url = urlunsplit(parts._replace(scheme="postgresql", query=urlencode(asked)))
        self._deadline = deadline
        self._local = threading.local()

    def _connect(self) -> "psycopg.Connection[Any]":
        wait = max(2, round(self._deadline))
        connection = psycopg.connect(
            self._url, autocommit=True, connect_timeout=wait, tcp_user_timeout=1000 * wait, application_name="smar"
        )
        for command in _SESSION:
            connection.execute(command)
        connection.execute(f"SET statement_timeout = {round(1000 * self._deadline)}")
        info = TypeInfo.fetch(connection, "vector")
        if info is not None:
            self._register(connection, info)
        return connection

    @staticmethod
    def _register(connection: "psycopg.Connection[Any]", info: TypeInfo) -> None:
        info.register(connection)
        dumper = type("VectorDumper", (VectorDumper,), {"oid": info.oid})
        connection.adapters.register_dumper(Vector, dumper)

    def _do(self, work: "Callable[[psycopg.Connection[Any]], T]", again: bool = True) -> T:
        """Work on this thread's connection; once more on a new one where the old one was dead."""
        used = getattr(self._local, "connection", None)
        try:
            if used is None or used.closed:
                again, self._local.connection = False, self._connect()
            return work(self._local.connection)
        except psycopg.errors.QueryCanceled as error:
            raise EngineDown(f"postgresql gave no answer within {self._deadline:g} s: {error}") from None
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            self.close()
            if again:
                return self._do(work, again=False)
            raise EngineDown(f"postgresql does not answer: {str(error).strip()}") from None
        except psycopg.errors.UndefinedTable as error:
            raise EngineDown(f"postgresql has another version meanwhile: {error}") from None
        except psycopg.Error as error:
            raise InputError(f"postgresql refuses this: {str(error).strip()}") from None

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._do(lambda connection: connection.execute(sql, values).fetchall())

    def _run(self, sql: str) -> None:
        self._do(lambda connection: connection.execute(sql))

    def published(self) -> tuple[str, str] | None:
        seen = "SELECT obj_description(to_regclass(%s), 'pg_class') AS told"
        sql = f"SELECT told, obj_description(to_regclass(told::json->>'current'), 'pg_class') FROM ({seen}) AS view"
        told, about = self._all(sql, [self._table])[0]
        return None if told is None or about is None else (json.loads(told)["current"], about)

    def _versions(self) -> dict[str, str | None]:
        """The version that is searched, and the one before."""
        told = self._all("SELECT obj_description(to_regclass(%s), 'pg_class')", [self._table])[0][0]
        found: dict[str, str | None] = {"current": None, "previous": None} if told is None else json.loads(told)
        return found

    def _tables(self) -> list[str]:
        sql = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ %s AND pg_table_is_visible(oid)"
        return sorted(name for (name,) in self._all(sql, [f"^{self._table}_v[0-9]+$"]))

    def create(self, stored: Stored, key: str) -> tuple[str, bool]:
        """See `Store`; the lock lasts as long as the connection."""
        if 2 * stored.dim > _MOST_DIMENSIONS:
            raise InputError(f"[S_m ; S_t] has {2 * stored.dim} numbers; pgvector's HNSW takes {_MOST_DIMENSIONS}.")
        for command in _BUILD:
            self._run(command)
        if not self._all("SELECT pg_try_advisory_lock(hashtext(%s))", [f"smar {self._table}"])[0][0]:
            raise InputError(f"another process loads {self._table} just now; wait for it.")
        self._run("CREATE EXTENSION IF NOT EXISTS vector")
        self._do(lambda one: self._register(one, TypeInfo.fetch(one, "vector")))  # type: ignore[arg-type]
        for name in self._tables():
            if self._all("SELECT obj_description(to_regclass(%s), 'pg_class')", [name])[0][0] == _BEGUN + key:
                self._run(_WITHOUT_INDEXES.format(table=name))
                return name, True
        numbers = [int(name.rpartition("_v")[2]) for name in self._tables()]
        version = f"{self._table}_v{max(numbers, default=0) + 1:04d}"
        columns = [f'"{field.name}" {type_name(field.type)}' for field in stored.held]
        self._run(f"CREATE TABLE {version} ({', '.join(columns)}, PRIMARY KEY ({ID}))")
        self._run(f"COMMENT ON TABLE {version} IS {quoted(_BEGUN + key)}")
        return version, False

    def append(self, version: str, rows: pa.Table, again: bool) -> None:
        """See `Store`; all rows or none."""
        self._do(lambda connection: copy_rows(connection, version, rows), again=False)

    def finish(self, version: str, stored: Stored) -> tuple[int, ...]:
        """See `Store`; numbers, flags and columns of few short texts get an index, too, as filters name them."""
        sql = [f"CREATE INDEX ON {version} USING hnsw ({VECTOR} vector_ip_ops) WITH (ef_construction = 100)"]
        for column in stored.columns:
            if column.kind is Kind.LIST:
                sql.append(f'CREATE INDEX ON {version} USING gin ("{column.field}")')
            elif column.kind is not Kind.OTHER and column.field != ID and self._is_short(version, column):
                sql.append(f'CREATE INDEX ON {version} ("{column.field}")')
        for command in (*sql, f"ANALYZE {version}"):
            self._run(command)
        return _EFFORTS

    def _is_short(self, version: str, column: Column) -> bool:
        if column.kind is not Kind.TEXT:
            return True
        field = f'"{column.field}"'
        some = f"SELECT {field} FROM {version} LIMIT 20000"
        longest, different = self._all(f"SELECT max(length({field})), count(DISTINCT {field}) FROM ({some}) AS s")[0]
        return (longest or 0) <= _SHORT and different <= _LABELS

    def publish(self, version: str, about: str) -> None:
        before = self._versions()["current"]
        self._run(f"COMMENT ON TABLE {version} IS {quoted(about)}")
        self._show(version, before)
        for name in set(self._tables()) - {version, before}:
            self.drop(name)

    def drop(self, version: str) -> None:
        self._run(f"DROP TABLE {version}")

    def _show(self, version: str, before: str | None) -> None:
        told = json.dumps({"current": version, "previous": before})

        def show(connection: "psycopg.Connection[Any]") -> None:
            with connection.transaction():
                connection.execute(f"DROP VIEW IF EXISTS {self._table}")
                connection.execute(f"CREATE VIEW {self._table} AS SELECT * FROM {version}")
                connection.execute(f"COMMENT ON VIEW {self._table} IS {quoted(told)}")

        self._do(show)

    def rollback(self) -> str:
        held = self._versions()
        if (before := held["previous"]) is None:
            raise InputError(f"{self._table} has no version before the one that is searched.")
        self._show(before, held["current"])
        return before

    def nearest(
        self, version: str, stored: Stored, wide: Vectors, k: int, predicate: Predicate | None, effort: int
    ) -> pa.Table:
        ordered = f"ORDER BY {VECTOR} <#> %b LIMIT {k}"
        fields = ", ".join(f'"{name}"' for name in stored.held.names)
        where, values = where_of(predicate)

        def find(connection: "psycopg.Connection[Any]") -> list[tuple[Any, ...]]:
            asked = [*values, Vector.of(wide)]
            if not values and not where:
                sql = f"SELECT {fields} FROM {version} {ordered}"
            elif self._leaves_few(connection, version, where, values, k):
                sql = f"WITH few AS MATERIALIZED (SELECT {fields} FROM {version}{where}) SELECT * FROM few {ordered}"
            else:
                sql = f"SELECT {fields} FROM {version}{where} {ordered}"
            if getattr(self._local, "effort", None) != (id(connection), effort):
                connection.execute(f"SET hnsw.ef_search = {effort}")
                self._local.effort = id(connection), effort
            return connection.execute(sql, asked, binary=True).fetchall()

        return table_of(self._do(find), stored)

    def _leaves_few(
        self, connection: "psycopg.Connection[Any]", version: str, where: str, values: Sequence[Any], k: int
    ) -> bool:
        """Whether ranking all that matches costs less than passing by what does not: about k n / m rows of n."""
        size = "SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = %s::regclass"
        items = connection.execute(size, [version]).fetchone()[0]  # type: ignore[index]
        most = max(1000, int((5 * k * items) ** 0.5))
        sql = f"SELECT count(*) FROM (SELECT FROM {version}{where} LIMIT {most + 1}) AS few"
        found: int = connection.execute(sql, values).fetchone()[0]  # type: ignore[index]
        return found <= most

    def rows(self, version: str, stored: Stored, ids: Sequence[str]) -> pa.Table:
        fields = ", ".join(f'"{name}"' for name in stored.held.names)
        sql = f"SELECT {fields} FROM {version} WHERE {ID} = ANY(%s)"
        return table_of(self._do(lambda one: one.execute(sql, [list(ids)], binary=True).fetchall()), stored)

    def count(self, version: str, predicate: Predicate | None) -> int:
        where, values = where_of(predicate)
        found: int = self._all(f"SELECT count(*) FROM {version}{where}", values)[0][0]
        return found

    def values(self, version: str, fields: Sequence[Column], predicate: Predicate | None) -> pa.Table:
        where, values = where_of(predicate)
        names = ", ".join(f'"{column.field}"' for column in fields)
        schema = pa.schema({column.field: column.held for column in fields})
        return columns_of(self._all(f"SELECT {names} FROM {version}{where}", values), schema)

    def counts(
        self, version: str, column: Column, predicate: Predicate | None, top: int, borders: Sequence[float]
    ) -> ColumnCounts:
        """See `Store`; counted by the database."""
        where, values = where_of(predicate)
        field, source = f'"{column.field}"', f"FROM {version}{where}"
        if column.kind in (Kind.NUMBER, Kind.MOMENT):
            return self._ranges(column, source, values, top, borders)
        if column.kind is Kind.LIST:
            missing = self._all(
                f"SELECT count(*) FILTER (WHERE coalesce(cardinality(array_remove({field}, NULL)), 0) = 0) {source}",
                values,
            )[0][0]
            entries = f"SELECT DISTINCT {ID}, unnest({field}) AS value {source}"
            sql = f"SELECT value, count(*) FROM ({entries}) AS entries WHERE value IS NOT NULL GROUP BY value"
            return tallied(missing, dict(self._all(sql, values)), column, top)
        counts: dict[Any, int] = dict(self._all(f"SELECT {field}, count(*) {source} GROUP BY 1", values))
        return tallied(counts.pop(None, 0), counts, column, top)

    def _ranges(
        self, column: Column, source: str, values: Sequence[Any], top: int, borders: Sequence[float]
    ) -> ColumnCounts:
        field, unit = f'"{column.field}"', unit_of(column)
        found = f"SELECT {field} AS value, {field} / {unit!r}::float8 AS number {source}"
        held = "number > '-Infinity' AND number < 'Infinity'"
        sql = (
            f"SELECT width_bucket(number, %s::float8[]) AS bucket, count(*), min(number), max(number) "
            f"FROM ({found}) AS all_rows WHERE {held} GROUP BY 1"
        )
        if not borders:
            sql = sql.replace("width_bucket(number, %s::float8[])", "0")
        buckets = self._all(sql, [list(borders), *values] if borders else values)
        counts = [0] * (len(borders) + 1)
        for bucket, count, _, _ in buckets:
            counts[bucket] = count
        total = self._all(f"SELECT count(*) {source}", values)[0][0]
        sql = f"SELECT value, count(*) FROM ({found}) AS all_rows WHERE {held} GROUP BY 1 LIMIT {_LABELLED + 1}"
        few: dict[Any, int] = dict(self._all(sql, values))
        ends = (min(row[2] for row in buckets), max(row[3] for row in buckets)) if buckets else None
        few_values = few if len(few) <= _LABELLED else None
        return ranged(total - sum(counts), counts, few_values, ends, column, top, borders)

    def write(self, version: str, rows: pa.Table) -> None:
        """See `Store`; all rows or none."""
        names = [f'"{name}"' for name in rows.column_names]
        changed = ", ".join(f"{name} = EXCLUDED.{name}" for name in names)

        def upsert(connection: "psycopg.Connection[Any]") -> None:
            with connection.transaction():
                connection.execute(f"CREATE TEMP TABLE changed (LIKE {version}) ON COMMIT DROP")
                copy_rows(connection, "changed", rows)
                both = ", ".join(names)
                taken = f"INSERT INTO {version} ({both}) SELECT {both} FROM changed"
                connection.execute(f"{taken} ON CONFLICT ({ID}) DO UPDATE SET {changed}")

        self._do(upsert)

    def remove(self, version: str, ids: Sequence[str]) -> int:
        return self._do(lambda one: one.execute(f"DELETE FROM {version} WHERE {ID} = ANY(%s)", [list(ids)]).rowcount)

    def close(self) -> None:
        """Let go of this thread's connection; the others end with their threads."""
        if (connection := getattr(self._local, "connection", None)) is not None:
            connection.close()
            self._local.connection = None
