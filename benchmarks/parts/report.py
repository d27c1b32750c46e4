"""The report: the machine, every figure beside what is asked of it, and what no target is set for, in Markdown."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Target:
    """What a figure must reach at least, and what is aimed at; more is better where `at_least` is below `aim`."""

    at_least: float
    aim: float

    def judge(self, value: float) -> str:
        sign = 1 if self.at_least < self.aim or self.at_least >= 1000 else -1
        if self.at_least == self.aim:
            sign = 1
        if sign * value >= sign * self.aim:
            return "aim"
        return "reached" if sign * value >= sign * self.at_least else "**missed**"


TARGETS = {
    "concurrency 1, p50 ms": Target(1.6, 0.9),
    "concurrency 1, p99 ms": Target(2.5, 1.6),
    "concurrency 8, QPS": Target(1800, 3000),
    "concurrency 8, p99 ms": Target(10, 6),
    "concurrency 64, QPS": Target(2500, 3800),
    "concurrency 64, p99 ms": Target(40, 30),
    "index alone, recall@50": Target(0.95, 0.95),
    "index alone, p50 ms": Target(0.20, 0.12),
    "index alone, p99 ms": Target(0.35, 0.25),
    "any filter adds, p99 ms": Target(4, 2),
    "build, CPU s": Target(40, 30),
    "CPU a request, times less than the peer": Target(5, 10),
}
"""For a million items of 2 x 128 dimensions on two cores."""
TARGET_ITEMS = 1_000_000


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the first column is text, the others are figures."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *([_text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _text(cell: object) -> str:
    if isinstance(cell, float):
        digits = 0 if abs(cell) >= 100 else 1 if abs(cell) >= 10 else 2 if abs(cell) >= 1 else 3
        return f"{cell:,.{digits}f}"
    return f"{cell:,}" if isinstance(cell, int) else str(cell)


def judged(figures: dict[str, float]) -> str:
    """The figures that have a target, beside it."""
    rows = [
        (name, figures[name], target.at_least, target.aim, target.judge(figures[name]))
        for name, target in TARGETS.items()
        if name in figures
    ]
    return table(("", "measured", "at least", "aim", ""), rows)


def machine() -> str:
    """Processor, cores, memory, commit and command."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout.strip()
    command = " ".join(["python", "benchmarks/serving.py", *sys.argv[1:]])
    return (
        f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB; Python {platform.python_version()}; "
        f"commit {head or 'unknown'}{' with changes' if dirty else ''}; `{command}`"
    )
