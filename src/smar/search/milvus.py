"""Milvus, or milvus-lite in this process: a version is a collection, and the alias ``NAME`` says which is searched.

The `About` of a version is a property of its collection. Collections are asked with strong consistency, so that a
change is found by the next search. A collection is searched only once every row of it is indexed: "loaded" alone would
leave out, without a word, those that are not.
"""

import json
import re
import time
from collections.abc import Callable, Sequence
from operator import methodcaller
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import grpc
import pyarrow as pa
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from smar.core.errors import InputError
from smar.search.predicates import Among, Compare, Constant, Lists, Predicate, Present, printed
from smar.search.protocol import EngineDown
from smar.search.ranked import Vectors
from smar.search.store import Store
from smar.search.stored import ID, VECTOR, Column, Stored

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}", re.ASCII)
_EXACT = 100_000  # rows up to which all of them are compared: a graph loses a fourth of the best under a filter
_EFFORTS = (64, 128, 256, 512, 1024)
_MOST = 32_768  # that a graph may be searched with
_LONGEST = 65_535  # bytes of a text
_ENTRIES = 1_000  # of a list
_TOGETHER = 1_000  # rows sent at once: a message of gRPC is bounded
_ABOUT, _KEY = "smar.about", "smar.loading"
_CONNECTION_CODES = frozenset({1, 2})  # of pymilvus: cannot connect, unavailable
_TYPES = {
    pa.string(): DataType.VARCHAR,
    pa.int64(): DataType.INT64,
    pa.float64(): DataType.DOUBLE,
    pa.float32(): DataType.FLOAT,
    pa.bool_(): DataType.BOOL,
}


class MilvusStore(Store):
    """``milvus://user:password@host:19530/NAME``, or ``milvus:///path/FILE.db/NAME`` for milvus-lite."""

    name: ClassVar[str] = "milvus"

    def __init__(self, url: str, deadline: float) -> None:
        parts = urlsplit(url)
        path, _, self._alias = parts.path.rpartition("/")
        if not _NAME.fullmatch(self._alias):
            raise InputError(
                f"the collection {self._alias!r} is no name of letters, digits and _; end the URL with one."
            )
        self._deadline, self.alone = deadline, not parts.hostname
        self._where = path if not parts.hostname else f"{parts.hostname}:{parts.port or 19530}"
        self._open: MilvusClient | None = None
        self._arguments: dict[str, Any] = {"uri": path}
        if parts.hostname:
            token = f"{parts.username}:{parts.password}" if parts.username else ""
            self._arguments = {"uri": f"http://{self._where}", "token": token}
        elif not path.endswith(".db"):
            raise InputError("a file of milvus-lite ends with .db, such as milvus:///srv/shop.db/shop.")

    @property
    def _client(self) -> MilvusClient:
        if self._open is None:
            if not self._arguments["uri"].startswith("http"):
                Path(self._arguments["uri"]).parent.mkdir(parents=True, exist_ok=True)
            self._open = MilvusClient(**self._arguments, timeout=self._deadline)
        return self._open

    def _do(self, work: Callable[[MilvusClient], T]) -> T:
        try:
            return work(self._client)
        except (grpc.RpcError, ConnectionError) as error:
            self.close()
            raise EngineDown(f"milvus at {self._where} does not answer: {str(error)[:300]}") from None
        except MilvusException as error:
            if error.code in _CONNECTION_CODES or "deadline" in str(error).lower():
                self.close()
                raise EngineDown(f"milvus at {self._where} does not answer: {str(error)[:300]}") from None
            raise InputError(f"milvus refuses this: {str(error)[:300]}") from None

    def _versions(self) -> list[str]:
        names = self._do(lambda client: client.list_collections())
        return sorted(name for name in names if re.fullmatch(rf"{self._alias}_v\d+", name))

    def _current(self) -> str | None:
        """The collection that the alias names."""
        for version in self._versions():
            told = self._do(methodcaller("list_aliases", collection_name=version))
            if self._alias in told["aliases"]:
                return version
        return None

    def published(self) -> tuple[str, str] | None:
        if (version := self._current()) is None:
            return None
        about = self._do(lambda client: client.describe_collection(version))["properties"][_ABOUT]
        self._do(lambda client: client.load_collection(version))
        return version, about

    def create(self, stored: Stored, key: str) -> tuple[str, bool]:
        for version in self._versions():
            if self._do(methodcaller("describe_collection", version))["properties"].get(_KEY) == key:
                return version, True
        numbers = [int(name.rpartition("_v")[2]) for name in self._versions()]
        version = f"{self._alias}_v{max(numbers, default=0) + 1:04d}"
        schema = MilvusClient.create_schema(enable_dynamic_field=False)
        for field in stored.held:
            schema.add_field(field.name, **_field(field))
        self._do(lambda client: client.create_collection(version, schema=schema, properties={_KEY: key}))
        return version, False

    def append(self, version: str, rows: pa.Table, again: bool) -> None:
        """See `Store`; a shard of several parts may be there in part."""
        for part in _parts(rows):
            self._do(methodcaller("upsert" if again else "insert", version, part))

    def held(self, version: str, stored: Stored, ids: Sequence[str]) -> set[str]:
        """See `Store`; a collection is asked when it is loaded, and loaded when it has an index."""
        index = MilvusClient.prepare_index_params()
        index.add_index(VECTOR, metric_type="IP", index_type="FLAT")
        self._do(lambda client: client.flush(version))
        if not self._do(lambda client: client.list_indexes(version)):
            self._do(lambda client: client.create_index(version, index))
        self._do(lambda client: client.load_collection(version))
        found = super().held(version, stored, ids)
        self._do(lambda client: client.release_collection(version))
        for name in self._do(lambda client: client.list_indexes(version)):
            self._do(methodcaller("drop_index", version, name))
        return found

    def drop(self, version: str) -> None:
        self._do(methodcaller("drop_collection", version))

    def finish(self, version: str, stored: Stored) -> tuple[int, ...]:
        index = MilvusClient.prepare_index_params()
        self._do(lambda client: client.flush(version))
        exact = int(self._do(methodcaller("get_collection_stats", version))["row_count"]) <= _EXACT
        graph = {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}}
        index.add_index(VECTOR, metric_type="IP", **({"index_type": "FLAT"} if exact else graph))
        self._do(lambda client: client.create_index(version, index))
        self._await_indexed(version)
        self._do(lambda client: client.load_collection(version))
        return (0,) if exact else _EFFORTS

    def _await_indexed(self, version: str) -> None:
        end = time.monotonic() + self._deadline
        while time.monotonic() < end:
            told = self._do(lambda client: client.describe_index(version, VECTOR)) or {}
            if int(told.get("pending_index_rows", 0)) == 0:
                return
            time.sleep(0.2)
        raise EngineDown(f"milvus has not indexed all rows of {version} within {self._deadline:g} s")

    def publish(self, version: str, about: str) -> None:
        before = self._current()
        told = {_ABOUT: about, _KEY: "", "smar.before": before or ""}
        self._do(lambda client: client.alter_collection_properties(version, told))
        self._show(version, before)
        for name in set(self._versions()) - {version, before}:
            self.drop(name)

    def _show(self, version: str, before: str | None) -> None:
        if before is None:
            self._do(lambda client: client.create_alias(version, self._alias))
        else:
            self._do(lambda client: client.alter_alias(version, self._alias))

    def rollback(self) -> str:
        current = self._current()
        others = [name for name in self._versions() if name != current]
        if current is None or not others:
            raise InputError(f"{self._alias} has no version before the one that is searched.")
        self._show(others[-1], current)
        return others[-1]

    def nearest(
        self, version: str, stored: Stored, wide: Vectors, k: int, predicate: Predicate | None, effort: int
    ) -> pa.Table:
        if predicate == Constant(False):
            return stored.held.empty_table()
        if effort and predicate is not None:  # a graph that has to pass by most rows must go further
            share = self.count(version, predicate) / max(self.count(version, None), 1)
            effort = min(int(max(effort, k) / max(share, 1e-9)), _MOST)
        found = self._do(
            lambda client: client.search(
                version,
                [wide.tolist()],
                filter=_where(predicate),
                limit=k,
                output_fields=stored.held.names,
                search_params={"metric_type": "IP", "params": {"ef": max(effort, k)} if effort else {}},
                consistency_level="Strong",
            )
        )
        return _table([{ID: hit[ID], **hit["entity"]} for hit in found[0]], stored.held)

    def rows(self, version: str, stored: Stored, ids: Sequence[str]) -> pa.Table:
        return self._query(version, f"{ID} in {_literal(list(ids))}", stored.held)

    def count(self, version: str, predicate: Predicate | None) -> int:
        found = self._do(
            lambda client: client.query(
                version, filter=_where(predicate), output_fields=["count(*)"], consistency_level="Strong"
            )
        )
        return int(found[0]["count(*)"])

    def values(self, version: str, fields: Sequence[Column], predicate: Predicate | None) -> pa.Table:
        schema = pa.schema({column.field: column.held for column in fields})
        return self._query(version, _where(predicate), schema)

    def _query(self, version: str, where: str, schema: pa.Schema) -> pa.Table:
        """All rows, page by page."""

        def pages(client: MilvusClient) -> list[dict[str, Any]]:
            names = list(dict.fromkeys([ID, *schema.names]))
            asked = {"filter": where, "output_fields": names, "batch_size": _TOGETHER}
            pages = client.query_iterator(version, consistency_level="Strong", **asked)
            found: list[dict[str, Any]] = []
            while page := pages.next():
                found += page
            pages.close()
            return found

        return _table(self._do(pages), schema)

    def write(self, version: str, rows: pa.Table) -> None:
        """See `Store`; each thousand of rows as a whole."""
        for part in _parts(rows):
            self._do(methodcaller("upsert", version, part))

    def remove(self, version: str, ids: Sequence[str]) -> int:
        there = self._query(version, f"{ID} in {_literal(list(ids))}", pa.schema({ID: pa.string()}))[ID].to_pylist()
        if there:
            self._do(lambda client: client.delete(version, ids=there))
        return len(there)

    def close(self) -> None:
        """Let go of the connection, or of the file."""
        if self._open is not None:
            self._open.close()
            self._open = None


def _field(field: pa.Field) -> dict[str, Any]:
    if pa.types.is_fixed_size_list(field.type):
        return {"datatype": DataType.FLOAT_VECTOR, "dim": field.type.list_size}
    if pa.types.is_list(field.type):
        kind = {"element_type": _TYPES[field.type.value_type], "max_capacity": _ENTRIES, "nullable": True}
        texts = {"max_length": _LONGEST} if field.type.value_type == pa.string() else {}
        return {"datatype": DataType.ARRAY, **kind, **texts}
    key = {"is_primary": True} if field.name == ID else {"nullable": True}
    return {"datatype": _TYPES[field.type], **key, **({"max_length": _LONGEST} if field.type == pa.string() else {})}


def _parts(rows: pa.Table) -> list[list[dict[str, Any]]]:
    """The rows as Milvus is sent them, some at a time."""
    for field in rows.schema:
        if pa.types.is_list(field.type) and rows[field.name].combine_chunks().flatten().null_count:
            raise InputError(f"column {field.name} has lists with missing entries, which Milvus cannot hold.")
    return [part.to_pylist() for part in (rows.slice(start, _TOGETHER) for start in range(0, len(rows), _TOGETHER))]


def _table(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    columns = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
    return pa.table(columns, schema)


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _where(predicate: Predicate | None) -> str:
    return "" if predicate is None else printed(predicate, _Dialect())


class _Dialect:
    """Milvus' expressions; what is missing has to be named, as ``not in`` would let it pass."""

    def compare(self, term: Compare) -> str:
        return f"{term.column.field} {term.op} {_literal(term.value)}"

    def among(self, term: Among) -> str:
        name = term.column.field
        values = _literal(list(term.values))
        return f"({name} is not null and {name} not in {values})" if term.none else f"{name} in {values}"

    def lists(self, term: Lists) -> str:
        name = term.column.field
        held = f"ARRAY_CONTAINS_{'ALL' if term.every else 'ANY'}({name}, {_literal(list(term.values))})"
        return f"({name} is not null and not {held})" if term.none else held

    def present(self, term: Present) -> str:
        return f"{term.column.field} is {'not ' if term.there else ''}null"

    def constant(self, term: Constant) -> str:
        return f'{ID} {"!=" if term.value else "=="} ""'
