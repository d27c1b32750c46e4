"""Loading embeddings into an engine: shard by shard, here, in several processes, or as tasks of a Ray cluster.

What was killed goes on: the version that it began stands in the engine under the checksum of what it is made of, and a
shard whose last item is there is whole (`Store.append`).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash

from smar.core.errors import InputError
from smar.core.files import StrPath, xxh3
from smar.data.voices import VOICES_FILE
from smar.runners.run import run
from smar.search.column_values import Columns, Kind
from smar.search.counts import column_borders
from smar.search.embeddings import (
    DEFAULT_FIELDS,
    PAYLOAD_FILE,
    QUERY_FOLDER,
    Embeddings,
    check_fingerprint,
)
from smar.search.engines import open_store, password_free
from smar.search.protocol import Mode
from smar.search.ranked import Vectors
from smar.search.rarity import CountedWords
from smar.search.remote_index import packed
from smar.search.sample import Best, Sample, sampled
from smar.search.store import About, Store
from smar.search.stored import ID, Stored

RECALL_TARGET = 0.98
_ASKED = 1_000  # ids that an engine is asked for at once
_DEADLINE = 600.0  # building an index takes its time


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was loaded; `recall` is recall@50 of the worst mode against exact search.

    `shards` were loaded now, `reused` by an earlier call that was killed; `rate` is the items a second that the engine
    took now, before it built its index.
    """

    engine: str
    version: str
    items: int
    recall: float
    effort: str
    shards: int
    reused: int
    rate: float
    seconds: float


@dataclass(frozen=True)
class ShardLoad:
    """A shard of the embeddings, the row it begins with, and whether the engine holds it."""

    file: str
    start: int
    rows: int
    held: bool = False

    def __str__(self) -> str:
        return f"{self.file} (rows {self.start:,} to {self.start + self.rows - 1:,} of {PAYLOAD_FILE})"


@dataclass(frozen=True)
class LoadTask:
    """Loads shards in a process of its own, which opens engine and embeddings once."""

    url: str
    version: str
    folder: Path
    again: bool

    def __repr__(self) -> str:
        return f"LoadTask({password_free(self.url)}, {self.version})"

    def __call__(self, part: ShardLoad) -> Best:
        """Load a shard; the best of its items."""
        return _load_shard(part, self.opened(), self.version, self.again)

    @lru_cache(maxsize=1)  # noqa: B019 - one engine and folder a process
    def opened(self) -> tuple[Store, Embeddings, dict[Mode, Vectors]]:
        """The engine, the embeddings, and the sample's queries."""
        source = Embeddings(self.folder)
        return open_store(self.url, _DEADLINE), source, sampled(source)


def load(
    embeddings: StrPath, url: str, recall: float = RECALL_TARGET, workers: int = 1, runner: str = "local"
) -> Loaded:
    """Load an embeddings folder into an engine beside what is there, then search it in its place.

    How hard the engine searches is chosen for each mode, so that `recall` holds for held-out queries. A load of
    the same embeddings that was killed goes on.

    ``load("embeddings", "postgresql://db/shop", workers=4).rate``

    Args:
        embeddings: folder of `smar embed`.
        url: of the engine.
        recall: recall@50 to tune to.
        workers: processes of this machine that load shards.
        runner: `local`, or `ray`: shards are loaded by the cluster's nodes, which all see the folder and the engine.

    Raises:
        InputError: the embeddings are damaged or of another model than their query encoder, or hold what the engine
            cannot; or another process loaded the same at once.
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
        if store.alone and (workers > 1 or runner != "local"):
            raise InputError(f"one process at a time opens {password_free(url)}: leave out --workers and --runner.")
        version, again = store.create(stored, _key(source, stored))
        parts = _parts(source, store, version, stored, again)
        begun = time.perf_counter()
        queries = Sample(sampled(source))
        tasks: list[Callable[[ShardLoad], Best]] = [LoadTask(url, version, folder, again)] * workers
        if workers == 1 and runner == "local":
            tasks = [partial(_load_shard, opened=(store, source, queries.wide), version=version, again=again)]
        for best in run(tasks, parts, len(parts), "loading", runner):
            queries.merge(best)
        rate = sum(part.rows for part in parts if not part.held) / (time.perf_counter() - begun)
        told, lowest = _published(store, version, stored, source, queries, recall)
    reused, seconds = sum(part.held for part in parts), time.perf_counter() - started
    return Loaded(store.name, version, manifest.items, lowest, told, len(parts) - reused, reused, rate, seconds)


def _published(
    store: Store, version: str, stored: Stored, source: Embeddings, queries: Sample, recall: float
) -> tuple[str, float]:
    """Build the engine's index over what was loaded, and search it from now on: the efforts, and the least recall."""
    manifest, folder = source.manifest, source.path.absolute()
    if (count := store.count(version, None)) != manifest.items:
        store.drop(version)
        said = f"{version} had {count} rows for {manifest.items} items: did two processes load it at once?"
        raise InputError(f"{said} It was dropped; load again.")
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
    return told, min(reached.values())


@contextmanager
def _store(url: str) -> Iterator[Store]:
    store = open_store(url, _DEADLINE)
    try:
        yield store
    finally:
        store.close()


def _key(source: Embeddings, stored: Stored) -> str:
    """What a version is made of: vectors, items, and how they are held."""
    files = [xxh3(source.path / name) for name in ("manifest.json", PAYLOAD_FILE)]
    return xxhash.xxh3_128_hexdigest(" ".join([*files, stored.text(), str(source.path.absolute())]).encode())


def _parts(source: Embeddings, store: Store, version: str, stored: Stored, again: bool) -> list[ShardLoad]:
    """The shards, and which of them the engine holds since an earlier load."""
    entries = [entry for entry in source.manifest.shards if entry.rows]
    starts = np.cumsum([0] + [entry.rows for entry in entries]).tolist()
    held: set[str] = set()
    last = source.payload[ID].take([stop - 1 for stop in starts[1:]]).to_pylist()
    if again:
        for at in range(0, len(last), _ASKED):
            held |= store.held(version, stored, last[at : at + _ASKED])
    return [
        ShardLoad(entry.file, start, entry.rows, name in held)
        for entry, start, name in zip(entries, starts, last, strict=False)
    ]


def _load_shard(
    part: ShardLoad, opened: tuple[Store, Embeddings, dict[Mode, Vectors]], version: str, again: bool
) -> Best:
    """The best of a shard's items for each mode and query; they are appended where they are not held."""
    store, source, queries = opened
    stored = Stored.of(source.payload.schema, source.manifest.dim)
    entry = next(own for own in source.manifest.shards if own.file == part.file)
    start, tables, sample = part.start, [], Sample(queries)
    for wide in source.shard(entry, part.start).joined():
        tables.append(_rows(source.payload.slice(start, len(wide)), stored, wide))
        start += len(wide)
        sample.see(tables[-1], wide)
    if not part.held:
        store.append(version, pa.concat_tables(tables), again)
    return sample.best


def _rows(part: pa.Table, stored: Stored, wide: Vectors) -> pa.Table:
    """Some items as the engine holds them."""
    places: list[str | None] = [None] * len(wide)
    if {"picture_offset", "picture_length"} <= set(part.column_names):
        each = (part[name].to_pylist() for name in ("picture_offset", "picture_length"))
        places = [packed(*place) for place in zip(*each, strict=True)]
    return stored.table(part.select(stored.schema.names), wide, places)


def _borders(payload: pa.Table, stored: Stored) -> dict[str, tuple[float, ...]]:
    """Inner borders of the ranges of number columns, whole days of dates."""
    columns, borders = Columns(payload), {}
    for column in stored.columns:
        if column.kind in (Kind.NUMBER, Kind.MOMENT):
            borders[column.name] = tuple(column_borders(columns, column.name).tolist())
    return borders
