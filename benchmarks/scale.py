"""The index from ten thousand to ten million items: build, size, memory, start, latency.

    python benchmarks/scale.py [--items 10000 100000 1000000 10000000] [--memory 4GB] [--limit 8GB] [--folder ...]

Generated items of 2 x 128 dimensions (`parts.built`), indexed by `smar index --memory`; both folders are removed after
each size: 10 M items take 35 GB meanwhile. CPU seconds are those of all threads of `smar index`; peaks are the most of
its own (anonymous) memory, and of files that it had mapped, which the system takes back where it needs memory. The
start is that of a new process (files may be in the system's cache), checksums included, and the latency CPU
milliseconds of one thread, for 50 hits: of the vectors, and of a search in the mode adaptive.

With `--limit` (root, cgroup v1) the build may take so much memory in all, cached files included: it runs in a group of
its own, and the system ends it where its own memory does not fit.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from parts import built
from smar.commands.arguments import size

QUERIES = 2000
COLUMNS = ["items", "cpu_s", "wall_s", "own_gib", "mapped_gib", "size_gib", "start_s", "recall"]
COLUMNS += ["vectors_p50", "vectors_p99", "adaptive_p50", "adaptive_p99"]


def build(embeddings: Path, index: Path, memory: str, limit: str | None) -> dict[str, float]:
    """Run `smar index`, and look at its memory ten times a second."""
    command = [sys.executable, "-m", "smar", "index", str(embeddings), "--out", str(index), "--memory", memory]
    started, most = time.perf_counter(), {"RssAnon": 0, "RssFile": 0}
    before = cpu()
    with limited(limit) as enter, subprocess.Popen(command, stdout=sys.stderr, preexec_fn=enter) as process:
        while process.poll() is None:
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            held = {
                name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if name in most
            }
            most = {name: max(value, held.get(name, 0)) for name, value in most.items()}
            time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.returncode)
    return {
        "cpu_s": cpu() - before,
        "wall_s": time.perf_counter() - started,
        "own_gib": most["RssAnon"] / 2**20,
        "mapped_gib": most["RssFile"] / 2**20,
        "size_gib": sum(path.stat().st_size for path in index.rglob("*") if path.is_file()) / 2**30,
    }


@contextmanager
def limited(limit: str | None) -> Iterator[Callable[[], object] | None]:
    """What a process calls to enter a group that may take `limit` of memory; None where there is no limit."""
    if limit is None:
        yield None
        return
    group = Path(f"/sys/fs/cgroup/memory/smar-scale-{os.getpid()}")
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(size(limit)))
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
        most = int((group / "memory.max_usage_in_bytes").read_text())
        print(f"group of {limit}: {most / 2**30:.2f} GiB at most, files in the cache included", file=sys.stderr)
    finally:
        group.rmdir()


def cpu() -> float:
    """CPU seconds of the processes that this one has waited for."""
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def search(embeddings: Path, index: Path) -> None:
    """What a process pays for opening the index and for a query; printed as JSON."""
    import faiss

    from smar.search.local import EmbeddedIndex
    from smar.search.protocol import Mode, weigh
    from smar.search.ranked import Queries

    faiss.omp_set_num_threads(1)
    started = time.perf_counter()
    opened = EmbeddedIndex.open(index)
    start = time.perf_counter() - started
    texts = json.loads((embeddings / "queries.json").read_text())["load"][:QUERIES]
    vectors = [opened.encoder.encode([text]) for text in texts]
    segment = opened.segments[0]
    took = {}
    for name, ask in {
        "vectors": lambda one: segment.top(Queries(one.embedding, weigh(one, Mode.ADAPTIVE)), 50, None),
        "adaptive": lambda one: opened.rank(one, 50, mode=Mode.ADAPTIVE),
    }.items():
        for one in vectors:  # what a long-running service has in memory
            ask(one)
        spent = []
        for one in vectors:
            began = time.thread_time()
            ask(one)
            spent.append(1000 * (time.thread_time() - began))
        took |= {f"{name}_p50": np.percentile(spent, 50), f"{name}_p99": np.percentile(spent, 99)}
    print(json.dumps({"start_s": start, "recall": opened.manifest.recall or 1.0, **took}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--limit", help="memory of the build in all, such as 8GB")
    parser.add_argument("--folder", type=Path, default=Path("build/scale"))
    parser.add_argument("--search", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.search:
        search(*arguments.search)
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{'---:|' * len(COLUMNS)}", flush=True)
    for items in arguments.items:
        embeddings, index = arguments.folder / f"embeddings-{items}", arguments.folder / f"index-{items}"
        if not (embeddings / "manifest.json").exists():
            built.write_embeddings(embeddings, items, QUERIES)
        took = build(embeddings, index, arguments.memory, arguments.limit)
        child = [sys.executable, __file__, "--search", str(embeddings), str(index)]
        took |= json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE).stdout)
        print("| {:,} | {} |".format(items, " | ".join(f"{took[name]:.3f}" for name in COLUMNS[1:])), flush=True)
        shutil.rmtree(embeddings)
        shutil.rmtree(index)


if __name__ == "__main__":
    main()
