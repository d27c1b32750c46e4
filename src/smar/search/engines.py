"""Engines behind a URL: which there are, opening one, and loading embeddings into it.

postgresql://user@host/db?table=shop    PostgreSQL with pgvector
milvus://host:19530/shop                Milvus; milvus:///path/shop.db/shop is a file of milvus-lite
lance:///path/shop, lance+s3://bucket/shop    a Lance dataset
"""

import importlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.core.progress import track
from smar.data.voices import VOICES_FILE
from smar.search.column_values import Columns, Kind
from smar.search.counts import round_borders
from smar.search.embeddings import DEFAULT_FIELDS, QUERY_FOLDER, Embeddings, check_fingerprint, sample_queries
from smar.search.protocol import Mode, widen
from smar.search.query import QueryEncoder
from smar.search.ranked import Vectors
from smar.search.rarity import CountedWords
from smar.search.remote_index import About, RemoteIndex, Store, packed, unit_of
from smar.search.stored import Stored

ENGINES = {
    "postgresql": ("postgres", "PostgresStore", "postgres"),
    "postgres": ("postgres", "PostgresStore", "postgres"),
    "milvus": ("milvus", "MilvusStore", "milvus"),
    "lance": ("lance", "LanceStore", "lance"),
    "lance+s3": ("lance", "LanceStore", "lance"),
}
"""Scheme of a URL -> module, class, and the extra of `smar` that brings its driver."""
DEADLINE = 2.0
"""Seconds that an engine has for one answer."""
RECALL_TARGET = 0.98
_MODES = (Mode.ADAPTIVE, Mode.ROUTE, Mode.TEXT, Mode.MULTIMODAL)
_NEAREST = 50  # recall is that of so many
_SAMPLE = 60  # queries that efforts are chosen with
_CHECKED = 8
_LOOK = 1.0  # seconds for which a version is believed to be the published one


def is_url(text: str) -> bool:
    """Whether this names an engine and not a folder: has one of the schemes, or one that looks like it."""
    return "://" in text


def open_store(url: str, deadline: float = DEADLINE) -> Store:
    """Connect to an engine.

    Raises:
        InputError: the scheme is unknown, the URL is wrong, or the engine's driver is not installed.
    """
    scheme = url.partition("://")[0]
    if scheme not in ENGINES:
        known = ", ".join(f"{name}://" for name in ENGINES)
        raise InputError(f"{scheme}:// is no engine that smar knows; there are {known}, or a folder.")
    module, kind, extra = ENGINES[scheme]
    try:
        found = getattr(importlib.import_module(f"smar.search.{module}"), kind)
        store: Store = found(url, deadline)
    except ImportError as error:
        raise InputError(f"{scheme}:// needs {error.name}: pip install 'smar[{extra}]'") from None
    return store


class Engine:
    """An engine that is open for searching; safe to share between threads.

    ``open_engine("postgresql://host/shop").index.count()``
    """

    def __init__(self, store: Store, folder: Path | None) -> None:
        self.store, self._folder = store, folder
        self._held: RemoteIndex | None = None
        self._looked = 0.0
        self._looking = threading.Lock()

    @property
    def index(self) -> RemoteIndex:
        """The version that is searched now; another one is noticed within a second.

        Raises:
            InputError: nothing is published there.
            EngineDown: the engine does not answer.
        """
        with self._looking:
            if self._held is None or time.monotonic() - self._looked > _LOOK:
                self._held = self._newest(self._held)
                self._looked = time.monotonic()
            return self._held

    def _newest(self, held: RemoteIndex | None) -> RemoteIndex:
        published = self.store.published()
        if published is None:
            raise InputError(f"{self.store.name} holds no index there; run `smar index EMBEDDINGS --to URL`.")
        version, text = published
        if held is not None and held.version == version:
            return held
        try:
            about = About.model_validate_json(text)
        except ValueError as error:
            raise InputError(f"what {self.store.name} tells of {version} cannot be read: {error}.") from None
        return RemoteIndex(self.store, version, about, self._folder or Path(about.folder))

    def close(self) -> None:
        """Let go of connections and files."""
        self.store.close()


def open_engine(url: str, folder: StrPath | None = None, deadline: float = DEADLINE) -> Engine:
    """Open what `smar index --to URL` loaded.

    `folder` holds query encoder and pictures, where that is not the folder it was loaded from; `deadline` is in
    seconds.

    Raises:
        InputError: as `open_store`.
    """
    return Engine(open_store(url, deadline), None if folder is None else Path(folder))


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded; `recall` is recall@50 of the worst mode against exact search."""

    engine: str
    version: str
    items: int
    recall: float
    effort: str
    seconds: float


def load(embeddings: StrPath, url: str, recall: float = RECALL_TARGET) -> Loaded:
    """Load an embeddings folder into an engine beside what is there, then search it in its place.

    How hard the engine searches is chosen for each mode, so that `recall` holds for held-out queries.

    Raises:
        InputError: the embeddings are damaged or of another model than their query encoder, or hold what the engine
            cannot.
        EngineDown: the engine does not answer.
    """
    if not 0 < recall <= 1:
        raise InputError(f"the recall target is {recall}; allowed: above 0, at most 1.")
    started = time.perf_counter()
    source = Embeddings(embeddings)
    manifest, folder = source.manifest, source.path.absolute()
    if manifest.items == 0:
        raise InputError(f"{source.path} holds no items, so there is nothing to load.")
    check_fingerprint(folder / QUERY_FOLDER, manifest.fingerprint, manifest.dim)
    stored = Stored.of(source.payload.schema, manifest.dim)
    with _store(url) as store:
        version = store.create(stored)
        queries = _Sample.of(source)
        for rows, wide in _rows(source, stored):
            store.append(version, rows)
            queries.see(rows, wide)
        efforts = store.finish(version, stored)
        effort, reached = queries.tuned(store, version, stored, efforts, recall)
        if (folder / QUERY_FOLDER / VOICES_FILE).exists():
            CountedWords.of(source.payload, manifest.text_fields or DEFAULT_FIELDS, manifest.language).write(folder)
        about = About(
            fingerprint=manifest.fingerprint,
            kind=manifest.kind,
            dim=manifest.dim,
            columns=stored.text(),
            folder=str(folder),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            effort=effort,
            recall=reached,
            borders=_borders(source.payload, stored),
        )
        store.publish(version, about.model_dump_json())
    told = ", ".join(f"{mode} {own}" for mode, own in effort.items()) if len(efforts) > 1 else "exact"
    seconds = time.perf_counter() - started
    return Loaded(store.name, version, manifest.items, min(reached.values()), told, seconds)


@contextmanager
def _store(url: str) -> Iterator[Store]:
    store = open_store(url, deadline=600)  # building an index takes its time
    try:
        yield store
    finally:
        store.close()


def _rows(source: Embeddings, stored: Stored) -> Iterator[tuple[pa.Table, Vectors]]:
    """The items as the engine holds them, and their wide vectors, some thousand at a time."""
    start, payload = 0, source.payload
    located = {"picture_offset", "picture_length"} <= set(payload.column_names)
    for shard in track(source.shards(), "loading", len(source.manifest.shards)):
        for wide in shard.joined():
            part = payload.slice(start, len(wide))
            start += len(wide)
            places: list[str | None] = [None] * len(wide)
            if located:
                each = (part[name].to_pylist() for name in ("picture_offset", "picture_length"))
                places = [packed(*place) for place in zip(*each, strict=True)]
            yield stored.table(part.select(stored.schema.names), wide, places), wide


def _borders(payload: pa.Table, stored: Stored) -> dict[str, tuple[float, ...]]:
    """Inner borders of the ranges of number columns, whole days of dates."""
    columns, borders = Columns(payload), {}
    for column in stored.columns:
        if column.kind in (Kind.NUMBER, Kind.MOMENT):
            unit = unit_of(column) if column.kind is Kind.MOMENT else 10.0 ** columns.scale(column.name)
            numbers = columns.numbers(column.name)[columns.present(column.name)] / unit
            found = round_borders(numbers[np.isfinite(numbers)], whole=column.kind is Kind.MOMENT)
            borders[column.name] = tuple(found.tolist())
    return borders


class _Sample:
    """Held-out queries and what exact search finds for them, mode by mode, while the items pass by."""

    def __init__(self, wide: dict[Mode, Vectors]) -> None:
        self._wide = wide
        self._best = {mode: [(np.empty(0, np.float32), np.empty(0, object))] * len(own) for mode, own in wide.items()}

    @classmethod
    def of(cls, source: Embeddings) -> "_Sample":
        """Validation queries, or beginnings of titles."""
        encoder = QueryEncoder.load(source.path / QUERY_FOLDER)
        vectors = encoder.encode(sample_queries(source.valid(), source.payload)[:_SAMPLE])
        return cls({mode: widen(vectors, mode) for mode in _MODES})

    def see(self, rows: pa.Table, wide: Vectors) -> None:
        """Some more items."""
        ids = np.array(rows["item_id"].to_pylist(), object)
        for mode, queries in self._wide.items():
            scores = queries @ wide.T
            for at, (before, own) in enumerate(self._best[mode]):
                score, names = np.concatenate([before, scores[at]]), np.concatenate([own, ids])
                best = np.argsort(-score, kind="stable")[:_NEAREST]
                self._best[mode][at] = score[best], names[best]

    def tuned(
        self, store: Store, version: str, stored: Stored, efforts: tuple[int, ...], target: float
    ) -> tuple[dict[Mode, int], dict[Mode, float]]:
        """The least effort of each mode that reaches the target, or else the greatest; and the recall with it."""
        chosen, reached = {}, {}
        if len(efforts) == 1:  # exact: some queries are enough to see that it is
            self._wide = {mode: own[:_CHECKED] for mode, own in self._wide.items()}
        for mode in _MODES:
            for effort in efforts:
                chosen[mode], reached[mode] = effort, self._recall(store, version, stored, mode, effort)
                if reached[mode] >= target:
                    break
        return chosen, reached

    def _recall(self, store: Store, version: str, stored: Stored, mode: Mode, effort: int) -> float:
        shares = []
        for wide, (_, names) in zip(self._wide[mode], self._best[mode], strict=False):
            found = store.nearest(version, stored, wide, len(names), None, effort)
            shares.append(len(set(found["item_id"].to_pylist()) & set(names)) / len(names))
        return float(np.mean(shares))


def password_free(url: str) -> str:
    """A URL as it may be told: without what stands between a user's name and the host.

    >>> password_free("postgresql://shop:secret@db/items")
    'postgresql://shop@db/items'
    """
    head, at, tail = url.rpartition("@")
    scheme, mark, user = head.partition("://")
    return f"{scheme}{mark}{user.partition(':')[0]}{at}{tail}" if at else url


__all__ = ["DEADLINE", "ENGINES", "Engine", "Loaded", "is_url", "load", "open_engine", "open_store", "password_free"]
