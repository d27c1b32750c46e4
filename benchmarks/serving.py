"""The search service under load, as a user has it: a large index, real processes, real HTTP; beside a peer and a bound.

    python benchmarks/serving.py [--items 1000000] [--workers N] [--seconds 10] [--concurrency 1 8 64] [--no-peer]

Needs wrk (Debian: apt-get install wrk) and, for the peer, requirements-bench.txt. Everything is generated, listens on 127.0.0.1
and is kept in build/bench-serving for the next run. Queries are all different until `--queries` are used up, so that no
cache of answers helps; what one gains is a row of its own. Other work on the machine changes the latencies: see the load
average in the report.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import faiss
import httpx
import numpy as np
import pyarrow.parquet as pq

from parts import report
from parts.bound import read_bandwidth, weights_read
from parts.built import Built, build
from parts.filters import Case, filter_cases
from parts.generated import exact, recall
from parts.load import PATH, Load, Requests, wrk_missing
from parts.peer_build import build_peer, missing
from parts.service import Service, running
from smar.index.base import Mode, widen
from smar.index.embeddings import PAYLOAD_FILE, QUERY_FOLDER, Embeddings
from smar.index.live import UpdatableIndex
from smar.index.query import QueryEncoder, QueryVectors

K = 50
FIRST = {"query": "red dress", "k": K}
REPEATED = 100
FILTERED_CHECKED = 50
Figures = dict[str, float]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def rows_of(service: Service, body: dict[str, object]) -> list[int]:
    """Rows of the hits; a connection for each request, so that all workers get some."""
    answer = httpx.post(service.url + PATH, json=body, timeout=30)
    answer.raise_for_status()
    return [int(hit["item_id"].removeprefix("item-")) for hit in answer.json()["hits"]]


def reached(service: Service, built: Built, cases: Sequence[Case]) -> dict[str, float]:
    """recall@50 through the service, without a filter ("") and with each kind of them; also warms the service up."""
    held_out = built.queries["held_out"]
    wide = widen(QueryEncoder.load(built.embeddings / QUERY_FOLDER).encode(held_out), Mode.ADAPTIVE)
    tasks = [(wide, None)]
    for case in cases:
        tasks += [(wide[at : at + 1], mask) for at, mask in enumerate(case.masks)]
    truth = exact((shard.joined for shard in Embeddings(built.embeddings).shards()), tasks, K)
    found = {"": recall((rows_of(service, {"query": query, "k": K}) for query in held_out), truth[0])}
    left = iter(truth[1:])
    for case in cases:
        bodies = case.bodies(K)[: len(case.masks)]
        found[case.name] = recall((rows_of(service, body) for body in bodies), [next(left)[0] for _ in bodies])
    return found


def index_alone(built: Built) -> tuple[float, float]:
    """p50 and p99 of one search on one thread, in CPU milliseconds; hits with their columns."""
    faiss.omp_set_num_threads(1)
    index = UpdatableIndex.open(built.index).snapshot
    asked = index.encoder.encode(built.queries["held_out"] * 3)
    spent = []
    for at in range(len(asked)):
        one = QueryVectors(asked.embedding[at : at + 1], asked.image_probability[at : at + 1], asked.threshold)
        started = time.thread_time()
        index.search(one, K)
        spent.append(1000 * (time.thread_time() - started))
    return tuple(np.percentile(spent[len(spent) // 3 :], [50, 99]).tolist())


def load_rows(name: str, loads: Sequence[Load]) -> list[tuple[object, ...]]:
    return [(name, run.concurrency, run.p50, run.p99, run.qps, run.cpu_ms, run.requests, run.failed) for run in loads]


LOAD_HEAD = ("", "concurrency", "p50 ms", "p99 ms", "QPS", "CPU ms a request", "requests", "failed")


class Run:
    """One run of the benchmark; every step adds to `figures` (those with a target) and to the tables."""

    def __init__(self, chosen: argparse.Namespace, built: Built, folder: Path) -> None:
        self.chosen, self.built, self.folder = chosen, built, folder
        self.figures: Figures = {"build, CPU s": built.cpu_seconds}
        self.rows: list[tuple[object, ...]] = []
        self.filtered: list[tuple[object, ...]] = []
        self.processes: list[tuple[object, ...]] = []
        self.cpu: dict[str, dict[int, float]] = {"smar": {}, "peer": {}}
        self.failed = 0

    def smar(self, workers: Sequence[str]) -> None:
        queries = self.built.queries
        bodies = [{"query": query, "k": K} for query in queries["load"]]
        say("masks and exact answers of the filters")
        payload = pq.read_table(self.built.embeddings / PAYLOAD_FILE, columns=["price", "category"])
        checked = min(FILTERED_CHECKED, len(queries["held_out"]))
        given = (payload, self.built.near, queries["categories"], queries["load"], queries["held_out"], checked)
        cases = list(filter_cases(*given))
        command = [sys.executable, "-m", "smar", "serve", str(self.built.index), "--port", "PORT", *workers]
        with running(command, FIRST) as service:
            found = reached(service, self.built, cases)
            self.load("smar", service, bodies, self.chosen.concurrency, self.chosen.seconds)
            some = [bodies[at % REPEATED] for at in range(10 * REPEATED)]
            ends = sorted({min(self.chosen.concurrency), max(self.chosen.concurrency)})
            self.load(f"smar, {REPEATED} queries again and again", service, some, ends, self.chosen.seconds / 2)
            self.filters(service, bodies, cases, found)
            self.process("smar", service)
        self.figures["index alone, recall@50"] = found[""]

    def load(self, name: str, service: Service, bodies: list, concurrency: Sequence[int], seconds: float) -> None:
        requests = Requests(self.folder / "bodies", bodies)
        for connections in concurrency:
            say(f"{name}, concurrency {connections}")
            run = requests.run(service, connections, seconds)
            self.rows += load_rows(name, [run])
            self.failed += run.failed
            if name in self.cpu:
                self.cpu[name][connections] = run.cpu_ms
            if name == "smar":
                seen = {"p50 ms": run.p50, "p99 ms": run.p99, "QPS": run.qps}
                self.figures |= {f"concurrency {connections}, {what}": value for what, value in seen.items()}

    def filters(self, service: Service, bodies: list, cases: Sequence[Case], found: Figures) -> None:
        seconds = max(1.0, self.chosen.seconds / 2)
        plain, added = Requests(self.folder / "plain", bodies), []
        for case in cases:
            say(f"filter: {case.name}")
            before = plain.run(service, 1, seconds)
            run = Requests(self.folder / "filtered", case.bodies(K)).run(service, 1, seconds)
            added.append(run.p99 - before.p99)
            row = (case.name, run.p50 - before.p50, added[-1], run.p50, run.p99, found[case.name], run.requests)
            self.filtered.append((*row, run.failed + before.failed))
            self.failed += run.failed + before.failed
        self.figures["any filter adds, p99 ms"] = max(added)

    def process(self, name: str, service: Service) -> None:
        memory = service.memory()
        self.processes.append((name, memory.processes, memory.pss, memory.private, service.start_seconds))

    def peer(self) -> None:
        say("building the peer")
        took = build_peer(self.built.embeddings, self.built.queries["held_out"])
        here = str(Path(__file__).parent)
        path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "uvicorn", "parts.peer:app", "--port", "PORT", "--log-level", "warning"]
        command += ["--workers", str(self.chosen.workers)]
        folder = str(self.built.embeddings / "peer")
        with running(command, FIRST, PEER_FOLDER=folder, PYTHONPATH=path) as service:
            for query in self.built.queries["held_out"][:100]:
                rows_of(service, {"query": query, "k": K})
            bodies = [{"query": query, "k": K} for query in self.built.queries["load"]]
            self.load("peer", service, bodies, self.chosen.concurrency, self.chosen.seconds)
            self.process("peer", service)
        ratios = [self.cpu["peer"][count] / spent for count, spent in self.cpu["smar"].items()]
        self.figures["CPU a request, times less than the peer"] = min(ratios)
        self.peer_built = took

    def write(self, alone: tuple[float, float], load_before: tuple[float, ...]) -> None:
        self.figures |= {"index alone, p50 ms": alone[0], "index alone, p99 ms": alone[1]}
        built, chosen = self.built, self.chosen
        print(f"\n## Serving {chosen.items:,} items, {chosen.workers} workers\n")
        averages = [" ".join(f"{value:.2f}" for value in load) for load in (load_before, os.getloadavg())]
        print(f"{report.machine()}. Load average {averages[0]} before, {averages[1]} after.\n")
        if chosen.items != report.TARGET_ITEMS:
            print(f"The targets are for {report.TARGET_ITEMS:,} items.\n")
        print(report.judged(self.figures))
        print(f"k = {K}, {len(built.queries['load']):,} different queries in turn:\n")
        print(report.table(LOAD_HEAD, self.rows))
        head = (
            "filter, concurrency 1",
            "adds p50 ms",
            "adds p99 ms",
            "p50 ms",
            "p99 ms",
            "recall@50",
            "requests",
            "failed",
        )
        print(report.table(head, self.filtered))
        head = ("", "processes", "PSS MB", "private MB", "start to first answer, s")
        print(report.table(head, self.processes))
        again = " (of an earlier run)" if built.reused else ""
        print(
            f"`smar index`{again}: {built.cpu_seconds:.1f} CPU s, {built.seconds:.1f} s, peak {built.peak_mb:,.0f} MB."
        )
        if "CPU a request, times less than the peer" in self.figures:
            took = self.peer_built
            print(
                f"Peer: sentence-transformers and usearch behind FastAPI; index built in {took['cpu_seconds']:.1f} CPU s, "
                f"recall@{K} {took['recall']:.3f} at expansion {took['expansion_search']:.0f}."
            )
        size = weights_read(built.embeddings / QUERY_FOLDER / "model.onnx")
        speed = read_bandwidth(size)
        print(
            f"Bound: the query tower's {size / 1e6:.2f} MB of weights, read at {speed / 1e9:.0f} GB/s by one core, take "
            f"{size / speed * 1e6:.0f} us a query.\nFailed requests: {self.failed}."
        )


def worker_words(wanted: int) -> list[str]:
    """``--workers N``, where this version of `smar serve` has it."""
    shown = subprocess.run([sys.executable, "-m", "smar", "serve", "--help"], capture_output=True, text=True).stdout
    if "--workers" in shown:
        return ["--workers", str(wanted)]
    say("`smar serve` has no --workers: one process")
    return []


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=report.TARGET_ITEMS)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, default=10, help="of each load; half of it for each filter")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--queries", type=int, default=20_000, help="different ones; more than a cache holds")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True)
    chosen = parser.parse_args()
    if wrk_missing():
        parser.error("wrk is not installed; it makes the load. Debian: apt-get install wrk")
    if chosen.peer and missing():
        parser.error(
            f"the peer needs {', '.join(missing())}: pip install -r requirements-bench.txt, or choose --no-peer"
        )
    if (
        min(chosen.items, chosen.workers, chosen.seconds, *chosen.concurrency, chosen.queries) < 1
        or chosen.items < 2000
    ):
        parser.error("allowed: 2,000 items or more, and at least 1 of everything else")
    return chosen


def main() -> int:
    chosen, load_before = arguments(), os.getloadavg()
    built = build(chosen.items, chosen.queries)
    with tempfile.TemporaryDirectory(prefix="smar-load-") as folder:
        run = Run(chosen, built, Path(folder))
        run.smar(worker_words(chosen.workers))
        alone = index_alone(built)
        if chosen.peer:
            run.peer()
        run.write(alone, load_before)
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
