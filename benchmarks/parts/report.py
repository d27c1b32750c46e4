"""The report in Markdown: the machine, the figures beside their targets, and all the others."""

import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from parts.load import Load
from parts.service import Service


@dataclass(frozen=True)
class Target:
    """What a figure must reach at least, and what is aimed at; less is better unless `more`."""

    at_least: float
    aim: float
    more: bool = False

    def judge(self, value: float) -> str:
        """In one word."""
        value, at_least, aim = (x if self.more else -x for x in (value, self.at_least, self.aim))
        return "aim" if value >= aim else "reached" if value >= at_least else "**missed**"


SHAPED = "rules, sort, cards and facets: CPU, times plain"
TARGETS = {
    "concurrency 1, p50 ms": Target(1.6, 0.9),
    "concurrency 1, p99 ms": Target(2.5, 1.6),
    "concurrency 8, QPS": Target(1800, 3000, more=True),
    "concurrency 8, p99 ms": Target(10, 6),
    "concurrency 64, QPS": Target(2500, 3800, more=True),
    "concurrency 64, p99 ms": Target(40, 30),
    "index alone, recall@50": Target(0.95, 0.95, more=True),
    "index alone, p50 CPU ms": Target(0.20, 0.12),
    "index alone, p99 CPU ms": Target(0.35, 0.25),
    "any filter adds, p99 ms": Target(4, 2),
    SHAPED: Target(1.5, 1.2),
    "build, CPU s": Target(40, 30),
    "CPU a request: times less than the peer": Target(5, 10, more=True),
}
"""For `TARGET_ITEMS` items of 2 x 128 dimensions on two cores."""
TARGET_ITEMS = 1_000_000


@dataclass
class Report:
    """What was measured: `figures` by the names of `TARGETS`, rows of the tables, and remarks."""

    figures: dict[str, float] = field(default_factory=dict)
    loads: list[tuple[object, ...]] = field(default_factory=list)
    filters: list[tuple[object, ...]] = field(default_factory=list)
    processes: list[tuple[object, ...]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    failed: int = 0

    def add_load(self, name: str, load: Load) -> None:
        """A row of the loads."""
        cached = "" if math.isnan(load.cached) else f"{load.cached:.0%}"
        cells = (load.concurrency, load.p50, load.p99, load.qps, load.cpu_ms, cached, load.requests, load.failed)
        self.loads.append((name, *cells))
        self.failed += load.failed

    def add_filter(self, name: str, plain: Load, load: Load, recall: float) -> None:
        """A row of the filters; `plain` is the load without one, just before."""
        added = (load.p50 - plain.p50, load.p99 - plain.p99, load.cpu_ms - plain.cpu_ms)
        failed = plain.failed + load.failed
        self.filters.append((name, *added, load.p50, load.p99, recall, load.requests, failed))
        self.failed += failed
        worst = "any filter adds, p99 ms"
        self.figures[worst] = max(added[1], self.figures.get(worst, added[1]))

    def add_processes(self, name: str, service: Service) -> None:
        """A row on the service's processes as they are now."""
        seen = service.memory()
        self.processes.append((name, seen.processes, seen.pss, seen.private, service.start_seconds))

    def text(self, title: str, items: int, queries: int, load_before: tuple[float, ...]) -> str:
        """All of it."""
        averages = [" ".join(f"{value:.2f}" for value in load) for load in (load_before, os.getloadavg())]
        rows = [
            (name, self.figures[name], target.at_least, target.aim, target.judge(self.figures[name]))
            for name, target in TARGETS.items()
            if name in self.figures
        ]
        head = ("concurrency", "p50 ms", "p99 ms", "QPS", "CPU ms a request", "from cache", "requests", "failed")
        filters = ("adds p50 ms", "adds p99 ms", "adds CPU ms", "p50 ms", "p99 ms", "recall@50", "requests", "failed")
        return "\n".join(
            [
                f"## {title}\n",
                f"{machine()}. Load average {averages[0]} before, {averages[1]} after.\n",
                *([f"The targets are for {TARGET_ITEMS:,} items.\n"] if items != TARGET_ITEMS else []),
                table(("", "measured", "at least", "aim", ""), rows),
                f"{queries:,} different queries in turn:\n",
                table(("", *head), self.loads),
                table(("filter, concurrency 1", *filters), self.filters),
                table(("", "processes", "PSS MB", "private MB", "start to first answer, s"), self.processes),
                *(f"- {remark}" for remark in [*self.remarks, f"Failed requests: {self.failed}."]),
            ]
        )


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _text(cell: object) -> str:
    if isinstance(cell, float):
        digits = 0 if abs(cell) >= 100 else 1 if abs(cell) >= 10 else 2 if abs(cell) >= 1 else 3
        return f"{cell:,.{digits}f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def machine() -> str:
    """Processor, cores, memory, versions and the command."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = psutil.virtual_memory().total / 2**30
    command = " ".join(["python", "benchmarks/serving.py", *sys.argv[1:]])
    versions = f"Python {platform.python_version()}; commit {_commit()}"
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB; {versions}; `{command}`"


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent)]
    asked = (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "-uno"])
    head, changes = (subprocess.run([*git, *words], capture_output=True, text=True).stdout.strip() for words in asked)
    return f"{head or 'unknown'}{' with changes' if changes else ''}"
