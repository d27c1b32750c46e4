"""Building an embedded index: vectors, items, pictures and query encoder in one folder, whole or absent."""

import shutil
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from smar.errors import InputError
from smar.files import describe, link_or_copy, publish
from smar.index.base import Mode, widen
from smar.index.embedded import (
    EXACT_FILE,
    FAISS_FILE,
    MADE_BY,
    IndexManifest,
    check_fingerprint,
)
from smar.index.embeddings import PAYLOAD_FILE, PICTURES_FILE, QUERY_FOLDER, Embeddings
from smar.index.query import QueryEncoder
from smar.index.vectors import EXACT_LIMIT, Vectors, VectorStore, train
from smar.progress import track

RECALL_TARGET = 0.98
_RECALL_AT = 50
_SAMPLE_QUERIES = 200


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """What was built; `recall` is recall@50 of the worst mode against exact search, None when exact."""

    items: int
    dim: int
    index_type: str
    nprobe: int | None
    recall: float | None
    size: int
    seconds: float


def build_index(embeddings: Path, out: Path, exact_limit: int = EXACT_LIMIT) -> IndexSummary:
    """Make the index folder `out` of an embeddings folder; an older index at `out` is replaced in the end.

    Up to `exact_limit` items are searched exactly; above, an inverted file is trained and its `nprobe` chosen
    so that `RECALL_TARGET` holds for queries made of the catalogue's own titles.

    Raises:
        InputError: the embeddings are incomplete or damaged, their query encoder is of another model, there
        are no
            items, or `out` is something other than an index.
    """
    started = time.perf_counter()
    source = Embeddings(embeddings)
    if source.manifest.items == 0:
        raise InputError(f"{embeddings} holds no items, so there is nothing to index.")
    check_fingerprint(embeddings / QUERY_FOLDER, source.manifest.fingerprint, source.manifest.dim)
    encoder = QueryEncoder.load(embeddings / QUERY_FOLDER)
    _refuse_foreign(out)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    vectors = _write_vectors(source, partial / EXACT_FILE)
    index = train(vectors, exact_limit)
    faiss.write_index(index, str(partial / FAISS_FILE))
    nprobe, recall = (None, None) if index.ntotal <= exact_limit else _tune(index, vectors, source, encoder)
    del vectors
    if nprobe is None:
        (partial / EXACT_FILE).unlink()  # a Flat index holds the very same floats
    _copy_rest(embeddings, partial)
    manifest = IndexManifest(
        fingerprint=source.manifest.fingerprint,
        kind=source.manifest.kind,
        dim=source.manifest.dim,
        items=source.manifest.items,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        index_type="Flat" if nprobe is None else f"IVF{index.nlist},SQ8",
        nprobe=nprobe,
        recall=recall,
        files=describe(partial),
    )
    manifest.write(partial)
    publish(partial, out)
    size = sum(entry.size for entry in manifest.files.values())
    seconds = time.perf_counter() - started
    return IndexSummary(manifest.items, manifest.dim, manifest.index_type, nprobe, recall, size, seconds)


def _write_vectors(source: Embeddings, path: Path) -> Vectors:
    """Lay the shards out as one mapped float32 file [items, 2k] of ``[S_m ; S_t]``."""
    dim = source.manifest.dim
    shape = (source.manifest.items, 2 * dim)
    vectors: Vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    start = 0
    for shard in track(source.shards(), "reading vectors", len(source.manifest.shards)):
        stop = start + len(shard.item_id)
        vectors[start:stop, :dim] = shard.multimodal
        vectors[start:stop, dim:] = shard.text
        start = stop
    return vectors


def _tune(index: Any, vectors: Vectors, source: Embeddings, encoder: QueryEncoder) -> tuple[int, float]:
    """The smallest doubling of nprobe that reaches the recall target in every mode, and that recall."""
    sample = encoder.encode(_sample_queries(source))
    queries = [widen(sample, mode) for mode in Mode]
    exact = [_exact(vectors, batch) for batch in queries]
    nprobe = 1
    while True:
        nprobe = min(2 * nprobe, index.nlist)
        store = VectorStore(index, vectors, nprobe)
        recall = min(_recall(store, batch, truth) for batch, truth in zip(queries, exact, strict=True))
        if recall >= RECALL_TARGET or nprobe == index.nlist:
            return nprobe, recall


def _sample_queries(source: Embeddings) -> list[str]:
    """Beginnings of titles, one to four words long: the nearest thing to a query that every catalogue has."""
    column = "title" if "title" in source.payload.column_names else "item_id"
    rows = np.random.default_rng(0).permutation(source.manifest.items)[:_SAMPLE_QUERIES]
    titles = source.payload[column].take(rows).to_pylist()
    return [" ".join((title or "").split()[: 1 + at % 4]).lower() for at, title in enumerate(titles)]


def _exact(vectors: Vectors, queries: Vectors) -> list[set[int]]:
    flat = faiss.IndexFlatIP(vectors.shape[1])
    heap = faiss.ResultHeap(len(queries), min(_RECALL_AT, len(vectors)), keep_max=True)
    for start in range(0, len(vectors), 65_536):  # a block at a time: the file may exceed memory
        flat.reset()
        flat.add(np.ascontiguousarray(vectors[start : start + 65_536]))
        scores, rows = flat.search(queries, min(_RECALL_AT, flat.ntotal))
        heap.add_result(scores, rows + start)
    heap.finalize()
    return [set(rows.tolist()) for rows in heap.I]


def _recall(store: VectorStore, queries: Vectors, truth: list[set[int]]) -> float:
    found = store.top(queries, _RECALL_AT)
    shares = [len(best & set(rows.tolist())) / len(best) for best, rows in zip(truth, found, strict=True)]
    return float(np.mean(shares))


def _copy_rest(embeddings: Path, partial: Path) -> None:
    shutil.copyfile(embeddings / PAYLOAD_FILE, partial / PAYLOAD_FILE)
    shutil.copytree(embeddings / QUERY_FOLDER, partial / QUERY_FOLDER)
    pictures = embeddings / PICTURES_FILE
    if not pictures.exists():
        (partial / PICTURES_FILE).touch()
        return
    link_or_copy(pictures, partial / PICTURES_FILE)  # never rewritten in place, so sharing the bytes is safe


def _refuse_foreign(out: Path) -> None:
    if out.is_dir() and not any(out.iterdir()):
        return
    if out.exists():
        try:
            IndexManifest.read(out, MADE_BY)
        except InputError:
            raise InputError(f"{out} exists and is not an index. Choose another --out, or remove it.") from None
