"""Rows of finished variants -> ablation.md, ablation.json and charts.

A variant's figures are means over its seeds, query by query; intervals and differences resample queries, the same for
all variants, so the difference to the base is paired. They do not cover chance in training: several seeds show that.
"""

import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from smar.ablation.questions import JUDGED, MODES, Answers
from smar.ablation.run import Job, Row, read_answers
from smar.ablation.variants import BASE, Plan, Variant
from smar.data.dataset import Dataset
from smar.evaluation.bootstrap import Interval, Resampled, resample
from smar.evaluation.charts import curve_chart, interval_chart
from smar.evaluation.hidden import HIDDEN
from smar.evaluation.markdown import cell, ranged, table
from smar.evaluation.metrics import QueryMetrics, metric_names
from smar.evaluation.slices import ALL
from smar.files import atomic, write_json

ADAPTIVE = "adaptive"


@dataclass(frozen=True)
class TableRow:
    """A variant with its finished seeds, and its figures: (slice, mode, metric) -> interval; slice -> queries.

    `difference`: slice -> adaptive recall minus the base's, paired; empty for the base and where the base has no row.
    `spread`: standard deviation of adaptive recall on all queries between seeds, None with one seed.
    """

    variant: Variant
    seeds: tuple[Row, ...]
    figures: Mapping[tuple[str, str, str], Interval]
    queries: Mapping[str, int]
    difference: Mapping[str, Interval]
    spread: float | None

    @property
    def cpu_seconds(self) -> float:
        """Training's CPU seconds, mean over seeds."""
        return float(np.mean([row.cpu_seconds for row in self.seeds]))


def collect_rows(plan: Plan, jobs: Sequence[Job]) -> list[TableRow]:
    """Rows of all variants that have a finished seed, in the plan's order."""
    done: dict[str, list[tuple[Row, Answers]]] = {}
    for job in jobs:
        if row := job.finished():
            done.setdefault(row.variant, []).append((row, read_answers(job.folder / "queries.parquet")))
    means = {name: _mean([answers for _, answers in found]) for name, found in done.items()}
    pieces = list(dict.fromkeys(piece for answers in means.values() for piece, _ in answers))
    options = plan.settings.evaluate
    drawn = {piece: resample(_of_slice(means, piece), options.k, options.bootstrap) for piece in pieces}
    return [_row(v, [row for row, _ in done[v.name]], means, drawn, options.k) for v in plan.variants if v.name in done]


def _of_slice(means: Mapping[str, Answers], piece: str) -> dict[str, QueryMetrics]:
    return {
        f"{name}/{mode}": metrics
        for name, answers in means.items()
        for (at, mode), metrics in answers.items()
        if at == piece
    }


def _mean(seeds: Sequence[Answers]) -> Answers:
    """Metrics of every query, averaged over seeds."""
    out = {}
    for key, first in seeds[0].items():
        names = ("recall", "precision", "ndcg", "rr")
        values = (np.mean([getattr(answers[key], name) for answers in seeds], axis=0) for name in names)
        out[key] = QueryMetrics(first.rows, *values)
    return out


def _row(
    variant: Variant, seeds: Sequence[Row], means: Mapping[str, Answers], drawn: Mapping[str, Resampled], k: int
) -> TableRow:
    recall, name = metric_names(k)[0], variant.name
    figures = {
        (piece, mode, metric): drawn[piece].interval(f"{name}/{mode}", metric)
        for piece, mode in means[name]
        for metric in (metric_names(k)[:1] if piece.endswith(HIDDEN) else metric_names(k))
    }
    difference = {}
    if name != BASE and BASE in means:
        pair = (f"{name}/{ADAPTIVE}", f"{BASE}/{ADAPTIVE}")
        difference = {piece: drawn[piece].difference(*pair, recall) for piece in drawn}
    recalls = [row.recall[ADAPTIVE][ALL] for row in seeds]
    spread = float(np.std(recalls, ddof=1)) if len(recalls) > 1 else None
    queries = {piece: found.queries for piece, found in drawn.items()}
    return TableRow(variant, tuple(seeds), figures, queries, difference, spread)


def write_table(out: Path, plan: Plan, dataset: Dataset, rows: Sequence[TableRow]) -> None:
    """Write the table of the rows that there are; one of an earlier call is replaced."""
    if not rows:
        return
    recall = metric_names(plan.settings.evaluate.k)[0]
    facts = _facts(plan, dataset, rows)
    write_json(out / "ablation.json", {"facts": dict(facts), "rows": [_as_json(row) for row in rows]})
    note = plan.settings.data.note
    with atomic(out / "ablation.png") as partial:
        points = [(row.variant.name, row.figures[ALL, ADAPTIVE, recall]) for row in rows]
        interval_chart(partial, points, recall, "Ablation", note)
    lines = _curves(rows, recall)
    if lines:
        with atomic(out / "curve.png") as partial:
            curve_chart(partial, lines, "CPU seconds of training", recall, note)
    parts = [
        f"# Ablation\n\n{f'> **{cell(note)}**' if note else ''}\n",
        _main_table(rows, recall),
        "![recall by variant](ablation.png)\n",
        "![recall by budget](curve.png)\n" if lines else "",
        _slice_table(rows, recall),
        _variant_table(rows, plan),
        "## How it was made\n\n" + table(("", "value"), [(what, cell(value)) for what, value in facts]),
        _HOW,
    ]
    with atomic(out / "ablation.md") as partial:
        partial.write_text("\n".join(part for part in parts if part), encoding="utf-8")


_HOW = """- Every variant is one process of one thread. CPU seconds are those of the training steps.
- adaptive: the mixed score with the model's gate. Without the gate: text and multimodal take one vector for all
  queries, random gate deals the gate's probabilities to the wrong queries. image: the picture's vector alone.
- [low, high] is the 95 % interval of a bootstrap over queries; differences are paired, bold where the interval leaves
  out 0. They tell of chance in the queries, not of chance in training: several `ablate.seeds` show that.
"""


def _curves(rows: Sequence[TableRow], recall: str) -> dict[str, list[tuple[float, Interval]]]:
    lines: dict[str, list[tuple[float, Interval]]] = {}
    for row in sorted(rows, key=lambda row: row.cpu_seconds):
        if row.variant.curve:
            point = (row.cpu_seconds, row.figures[ALL, ADAPTIVE, recall])
            lines.setdefault(row.variant.curve, []).append(point)
    return {name: points for name, points in lines.items() if len(points) > 1}


def _difference(row: TableRow, piece: str) -> str:
    interval = row.difference.get(piece)
    if interval is None:
        return ""
    text = ranged(interval, "+")
    return f"**{text}**" if _significant(interval) else text


def _significant(interval: Interval) -> bool:
    return interval.low > 0 or interval.high < 0


def _main_table(rows: Sequence[TableRow], recall: str) -> str:
    head = ["variant", f"{recall} adaptive", "to base", *MODES[1:], "steps", "pairs", "CPU s", "parameters"]
    spread = any(row.spread is not None for row in rows)
    if spread:
        head.insert(2, "seeds: sd")
    lines = []
    for row in rows:
        first = row.seeds[0]
        modes = [row.figures.get((ALL, mode, recall)) for mode in MODES[1:]]
        line = [
            cell(row.variant.name),
            ranged(row.figures[ALL, ADAPTIVE, recall]),
            _difference(row, ALL),
            *(f"{interval.value:.3f}" if interval else "" for interval in modes),
            " + ".join(map(str, first.steps)),
            f"{first.pairs:,}",
            f"{row.cpu_seconds:,.0f}",
            f"{first.parameters:,}",
        ]
        if spread:
            line.insert(2, "" if row.spread is None else f"{len(row.seeds)}: {row.spread:.3f}")
        lines.append(line)
    return f"## {recall} on all {rows[0].queries[ALL]:,} queries\n\n" + table(head, lines)


def _slice_table(rows: Sequence[TableRow], recall: str) -> str:
    """Adaptive recall on the slices that are no column's value; the others and all intervals are in ablation.json."""
    pieces = [piece for piece in rows[0].queries if "=" not in piece and piece != ALL]
    text = f"## {recall} adaptive by slice (queries), and the difference to base\n\n" if pieces else ""
    for judged in (False, True):
        shown = [piece for piece in pieces if piece.startswith(JUDGED) == judged]
        if shown:
            head = ["variant", *(f"{cell(piece)} ({rows[0].queries[piece]:,})" for piece in shown)]
            lines = [[cell(row.variant.name), *(_short(row, piece, recall) for piece in shown)] for row in rows]
            text += table(head, lines) + "\n"
    return text


def _short(row: TableRow, piece: str, recall: str) -> str:
    value, interval = row.figures[piece, ADAPTIVE, recall].value, row.difference.get(piece)
    if interval is None:
        return f"{value:.3f}"
    difference = f"{interval.value:+.3f}"
    return f"{value:.3f} ({f'**{difference}**' if _significant(interval) else difference})"


def _variant_table(rows: Sequence[TableRow], plan: Plan) -> str:
    lines = []
    for row in rows:
        changes = ", ".join(f"{key}={value}" for key, value in row.variant.changes.items())
        codes = ", ".join(dict.fromkeys(seed.code for seed in row.seeds))
        lines.append([cell(part) for part in (row.variant.name, changes, row.variant.note, codes)])
    text = "## What each variant changes\n\n" + table(("variant", "settings", "note", "code"), lines)
    waiting = [v.name for v in plan.variants if v.name not in {row.variant.name for row in rows}]
    if waiting:
        text += f"\nNot trained yet: {', '.join(map(cell, waiting))}.\n"
    if plan.left_out:
        reasons = (f"- {cell(name)}: {cell(reason)}" for name, reason in plan.left_out)
        text += "\nBuilt-in variants left out:\n\n" + "\n".join(reasons) + "\n"
    return text


def _facts(plan: Plan, dataset: Dataset, rows: Sequence[TableRow]) -> list[tuple[str, object]]:
    counts, options = dataset.manifest.counts, plan.settings.ablate
    words = ["smar", *sys.argv[1:]]
    return [
        ("command of the last rows", shlex.join(words)),
        ("code", ", ".join(dict.fromkeys(seed.code for row in rows for seed in row.seeds))),
        ("dataset", f"{dataset.path}, {dataset.digest[:12]}"),
        ("items", f"{counts['items']:,}"),
        ("training pairs", f"{counts['pairs_train']:,}"),
        ("measured on", f"clicks of the {options.evaluate_on} period"),
        ("seeds", ", ".join(map(str, options.seeds))),
        ("machine", cpu_model()),
        ("torch", f"{torch.__version__}, 1 thread a variant" + (", GPU" if torch.cuda.is_available() else "")),
    ]


def cpu_model() -> str:
    """The processor's name as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _as_json(row: TableRow) -> dict[str, object]:
    metrics = [
        {"slice": piece, "mode": mode, "metric": metric, **vars(interval), "queries": row.queries[piece]}
        for (piece, mode, metric), interval in row.figures.items()
    ]
    return {
        "variant": row.variant.name,
        "note": row.variant.note,
        "curve": row.variant.curve,
        "changes": dict(row.variant.changes),
        "spread": row.spread,
        "seeds": [seed.model_dump(exclude={"recall", "key", "queries_sha256"}) for seed in row.seeds],
        "metrics": metrics,
        "difference": [{"slice": piece, **vars(interval)} for piece, interval in row.difference.items()],
    }


def print_rows(rows: Sequence[TableRow], plan: Plan) -> None:
    """Print recall on all queries and the difference to the base on standard output."""
    recall = metric_names(plan.settings.evaluate.k)[0]
    table = Table(box=None, pad_edge=False)
    table.add_column("variant")
    for name in (recall, "to base", "CPU s"):
        table.add_column(name, justify="right")
    for row in rows:
        figure = row.figures[ALL, ADAPTIVE, recall]
        plain = _difference(row, ALL).replace("**", "")
        table.add_row(row.variant.name, f"{figure.value:.3f}", plain, f"{row.cpu_seconds:,.0f}")
    Console().print(table, markup=False)
