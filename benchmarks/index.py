"""The index on generated vectors: recall, CPU time of a query with and without filters, of updates, build and opening.

    python benchmarks/index.py [--items 200000] [--dim 128]

Items lie in uneven clusters (sizes fall like a power law) with a decaying spectrum; the multimodal vector is the text
vector and a part of its own. Queries lie off the cloud: a common offset and noise are added to the items they want.
Times are CPU milliseconds of the searching thread; the vectors are generated, not a shop's.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from parts.generated import OFFSET, item_vectors, uneven_clusters, unit
from smar.index.base import Mode, widen
from smar.index.catalogue import Catalogue
from smar.index.columns import Columns
from smar.index.delta import Delta
from smar.index.filter_parser import parse_filter
from smar.index.query import QueryVectors
from smar.index.segment import Segment
from smar.index.vectors import Allowed, VectorStore, train

CLUSTERS = 3000
K = 50
QUERIES = 300


def generate(path: Path, items: int, dim: int) -> tuple[np.ndarray, np.ndarray, QueryVectors]:
    """Mapped vectors [items, 2 dim], the cluster of each item, and held-out queries."""
    rng = np.random.default_rng(0)
    spectrum = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    centres = rng.standard_normal((CLUSTERS, dim), np.float32) * spectrum
    cluster = uneven_clusters(rng, items, CLUSTERS)
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(items, 2 * dim))
    for start in range(0, items, 65_536):
        block = cluster[start : start + 65_536]
        vectors[start : start + len(block)] = item_vectors(rng, centres[block], spectrum)
    offset = OFFSET * rng.standard_normal(dim) * spectrum
    wanted = rng.choice(items, 2 * QUERIES)
    noise = 0.5 * rng.standard_normal((len(wanted), dim)) * spectrum
    query = unit(unit(vectors[wanted, :dim] + vectors[wanted, dim:]) + offset + noise)
    return vectors, cluster, QueryVectors(query, rng.random(len(query)).astype(np.float32))


def exact(vectors: np.ndarray, queries: np.ndarray, mask: np.ndarray | None = None) -> list[set[int]]:
    rows = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
    heap = faiss.ResultHeap(len(queries), min(K, len(rows)), keep_max=True)
    for start in range(0, len(rows), 65_536):
        block = np.ascontiguousarray(vectors[rows[start : start + 65_536]])
        scores, found = faiss.knn(queries, block, min(K, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        heap.add_result(scores, rows[start : start + 65_536][found])
    heap.finalize()
    return [set(found.tolist()) for found in heap.I]


def recall(found: list[np.ndarray], truth: list[set[int]]) -> float:
    return float(np.mean([len(best & set(rows.tolist())) / len(best) for best, rows in zip(truth, found, strict=True)]))


def measure(search: Callable[[np.ndarray], np.ndarray], queries: np.ndarray) -> tuple[list[np.ndarray], str]:
    """Answers one by one, and p50/p99 in CPU milliseconds."""
    search(queries[:1])
    found, spent = [], []
    for at in range(len(queries)):
        started = time.thread_time()
        found.append(search(queries[at : at + 1]))
        spent.append(1000 * (time.thread_time() - started))
    return found, f"p50 {np.percentile(spent, 50):6.3f}  p99 {np.percentile(spent, 99):6.3f} ms"


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def plain(vectors: np.ndarray, index: object, queries: QueryVectors) -> int:
    """Recall and time by nprobe; returns the smallest that reaches .95 in every mode on half of the queries."""
    asked = {mode: widen(queries, mode) for mode in Mode}
    truth = {mode: exact(vectors, asked[mode]) for mode in Mode}
    chosen = 0
    for nprobe in (8, 16, 32, 48, 64, 96, 128, 192, 256):
        store = VectorStore(index, vectors, nprobe)
        tuned = min(recall(store.top(asked[mode][:QUERIES], K), truth[mode][:QUERIES]) for mode in Mode)
        line = []
        for mode in Mode:
            found, times = measure(lambda query, store=store: store.top(query, K)[0], asked[mode][QUERIES:])
            line.append(f"{mode} {recall(found, truth[mode][QUERIES:]):.3f} {times}")
        print(f"nprobe {nprobe:>3}: {' | '.join(line)}", flush=True)
        if tuned >= 0.98:
            return chosen or nprobe
        chosen = chosen or (nprobe if tuned >= 0.95 else 0)
    return chosen or nprobe


def payload(items: int, cluster: np.ndarray) -> pa.Table:
    rng = np.random.default_rng(1)
    brands = np.array([f"Brand {number}" for number in range(2000)])
    return pa.table(
        {
            "item_id": [f"item-{at}" for at in range(items)],
            "price": rng.random(items) * 1000,
            "brand": brands[rng.zipf(1.3, items) % 2000],
            "category": np.char.add("Category ", (cluster % 40).astype(str)),
            "cluster": cluster,
        }
    )


def filtered(store: VectorStore, cluster: np.ndarray, queries: QueryVectors) -> None:
    table = payload(len(store), cluster)
    catalogue = Catalogue(table, None)
    asked = widen(queries, Mode.ADAPTIVE)[QUERIES:]
    far = np.argsort(-np.bincount(cluster, minlength=CLUSTERS))[CLUSTERS // 100 :]
    adverse = f"cluster in ({', '.join(map(str, far[:150]))})"
    others = f"cluster not in ({', '.join(map(str, np.argsort(-np.bincount(cluster))[:150]))})"
    cases = [(f"{share:.1%}", f"price<{1000 * share}") for share in (0.001, 0.01, 0.1, 0.5)]
    for name, text in [*cases, ("category", 'category="Category 7"'), ("clusters", adverse), ("others", others)]:
        chosen = parse_filter(text, table.schema)
        Segment(store, catalogue).allowed(chosen)  # columns are converted once in the life of a process
        started = time.thread_time()
        segment = Segment(store, catalogue)
        allowed = segment.allowed(chosen)
        first = 1000 * (time.thread_time() - started)
        segment.top(asked[:1], K, chosen)
        truth = exact(store.vectors, asked, allowed.mask)
        found, times = measure(lambda query, s=segment, c=chosen: s.top(query, K, c)[0], asked)
        print(
            f"filter {name:<9} {allowed.count:>9,} match: recall {recall(found, truth):.3f}  {times}"
            f"  mask {first:.2f} ms",
            flush=True,
        )
    # the half that is farthest from each query: nothing in the lists next to it may be found
    spent, reached = [], []
    for at in range(40):
        scores = store.vectors @ asked[at]
        mask = scores < np.median(scores)
        allowed = Allowed.of(mask)
        store.top(asked[at : at + 1], K, allowed)
        started = time.thread_time()
        found = store.top(asked[at : at + 1], K, allowed)
        spent.append(1000 * (time.thread_time() - started))
        reached.append(recall(found, exact(store.vectors, asked[at : at + 1], mask)))
    print(
        f"filter far half {mask.sum():>9,} match: recall {np.mean(reached):.3f}  "
        f"p50 {np.percentile(spent, 50):6.3f}  p99 {np.percentile(spent, 99):6.3f} ms"
    )
    started = time.thread_time()
    Columns(table).codes("brand")
    print(f"first use of a text column: {1000 * (time.thread_time() - started):.0f} ms")


def changed(store: VectorStore, cluster: np.ndarray, queries: QueryVectors) -> None:
    """The cost of a delta: 50,000 changed items beside the base."""
    table = payload(len(store), cluster)
    base = Segment(store, Catalogue(table, None))
    delta, dim = Delta(base, store.vectors.shape[1] // 2), store.vectors.shape[1] // 2
    rows = np.random.default_rng(2).permutation(len(store))[:50_000]
    record = table.take(rows)
    for name, part in (("text", store.vectors[rows, dim:]), ("multimodal", store.vectors[rows, :dim])):
        record = record.append_column(f"__{name}", pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), dim))
    record = record.append_column("__picture", pa.nulls(len(rows), pa.binary()))
    started = time.thread_time()
    delta.apply(record, upsert=True)
    segments = delta.segments()
    print(f"applying 50,000 changes: {1000 * (time.thread_time() - started):.0f} ms")
    asked = widen(queries, Mode.ADAPTIVE)[:QUERIES]
    for name, part in (("base with 50,000 dead", segments[0]), ("delta alone", segments[1])):
        _, times = measure(lambda query, p=part: p.top(query, K, None)[0], asked)
        print(f"{name}: {times}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=128)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="smar-index-") as name:
        vectors, cluster, queries = generate(Path(name) / "vectors.npy", arguments.items, arguments.dim)
        started = cpu()
        index = train(vectors, exact_limit=0)
        print(
            f"{arguments.items:,} items, 2 x {arguments.dim}: {index.nlist} lists built in {cpu() - started:.1f} CPU s"
        )
        path = Path(name) / "vectors.faiss"
        faiss.write_index(index, str(path))
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        nprobe = plain(vectors, index, queries)
        store = VectorStore(index, vectors, nprobe)
        print(f"with nprobe {nprobe}:")
        filtered(store, cluster, queries)
        changed(store, cluster, queries)


if __name__ == "__main__":
    main()
