"""Building a version of an embedded index: vectors, items, pictures and query encoder, whole or absent."""

import gc
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import pyarrow as pa
import pyarrow.parquet as pq

from smar.core.errors import InputError
from smar.core.files import StrPath, describe, link_or_copy
from smar.core.progress import track
from smar.data.dataset import SUGGESTIONS_FILE
from smar.search.embeddings import (
    DEFAULT_FIELDS,
    PICTURES_FILE,
    QUERY_FOLDER,
    VALID_FILE,
    Embeddings,
    check_fingerprint,
    sample_queries,
)
from smar.search.local.cutoff_fit import describe_cutoff, fit_cutoff
from smar.search.local.fitting import describe_fit, fit_hybrid
from smar.search.local.forming import write_lists
from smar.search.local.lists import EXACT_FILE, Lists
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.payload import open_payload, write_payload
from smar.search.local.ready import map_npy, read_here_and_there, write_npy
from smar.search.local.room import window
from smar.search.local.segment import Segment
from smar.search.local.tuning import tuned
from smar.search.local.updates import UpdateLog
from smar.search.local.vectors import EXACT_LIMIT, Probes, VectorStore
from smar.search.local.version_files import FAISS_FILE, IndexedFile, IndexManifest
from smar.search.local.versions import MADE_BY, building, locked, publish_version
from smar.search.local.word_index import WORDS_FOLDER, write_words
from smar.search.query import QueryEncoder
from smar.search.ranked import Vectors, in_blocks

RECALL_TARGET = 0.98
MOST_ITEMS = 2**31 - 1
"""Rows are numbered by 32 bits in postings and in the order of ids."""
_UNORDERED = "unordered.npy"


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """What was built; `recall` is recall@50 of the worst mode against exact search, None when exact.

    `hybrid` says how words and vectors are fused and what that gains or loses, `cutoff` what the cut-off is worth.
    """

    items: int
    dim: int
    index_type: str
    probes: Probes | None
    recall: float | None
    hybrid: str
    cutoff: str
    size: int
    version: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Source:
    """What a version is made of, wherever it comes from.

    `blocks` yields float32 [n, 2k] of ``[S_m ; S_t]`` in item order; `write_pictures` makes the pictures file that the
    payload's offsets point into; `valid` holds held-out queries, None when there are none, and `suggestions` is a file
    that may be there; `fields` are the columns whose words hybrid search reads, shortened by the stemmer of `language`
    where there is one.
    """

    fingerprint: str
    kind: str
    dim: int
    items: int
    blocks: Iterable[Vectors]
    payload: pa.Table
    query: Path
    suggestions: Path
    valid: pa.Table | None
    fields: tuple[str, ...]
    language: str | None
    write_pictures: Callable[[Path], None]


def build_index(
    embeddings: StrPath,
    out: StrPath,
    exact_limit: int = EXACT_LIMIT,
    recall: float = RECALL_TARGET,
    query: StrPath | None = None,
    memory: int | None = None,
) -> IndexSummary:
    """Add a version made of an embeddings folder to the index folder `out`, and serve it.

    Up to `exact_limit` items are searched exactly; above, lists are trained, and how much of them a query visits is
    chosen so that `recall` holds for held-out queries (the log's validation queries, or else beginnings of titles).
    `query` is a folder of `smar export` to take instead of the embeddings' own query encoder. With
    `memory` (bytes) the build's own memory stays below it: vectors and items are put in the order of their lists part
    by part, for each of which their files are read from the beginning. The index is the same.

    Raises:
        InputError: the embeddings are incomplete or damaged, their query encoder is of another model, there are no
            items, `memory` is too little for them, or `out` is something other than an index.
    """
    embeddings = Path(embeddings)
    out = Path(out)
    query = None if query is None else Path(query)
    started = time.perf_counter()
    if not 0 < recall <= 1:
        raise InputError(f"the recall target is {recall}; allowed: above 0, at most 1.")
    with building(out) as partial:
        source = _of_embeddings(embeddings, query or embeddings / QUERY_FOLDER, partial)
        with _no_collections():
            manifest = write_version(source, partial, exact_limit, recall, memory)
        with locked(out):
            version = publish_version(out, partial)
    size = sum(entry.size for entry in manifest.files.values())
    seconds = time.perf_counter() - started
    return IndexSummary(
        manifest.items,
        manifest.dim,
        manifest.index_type,
        manifest.probes,
        manifest.recall,
        describe_fit(manifest.hybrid),
        describe_cutoff(manifest.cutoff),
        size,
        version.name,
        seconds,
    )


@contextmanager
def _no_collections() -> Iterator[None]:
    """Python looks for circles whenever some objects more are alive: among lists of words by the million, in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _of_embeddings(path: Path, query: Path, spill: Path) -> Source:
    embeddings = Embeddings(path, spill)
    manifest = embeddings.manifest
    if manifest.items == 0:
        raise InputError(f"{path} holds no items, so there is nothing to index.")
    check_fingerprint(query, manifest.fingerprint, manifest.dim)

    def write_pictures(target: Path) -> None:
        if (path / PICTURES_FILE).exists():
            link_or_copy(path / PICTURES_FILE, target)  # never rewritten in place, so sharing the bytes is safe
        else:
            target.touch()

    return Source(
        fingerprint=manifest.fingerprint,
        kind=manifest.kind,
        dim=manifest.dim,
        items=manifest.items,
        blocks=_blocks(embeddings),
        payload=embeddings.payload,
        query=query,
        suggestions=path / SUGGESTIONS_FILE,
        valid=embeddings.valid(),
        fields=manifest.text_fields or DEFAULT_FIELDS,
        language=manifest.language,
        write_pictures=write_pictures,
    )


def _blocks(embeddings: Embeddings) -> Iterator[Vectors]:
    for shard in track(embeddings.shards(), "reading vectors", len(embeddings.manifest.shards)):
        yield from shard.joined()


def write_version(
    source: Source, partial: Path, exact_limit: int, recall: float, memory: int | None = None
) -> IndexManifest:
    """Write all files of a version into the empty folder `partial`, its manifest last."""
    if source.items > MOST_ITEMS:
        raise InputError(
            f"{source.items:,} items are more than an embedded index can number ({MOST_ITEMS:,}). "
            "Load an engine by --to."
        )
    exact, order = source.items <= exact_limit, None
    fit = window(memory, source.items, 2 * source.dim, exact)
    encoder = QueryEncoder.load(source.query)
    write_npy(partial / _UNORDERED, (source.items, 2 * source.dim), source.blocks)
    pa.default_memory_pool().release_unused()  # of the shards
    vectors = map_npy(partial / _UNORDERED, MADE_BY)
    (partial / _UNORDERED).unlink()  # its bytes go with the mapping
    probes, reached, kind = None, None, "Flat"
    if exact:
        index = _write_flat(vectors, partial / FAISS_FILE)
    else:
        order = write_lists(vectors, partial, fit)
        vectors = map_npy(partial / EXACT_FILE, MADE_BY)
    source.write_pictures(partial / PICTURES_FILE)
    write_payload(source.payload, partial, order, fit)
    catalogue = open_payload(partial, source.items, MADE_BY)
    if not exact:
        index = Lists(partial, source.items, 2 * source.dim, MADE_BY)
        kind = f"IVF{index.count},PQ{source.dim // 2}x4fs"
        sample = encoder.encode(sample_queries(source.valid, source.payload))
        probes, reached = tuned(vectors, index, sample, recall)
    read_here_and_there(vectors)
    words = write_words(catalogue.table, source.fields, partial / WORDS_FOLDER, source.language)
    served = Segment(VectorStore(index, vectors, probes), catalogue, words=words)
    manifest = IndexManifest(
        fingerprint=source.fingerprint,
        kind=source.kind,
        dim=source.dim,
        items=source.items,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        index_type=kind,
        probes=probes,
        recall=reached,
        recall_target=None if exact else recall,
        hybrid=fit_hybrid(served, words, encoder, source.valid),
        files={},
    )
    cutoff = fit_cutoff(EmbeddedIndex(partial, manifest, [served], encoder), source.valid)
    shutil.copytree(source.query, partial / QUERY_FOLDER)
    if source.suggestions.exists():
        link_or_copy(source.suggestions, partial / SUGGESTIONS_FILE)
    if source.valid is not None:
        pq.write_table(source.valid, partial / VALID_FILE)
    manifest = manifest.model_copy(update={"cutoff": cutoff, "files": describe(partial, IndexedFile.of)})
    manifest.write(partial)
    UpdateLog(partial).create()
    return manifest


def _write_flat(vectors: Vectors, path: Path) -> Any:
    index = faiss.IndexFlatIP(vectors.shape[1])
    for block in in_blocks(vectors):
        index.add(block)
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as error:  # it tells a line of its own source
        raise OSError(f"{path} could not be written; is the disk full?") from error
    return index
