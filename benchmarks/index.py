"""The index on generated vectors: recall, CPU time of a query with and without filters, of updates, build and opening.

    python benchmarks/index.py [--items 200000] [--dim 128] [--recall 0.95] [--peers] [--folder DIR]

Items lie in uneven clusters (sizes fall like a power law) with a decaying spectrum; the multimodal vector is the text
vector and a part of its own. Queries lie off the cloud: a common offset and noise are added to the items they want.
Times are CPU milliseconds of the searching thread; the vectors are generated, not a shop's. The peers are faiss's
inverted files, with and without exact re-scoring, at the number of lists that gives the recall in the worst mode.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from parts.generated import OFFSET, item_vectors, uneven_clusters, unit
from smar.core.files import describe, verify, xxh3
from smar.search.column_values import Columns
from smar.search.filter_parser import parse_filter
from smar.search.local.delta import Delta
from smar.search.local.forming import write_lists
from smar.search.local.item_store import Catalogue
from smar.search.local.lists import Lists
from smar.search.local.payload import open_payload, write_payload
from smar.search.local.segment import Segment
from smar.search.local.tuning import tuned
from smar.search.local.updates import OpenLog, Record
from smar.search.local.vectors import Allowed, Probes, VectorStore
from smar.search.local.version_files import IndexedFile
from smar.search.protocol import Mode, weigh
from smar.search.query import QueryVectors
from smar.search.ranked import Queries, exact_best

CLUSTERS = 3000
K = 50
QUERIES = 300


def generate(path: Path, items: int, dim: int) -> tuple[np.ndarray, np.ndarray, QueryVectors]:
    """Mapped vectors [items, 2 dim], the cluster of each item, and held-out queries."""
    kept = path.with_name("generated.npz")
    if kept.exists():
        parts = np.load(kept)
        return np.load(path, mmap_mode="r"), parts["cluster"], QueryVectors(parts["query"], parts["probability"])
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
    probability = rng.random(len(query)).astype(np.float32)
    np.savez(kept, cluster=cluster, query=query, probability=probability)
    return vectors, cluster, QueryVectors(query, probability)


def exact(vectors: np.ndarray, queries: np.ndarray, mask: np.ndarray | None = None) -> list[set[int]]:
    rows = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
    heap = faiss.ResultHeap(len(queries), min(K, len(rows)), keep_max=True)
    for start in range(0, len(rows), 65_536):
        block = np.ascontiguousarray(vectors[rows[start : start + 65_536]])
        scores, found = faiss.knn(queries, block, min(K, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        heap.add_result(scores, rows[start : start + 65_536][found])
    heap.finalize()
    return [set(found.tolist()) for found in heap.I]


def asked(queries: QueryVectors, mode: Mode, part: slice = slice(None)) -> Queries:
    return Queries(queries.embedding, weigh(queries, mode)).part(part)


def recall(found: list[np.ndarray], truth: list[set[int]]) -> float:
    return float(np.mean([len(best & set(rows.tolist())) / len(best) for best, rows in zip(truth, found, strict=True)]))


def measure(search: Callable[[Queries], np.ndarray], queries: Queries) -> tuple[list[np.ndarray], str]:
    """Answers one by one, and p50/p99 in CPU milliseconds."""
    singly = [queries.part(slice(at, at + 1)) for at in range(len(queries))]
    search(singly[0])
    found, spent = [], []
    for query in singly:
        started = time.thread_time()
        found.append(search(query))
        spent.append(1000 * (time.thread_time() - started))
    return found, f"p50 {np.percentile(spent, 50):6.3f}  p99 {np.percentile(spent, 99):6.3f} ms"


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def plain(store: VectorStore, queries: QueryVectors) -> None:
    """Recall and time by mode, on queries that nothing was tuned on."""
    for mode in Mode:
        test = asked(queries, mode, slice(QUERIES, None))
        truth = exact(store.vectors, test.wide)
        found, times = measure(lambda query: store.top(query, K)[0].rows, test)
        print(f"{mode:<10} recall {recall(found, truth):.3f} {times}", flush=True)


def peers(vectors: np.ndarray, queries: QueryVectors, goal: float) -> None:
    """faiss's inverted files at the same recall; what they find is ordered by exact scores."""
    lists = int(4 * len(vectors) ** 0.5)
    dim = vectors.shape[1] // 2
    for factory in (f"IVF{lists},SQ8", f"PCAR{dim},IVF{lists},SQ8", f"OPQ{dim // 2},IVF{lists},PQ{dim // 2}x4fsr"):
        started = cpu()
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        inner = faiss.extract_index_ivf(index)
        inner.cp.niter, inner.cp.min_points_per_centroid = 5, 1
        some = np.sort(np.random.default_rng(0).permutation(len(vectors))[: 20 * lists])
        index.train(np.ascontiguousarray(vectors[some]))
        for start in range(0, len(vectors), 65_536):
            index.add(np.ascontiguousarray(vectors[start : start + 65_536]))
        print(f"peer, faiss {factory}: built in {cpu() - started:.1f} CPU s", flush=True)
        tried(factory, index, vectors, queries, goal)


def tried(factory: str, index: faiss.Index, vectors: np.ndarray, queries: QueryVectors, goal: float) -> None:
    """A peer with as many lists visited as the worst mode needs for the goal, or as many as there are steps."""
    modes = [Mode.TEXT, Mode.ADAPTIVE, Mode.MULTIMODAL]
    tests = [asked(queries, mode, slice(QUERIES, None)) for mode in modes]
    truths, inner = [exact(vectors, test.wide) for test in tests], faiss.extract_index_ivf(index)
    for rescored in (0, 6 * K) if "SQ8" in factory else (6 * K,):

        def search(query: Queries, most: int = rescored) -> np.ndarray:
            rows = index.search(query.wide, most or K)[1][0]
            return exact_best(vectors, query[0], rows[rows >= 0], K).rows if most else rows

        for inner.nprobe in (16, 32, 48, 64, 96, 128, 192, 256, 384):
            told = [measure(search, test) for test in tests]
            reached = [recall(found, truth) for (found, _), truth in zip(told, truths, strict=True)]
            if min(reached) >= goal:
                break
        for mode, share, (_, times) in zip(modes, reached, told, strict=True):
            how = f"{rescored} re-scored" if rescored else "as it is"
            print(f"peer {factory}, {how}, nprobe {inner.nprobe}: {mode} recall {share:.3f} {times}", flush=True)


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
    test = asked(queries, Mode.ADAPTIVE, slice(QUERIES, None))
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
        truth = exact(store.vectors, test.wide, allowed.mask)
        found, times = measure(lambda query, s=segment, c=chosen: s.top(query, K, c)[0].rows, test)
        print(
            f"filter {name:<9} {allowed.count:>9,} match: recall {recall(found, truth):.3f}  {times}"
            f"  mask {first:.2f} ms",
            flush=True,
        )
    # the half that is farthest from each query: nothing in the lists next to it may be found
    spent, reached = [], []
    for at in range(10):
        query = test.part(slice(at, at + 1))
        scores = store.vectors @ query.wide[0]
        mask = scores < np.median(scores)
        allowed = Allowed.of(mask)
        store.top(query, K, allowed)
        started = time.thread_time()
        found = [store.top(query, K, allowed)[0].rows]
        spent.append(1000 * (time.thread_time() - started))
        reached.append(recall(found, exact(store.vectors, query.wide, mask)))
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
    dim = store.vectors.shape[1] // 2
    rows = np.random.default_rng(2).permutation(len(store))[:50_000]
    record = table.take(rows)
    for name, part in (("text", store.vectors[rows, dim:]), ("multimodal", store.vectors[rows, :dim])):
        record = record.append_column(f"__{name}", pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), dim))
    record = record.append_column("__picture", pa.nulls(len(rows), pa.binary()))
    started = time.thread_time()
    delta = Delta(base, dim, OpenLog(Path(os.devnull)))  # none of the items has a picture there
    delta.apply(Record("upsert", record.combine_chunks().to_batches()[0]))
    segments = delta.segments()
    print(f"applying 50,000 changes: {1000 * (time.thread_time() - started):.0f} ms")
    test = asked(queries, Mode.ADAPTIVE, slice(QUERIES))
    for name, part in (("base with 50,000 dead", segments[0]), ("delta alone", segments[1])):
        _, times = measure(lambda query, p=part: p.top(query, K, None)[0].rows, test)
        print(f"{name}: {times}")


def memory() -> str:
    """This process's own memory, which no other process shares, in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    own = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith("kB")}
    return (
        f"{own['Private_Dirty']:.0f} MB dirty, {own['Private_Clean'] + own['Private_Dirty']:.0f} MB with mapped files"
    )


def opened(folder: Path, items: int, dim: int, probes: Probes, queries: QueryVectors) -> None:
    """What a process pays for opening the index (but for the query encoder) and for 200 answers of 50 items."""
    faiss.omp_set_num_threads(1)
    before, started = memory(), time.perf_counter()
    vectors = np.asarray(np.load(folder / "vectors.npy", mmap_mode="r"))
    store = VectorStore(Lists(folder, items, 2 * dim, "the benchmark"), vectors, probes)
    segment = Segment(store, open_payload(folder, items, "the benchmark"))
    print(f"opened in {time.perf_counter() - started:.3f} s; memory {before} -> {memory()}")
    test = asked(queries, Mode.ADAPTIVE)
    started = time.perf_counter()
    segment.catalogue.json(segment.top(test.part(slice(1)), K, None)[0].rows)
    print(f"first answer in {time.perf_counter() - started:.4f} s")
    spent = {"top": 0.0, "json": 0.0}
    for at in range(200):
        started = time.thread_time()
        rows = segment.top(test.part(slice(at, at + 1)), K, None)[0].rows
        spent["top"] += time.thread_time() - started
        started = time.thread_time()
        segment.catalogue.json(rows)
        spent["json"] += time.thread_time() - started
    print(f"200 answers: {5 * spent['top']:.3f} ms each, JSON of 50 items {5 * spent['json']:.3f}; memory {memory()}")
    before = memory()
    for text in ("price<500", 'brand="Brand 1"', 'category in ("Category 1", "Category 2")'):
        segment.top(test.part(slice(1)), K, parse_filter(text, segment.catalogue.table.schema))
    print(f"three filters: memory {before} -> {memory()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--folder", type=Path, help="keep the files here and take them up again")
    parser.add_argument("--peers", action="store_true", help="ours and the peers alone")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="smar-index-") as name:
        run(arguments.folder or Path(name), arguments.items, arguments.dim, arguments.recall, arguments.peers)


def run(folder: Path, items: int, dim: int, goal: float, peers_only: bool) -> None:
    unordered, cluster, queries = generate(folder / "unordered.npy", items, dim)
    if not (folder / "rows.npy").exists():
        started = cpu()
        np.save(folder / "rows.npy", write_lists(unordered, folder))
        print(f"{items:,} items, 2 x {dim}: lists built in {cpu() - started:.1f} CPU s", flush=True)
    cluster = cluster[np.load(folder / "rows.npy")]
    if not (folder / "pictures.bin").exists():
        started = cpu()
        write_payload(payload(items, cluster), folder)
        (folder / "pictures.bin").touch()
        print(f"columns and JSON written in {cpu() - started:.1f} CPU s", flush=True)
    started = cpu()
    sample = QueryVectors(queries.embedding[:QUERIES], queries.image_probability[:QUERIES])
    vectors = np.asarray(np.load(folder / "vectors.npy", mmap_mode="r"))
    lists = Lists(folder, items, 2 * dim, "the benchmark")
    probes, reached = tuned(vectors, lists, sample, goal)
    print(f"tuned to {reached:.3f} in {cpu() - started:.1f} CPU s: {probes}", flush=True)
    store = VectorStore(lists, vectors, probes)
    plain(store, queries)
    started = time.perf_counter()
    for file, entry in describe(folder, IndexedFile.of).items():
        verify(folder / file, entry.xxh3, "", xxh3)
    print(f"checksums made and verified: {time.perf_counter() - started:.1f} s")
    if peers_only:
        return peers(vectors, queries, goal)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(opened, folder, items, dim, probes, queries).result()
    filtered(store, cluster, queries)
    changed(store, cluster, queries)
    peers(vectors, queries, goal)


if __name__ == "__main__":
    main()
