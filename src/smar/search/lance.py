"""A Lance dataset: a folder or a bucket, searched in this process. A version is a dataset ``NAME_v0001.lance``.

``NAME.json`` beside it says which version is searched, and is replaced at once. `About` is metadata of the dataset's
table. Up to `_EXACT` items are scanned exactly; above, lists of vectors are visited and candidates read exactly.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar
from urllib.parse import urlsplit

import lance
import numpy as np
import pyarrow as pa
from pyarrow import fs

from smar.core.errors import InputError
from smar.search.predicates import Among, Compare, Constant, Lists, Predicate, Present, printed
from smar.search.protocol import EngineDown
from smar.search.ranked import Vectors
from smar.search.store import Store
from smar.search.stored import ID, VECTOR, Column, Stored

T = TypeVar("T")
_EXACT = 100_000
_REFINE = 10  # candidates for each row that are scored exactly
_PROBES = (8, 16, 32, 64, 128, 256)
_ABOUT, _KEY = "smar", "smar-loading"


class LanceStore(Store):
    """Datasets of one name; every search reads the newest state of its version."""

    name: ClassVar[str] = "lance"

    def __init__(self, url: str, deadline: float) -> None:
        scheme, _, rest = url.partition("://")
        parts = urlsplit(f"s3://{rest}" if scheme == "lance+s3" else f"file://{rest}")
        if not re.fullmatch(r".*[\w-]", parts.path, re.ASCII):
            raise InputError(f"{url}: give a name at its end, such as lance:///srv/shop or lance+s3://bucket/shop.")
        self._root = f"s3://{parts.netloc}{parts.path}" if scheme == "lance+s3" else f"/{parts.path.lstrip('/')}"
        self._files, self._path = fs.FileSystem.from_uri(self._root if scheme == "lance+s3" else f"file://{self._root}")
        self._open: dict[str, Any] = {}

    def _do(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except (OSError, RuntimeError) as error:
            raise EngineDown(f"lance cannot read or write {self._root}: {str(error)[:300]}") from None
        except (ValueError, pa.ArrowInvalid) as error:
            raise InputError(f"lance refuses this: {str(error)[:300]}") from None

    def _dataset(self, version: str) -> Any:
        """The newest state of a version."""

        def newest() -> Any:
            if version not in self._open:
                self._open[version] = lance.dataset(f"{self._root}_{version}.lance")
            dataset = self._open[version]
            dataset.checkout_latest()
            return dataset

        return self._do(newest)

    def _versions(self) -> dict[str, str | None]:
        """The version that is searched, and the one before."""
        path = f"{self._path}.json"
        if self._files.get_file_info(path).type is fs.FileType.NotFound:
            return {"current": None, "previous": None}
        found: dict[str, str | None] = json.loads(self._files.open_input_file(path).read())
        return found

    def _show(self, current: str, previous: str | None) -> None:
        partial, text = f"{self._path}.json.partial", json.dumps({"current": current, "previous": previous})
        with self._files.open_output_stream(partial) as out:
            out.write(text.encode())
        self._files.move(partial, f"{self._path}.json")

    def published(self) -> tuple[str, str] | None:
        if (version := self._do(self._versions)["current"]) is None:
            return None
        return version, self._dataset(version).schema.metadata[_ABOUT.encode()].decode()

    def _held(self) -> list[str]:
        folder, _, name = self._path.rpartition("/")
        found = self._files.get_file_info(fs.FileSelector(folder, allow_not_found=True))
        names = [re.fullmatch(rf"{re.escape(name)}_(v\d+)\.lance", info.base_name) for info in found]
        return sorted(match.group(1) for match in names if match)

    def create(self, stored: Stored, key: str) -> tuple[str, bool]:
        for held in self._held():
            if (self._dataset(held).schema.metadata or {}).get(_KEY.encode()) == key.encode():
                return held, True
        self._files.create_dir(self._path.rpartition("/")[0], recursive=True)
        version = f"v{max((int(name[1:]) for name in self._held()), default=0) + 1:04d}"
        uri = f"{self._root}_{version}.lance"
        schema = stored.held.with_metadata({_KEY: key})
        self._do(lambda: lance.write_dataset(schema.empty_table(), uri, schema=schema))
        return version, False

    def append(self, version: str, rows: pa.Table, again: bool) -> None:
        """See `Store`; all rows or none."""
        uri = f"{self._root}_{version}.lance"
        self._do(lambda: lance.write_dataset(rows, uri, mode="append"))

    def finish(self, version: str, stored: Stored) -> tuple[int, ...]:
        dataset = self._dataset(version)
        self._do(lambda: dataset.optimize.compact_files())
        self._do(lambda: dataset.create_scalar_index(ID, "BTREE"))
        if (items := dataset.count_rows()) <= _EXACT:
            return (0,)
        lists = int(items**0.5)
        parts = max(part for part in (8, 16, 32, 64) if 2 * stored.dim % part == 0)
        self._do(
            lambda: dataset.create_index(
                VECTOR, "IVF_PQ", metric="dot", num_partitions=lists, num_sub_vectors=parts, replace=True
            )
        )
        return _PROBES

    def publish(self, version: str, about: str) -> None:
        dataset, before = self._dataset(version), self._versions()["current"]
        self._do(lambda: dataset.update_schema_metadata({_ABOUT: about, _KEY: ""}))
        self._show(version, before)
        for name in set(self._held()) - {version, before}:
            self.drop(name)

    def drop(self, version: str) -> None:
        self._open.pop(version, None)
        self._files.delete_dir(f"{self._path}_{version}.lance")

    def rollback(self) -> str:
        held = self._versions()
        if (before := held["previous"]) is None:
            raise InputError(f"{self._root} has no version before the one that is searched.")
        self._show(before, held["current"])
        return before

    def nearest(
        self, version: str, stored: Stored, wide: Vectors, k: int, predicate: Predicate | None, effort: int
    ) -> pa.Table:
        if predicate == Constant(False):
            return stored.held.empty_table()
        nearest = {"column": VECTOR, "q": np.ascontiguousarray(wide, np.float32), "k": k, "metric": "dot"}
        nearest |= {"nprobes": effort, "refine_factor": _REFINE} if effort else {"use_index": False}
        dataset, names = self._dataset(version), [*stored.held.names, "_distance"]
        found: pa.Table = self._do(
            lambda: dataset.to_table(names, filter=_where(predicate), prefilter=True, nearest=nearest)
        )
        return found.select(stored.held.names).cast(stored.held)

    def rows(self, version: str, stored: Stored, ids: Sequence[str]) -> pa.Table:
        dataset = self._dataset(version)
        return self._do(lambda: dataset.to_table(stored.held.names, filter=_among(ids)).cast(stored.held))

    def count(self, version: str, predicate: Predicate | None) -> int:
        dataset = self._dataset(version)
        return int(self._do(lambda: dataset.count_rows(_where(predicate))))

    def values(self, version: str, fields: Sequence[Column], predicate: Predicate | None) -> pa.Table:
        dataset, names = self._dataset(version), [column.field for column in fields]
        found: pa.Table = self._do(lambda: dataset.to_table(names, filter=_where(predicate)))
        return found

    def write(self, version: str, rows: pa.Table) -> None:
        """See `Store`; all rows or none."""
        merge = self._dataset(version).merge_insert(ID).when_matched_update_all().when_not_matched_insert_all()
        self._do(lambda: merge.execute(rows))

    def remove(self, version: str, ids: Sequence[str]) -> int:
        dataset = self._dataset(version)
        before = dataset.count_rows()
        self._do(lambda: dataset.delete(_among(ids)))
        return int(before - dataset.count_rows())

    def close(self) -> None:
        """Forget the datasets."""
        self._open.clear()


def _literal(value: object) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value).lower()


def _list(values: Sequence[object]) -> str:
    return ", ".join(map(_literal, values))


def _among(ids: Sequence[str]) -> str:
    return f"{ID} IN ({_list(ids)})" if ids else "false"


def _where(predicate: Predicate | None) -> str | None:
    return None if predicate is None else printed(predicate, _Dialect())


class _Dialect:
    """The SQL of DataFusion."""

    def compare(self, term: Compare) -> str:
        return f"`{term.column.field}` {term.op} {_literal(term.value)}"

    def among(self, term: Among) -> str:
        return f"`{term.column.field}` {'NOT ' if term.none else ''}IN ({_list(term.values)})"

    def lists(self, term: Lists) -> str:
        held = f"array_has_{'all' if term.every else 'any'}(`{term.column.field}`, [{_list(term.values)}])"
        return f"(`{term.column.field}` IS NOT NULL AND NOT {held})" if term.none else held

    def present(self, term: Present) -> str:
        return f"`{term.column.field}` IS {'NOT ' if term.there else ''}NULL"

    def constant(self, term: Constant) -> str:
        return "true" if term.value else "false"
