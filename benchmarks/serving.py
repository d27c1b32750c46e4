"""The search service under load, as a user has it: a large index, real processes, real HTTP; beside a peer and a bound.

    python benchmarks/serving.py [--items 1000000] [--workers N] [--seconds 10] [--concurrency 1 8 64] [--no-peer]

Needs wrk (Debian: apt-get install wrk) and, for the peer, requirements-bench.txt. Everything is generated, listens on
127.0.0.1, and is kept in build/bench-serving for the next run. All queries are different until `--queries` are used up,
so that a cache of queries does not help; what one gains is a row of its own. Latencies depend on what else the machine
does: see the load average in the report. CPU times depend on it little.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import faiss
import httpx
import numpy as np
import pyarrow.parquet as pq

from parts.bound import read_bandwidth, weights_read
from parts.built import Built, build
from parts.filters import Case, filter_cases
from parts.generated import exact, recall
from parts.load import PATH, Bodies, wrk_missing
from parts.peer_build import build_peer, missing
from parts.report import SHAPED, TARGET_ITEMS, Report
from parts.service import Service, running
from smar.search.embeddings import PAYLOAD_FILE, QUERY_FOLDER, Embeddings
from smar.search.local.live import UpdatableIndex
from smar.search.local.tuning import tuned
from smar.search.protocol import Mode, widen
from smar.search.query import QueryEncoder, QueryVectors

STORE = Path(__file__).parents[1] / "build" / "bench-serving"
K = 50
FIRST = {"query": "red dress", "k": K}
SHAPE = {
    "sort": "-in_stock",
    "collapse": "title",
    "facets": ["category", "price", "in_stock"],
}
RULES = """
rules:
  - name: what sells
    boost: [{filter: "price < 50", factor: 1.1}]
    bury: [{filter: "in_stock = false", amount: 0.1}]
  - name: recalled
    hide: {ids: [item-0000001, item-0000002]}
"""
REPEATED = 100
CHECKED = 30
"""Answers of each kind of filter that are compared with an exact search."""
TUNED, INDEX_RECALL = 1200, 0.95
Truth = list[set[int]]


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def bodies(queries: Sequence[str]) -> list[dict[str, object]]:
    return [{"query": query, "k": K} for query in queries]


def ask(service: Service, asked: Sequence[dict[str, object]]) -> list[list[int]]:
    """Rows of each request's hits; a connection for each, so that every worker is warmed up."""
    found = []
    with httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        for body in asked:
            answer = client.post(service.url + PATH, json=body)
            answer.raise_for_status()
            found.append([number_of(hit["item_id"]) for hit in answer.json()["hits"]])
    return found


def number_of(item_id: str) -> int:
    """Place of an item in the catalogue; an index numbers its rows as it likes."""
    return int(item_id.removeprefix("item-"))


def exact_answers(built: Built, cases: Sequence[Case]) -> tuple[Truth, list[Truth]]:
    """What the held-out queries find by an exact search: without a filter, and their first under each kind."""
    encoder = QueryEncoder.load(built.embeddings / QUERY_FOLDER)
    wide = widen(encoder.encode(built.queries["held_out"]), Mode.ADAPTIVE)
    tasks = [(wide, None)]
    for case in cases:
        if all(mask is case.masks[0] for mask in case.masks):
            tasks.append((wide[: len(case.masks)], case.masks[0]))
        else:
            tasks += [(wide[at : at + 1], mask) for at, mask in enumerate(case.masks)]
    blocks = (block for shard in Embeddings(built.embeddings).shards() for block in shard.joined())
    found = exact(blocks, tasks, K)
    flat = [best for part in found[1:] for best in part]
    return found[0], [flat[at * CHECKED : (at + 1) * CHECKED] for at in range(len(cases))]


def measure_smar(report: Report, chosen: argparse.Namespace, built: Built, folder: Path) -> dict[int, float]:
    """Everything about the service; returns CPU milliseconds of a request by concurrency."""
    load, held_out = built.queries["load"], built.queries["held_out"]
    say("exact answers")
    table = pq.read_table(built.embeddings / PAYLOAD_FILE, columns=["price", "category"])
    cases = list(filter_cases(table, built.near, built.categories, load, held_out, CHECKED))
    plain, filtered = exact_answers(built, cases)
    command = [sys.executable, "-m", "smar", "serve", str(built.index), "--port", "PORT"]
    say("starting the service")
    with running([*command, "--workers", str(chosen.workers)], FIRST) as service:
        say("recall")
        through = recall(ask(service, bodies(held_out)), plain)
        report.remarks.append(f"recall@{K} through the service: {through:.4f} of {len(held_out)} queries.")
        reached = [
            recall(ask(service, case.bodies(K)[:CHECKED]), truth) for case, truth in zip(cases, filtered, strict=True)
        ]
        fresh = Bodies(folder / "bodies", bodies(load))
        cpu = put_loads(report, "smar", service, fresh, chosen)
        ask(service, bodies(load[:REPEATED]) * 3 * chosen.workers)
        again = Bodies(folder / "again", bodies(load[:REPEATED]))
        for connections in sorted({min(chosen.concurrency), max(chosen.concurrency)}):
            name = f"smar, {REPEATED} queries again and again"
            report.add_load(name, again.load(service, connections, max(1, chosen.seconds // 2)))
        for case, share in zip(cases, reached, strict=True):
            say(f"filter: {case.name}")
            before = fresh.load(service, 1, max(1, chosen.seconds // 2))
            asked = Bodies(folder / "filtered", case.bodies(K), fresh.next)
            report.add_filter(case.name, before, asked.load(service, 1, max(1, chosen.seconds // 2)), share)
        report.add_processes("smar", service)
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    say("starting it with rules")
    with running([*command, "--workers", str(chosen.workers), "--rules", str(rules)], FIRST) as service:
        shaped = Bodies(folder / "shaped", [body | SHAPE for body in bodies(load)], fresh.next)
        ask(service, [body | SHAPE for body in bodies(held_out[:REPEATED])])  # columns are read at their first use
        for connections in sorted({min(chosen.concurrency), max(chosen.concurrency)}):
            seen = shaped.load(service, connections, max(1, chosen.seconds // 2))
            report.add_load("smar with rules, sorted, one card a title, three facets", seen)
            ratio = seen.cpu_ms / cpu[connections]
            report.figures[SHAPED] = max(ratio, report.figures.get(SHAPED, ratio))
    say("index alone")
    measure_index(report, built, plain)
    return cpu


def put_loads(
    report: Report, name: str, service: Service, fresh: Bodies, chosen: argparse.Namespace
) -> dict[int, float]:
    """Each concurrency in turn; returns CPU milliseconds of a request."""
    cpu = {}
    for connections in chosen.concurrency:
        say(f"{name}, concurrency {connections}")
        seen = fresh.load(service, connections, chosen.seconds)
        report.add_load(name, seen)
        cpu[connections] = seen.cpu_ms
        if name == "smar":
            for what, value in (("p50 ms", seen.p50), ("p99 ms", seen.p99), ("QPS", seen.qps)):
                report.figures[f"concurrency {connections}, {what}"] = value
    return cpu


def measure_index(report: Report, built: Built, truth: Truth) -> None:
    """One query after the other on one thread, ranked by exact scores, without columns; the first time warms up.

    The service's index is tuned to .98, the target's recall is .95: the effort for it is found in the same way.
    """
    index = UpdatableIndex.open(built.index).snapshot
    store = index.segments[0].store
    sample = index.encoder.encode(built.queries["load"][:TUNED])
    if store.probes is not None:
        store.probes, _ = tuned(store.vectors, store.index, sample, INDEX_RECALL)
    faiss.omp_set_num_threads(1)
    asked = index.encoder.encode(built.queries["held_out"])
    pairs = zip(asked.embedding, asked.image_probability, strict=True)
    ones = [QueryVectors(vector[None], share[None], asked.threshold) for vector, share in pairs]
    rows, spent = [index.rank(one, K)[0].rows for one in ones], []
    found = [[number_of(index.catalogue.item_id(row)) for row in best.tolist()] for best in rows]
    for one in ones * 2:
        started = time.thread_time()
        index.rank(one, K)
        spent.append(1000 * (time.thread_time() - started))
    report.figures["index alone, recall@50"] = recall(found, truth)
    for percent in (50, 99):
        report.figures[f"index alone, p{percent} CPU ms"] = float(np.percentile(spent, percent))


def measure_peer(report: Report, chosen: argparse.Namespace, built: Built, folder: Path) -> dict[int, float]:
    """The same load on the peer; returns CPU milliseconds of a request by concurrency."""
    say("building the peer")
    took = build_peer(built.embeddings, built.queries["held_out"])
    report.remarks.append(
        f"Peer: sentence-transformers and usearch behind FastAPI. Index built in {took['cpu_seconds']:.1f} CPU s; "
        f"recall@{K} {took['recall']:.3f}, at expansion {took['expansion_search']:.0f}."
    )
    here = str(Path(__file__).parent)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "uvicorn", "parts.peer:app", "--port", "PORT", "--log-level", "warning"]
    command += ["--workers", str(chosen.workers)]
    say("starting the peer")
    with running(command, FIRST, PEER_FOLDER=str(built.embeddings / "peer"), PYTHONPATH=path) as service:
        ask(service, bodies(built.queries["held_out"][:100]))
        cpu = put_loads(report, "peer", service, Bodies(folder / "bodies", bodies(built.queries["load"])), chosen)
        report.add_processes("peer", service)
    return cpu


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=TARGET_ITEMS)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=int, default=10, help="of each load; half of it for each filter")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--queries", type=int, default=20_000, help="different ones; more than a cache holds")
    parser.add_argument("--store", type=Path, default=STORE, help="where what was built is kept for the next run")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    chosen = parser.parse_args()
    least = {"items": 2000, "workers": 1, "seconds": 1, "queries": REPEATED}
    for name, value in least.items():
        if getattr(chosen, name) < value:
            parser.error(f"--{name} is {getattr(chosen, name)}; allowed: {value} or more")
    if min(chosen.concurrency) < 1:
        parser.error(f"--concurrency is {chosen.concurrency}; allowed: 1 or more each")
    if wrk_missing():
        parser.error("wrk is not installed; it makes the load. Debian: apt-get install wrk")
    if chosen.peer and missing():
        parser.error(f"the peer needs {', '.join(missing())}: pip install -r requirements-bench.txt, or say --no-peer")
    return chosen


def main() -> int:
    chosen, load_before, report = arguments(), os.getloadavg(), Report()
    built = build(chosen.store, chosen.items, chosen.queries)
    report.figures["build, CPU s"] = built.cpu_seconds
    with tempfile.TemporaryDirectory(prefix="smar-load-") as folder:
        smar = measure_smar(report, chosen, built, Path(folder))
        if chosen.peer:
            peer = measure_peer(report, chosen, built, Path(folder))
            ratio = min(peer[connections] / smar[connections] for connections in smar)
            report.figures["CPU a request: times less than the peer"] = ratio
    again = " (in an earlier run)" if built.reused else ""
    took = f"{built.cpu_seconds:.1f} CPU s, {built.seconds:.1f} s, peak {built.peak_mb:,.0f} MB"
    size = weights_read(built.embeddings / QUERY_FOLDER / "model.onnx")
    speed = read_bandwidth(size)
    report.remarks += [
        f"`smar index`{again}: {took}.",
        f"Bound: {size / 1e6:.2f} MB of the query tower's weights, read by one core at {speed / 1e9:.0f} GB/s, are "
        f"{size / speed * 1e6:.0f} microseconds a query.",
    ]
    title = f"Serving {chosen.items:,} items, {chosen.workers} workers, k = {K}"
    print(report.text(title, chosen.items, len(built.queries["load"]), load_before))
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
