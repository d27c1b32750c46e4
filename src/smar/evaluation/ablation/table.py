"""Rows of finished variants -> ablation.md, ablation.json and charts."""

import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from smar.core.files import atomic, write_json
from smar.data.dataset import Dataset
from smar.evaluation.ablation.questions import JUDGED, MODES
from smar.evaluation.ablation.rows import ADAPTIVE, TableRow
from smar.evaluation.ablation.variants import Plan
from smar.evaluation.bootstrap import Interval
from smar.evaluation.charts import curve_chart, interval_chart
from smar.evaluation.markdown import cell, difference, p_value, ranged, table
from smar.evaluation.metrics import metric_names
from smar.evaluation.slices import ALL


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
- adaptive: the mixed score with the model's gate; two-way: the same without the share of words, where they have one.
  Without the gate: text and multimodal take one vector for all queries, random gate deals the gate's probabilities to
  the wrong queries. image: the picture's vector alone.
- [low, high] is the 95 % interval of a bootstrap over queries; differences are paired. p is of a paired randomisation
  test (signs flipped at random, two-sided), "corrected" is Holm's p over the variants' differences on all queries, and,
  in a family of its own, over their differences on every other slice. Bold: the corrected p is below 0.05.
- Both tell of chance in the queries, not of chance in training: several `ablate.seeds` show that. Of several seeds a
  query counts once, with its mean over them.
"""


def _curves(rows: Sequence[TableRow], recall: str) -> dict[str, list[tuple[float, Interval]]]:
    lines: dict[str, list[tuple[float, Interval]]] = {}
    for row in sorted(rows, key=lambda row: row.cpu_seconds):
        if row.variant.curve:
            point = (row.cpu_seconds, row.figures[ALL, ADAPTIVE, recall])
            lines.setdefault(row.variant.curve, []).append(point)
    return {name: points for name, points in lines.items() if len(points) > 1}


def _to_base(row: TableRow, piece: str) -> list[str]:
    """Difference to the base, its p, its corrected p."""
    found = row.difference.get(piece)
    return ["", "", ""] if found is None else [difference(found), p_value(found.p), p_value(found.p_holm)]


def _main_table(rows: Sequence[TableRow], recall: str) -> str:
    head = [
        "variant",
        f"{recall} adaptive",
        "to base",
        "p",
        "p corrected",
        *MODES[1:],
        "steps",
        "pairs",
        "CPU s",
        "parameters",
    ]
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
            *_to_base(row, ALL),
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
    text = f"## {recall} adaptive by slice (queries), and the difference to base; its corrected p\n\n" if pieces else ""
    for judged in (False, True):
        shown = [piece for piece in pieces if piece.startswith(JUDGED) == judged]
        if shown:
            head = ["variant", *(f"{cell(piece)} ({rows[0].queries[piece]:,})" for piece in shown)]
            lines = [[cell(row.variant.name), *(_short(row, piece, recall) for piece in shown)] for row in rows]
            text += table(head, lines) + "\n"
    return text


def _short(row: TableRow, piece: str, recall: str) -> str:
    value, found = row.figures[piece, ADAPTIVE, recall].value, row.difference.get(piece)
    if found is None:
        return f"{value:.3f}"
    text = f"{found.value:+.3f}"
    return f"{value:.3f} ({f'**{text}**' if found.significant else text}; {p_value(found.p_holm)})"


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
        "difference": [
            {name: getattr(found, name) for name in ("slice", "value", "low", "high", "p", "p_holm")}
            for found in row.difference.values()
        ],
    }


def print_rows(rows: Sequence[TableRow], plan: Plan) -> None:
    """Print recall on all queries and the difference to the base, with its p, on standard output."""
    recall = metric_names(plan.settings.evaluate.k)[0]
    table = Table(box=None, pad_edge=False)
    table.add_column("variant")
    for name in (recall, "to base", "p", "p corrected", "CPU s"):
        table.add_column(name, justify="right")
    for row in rows:
        figure = row.figures[ALL, ADAPTIVE, recall]
        against = [text.replace("**", "") for text in _to_base(row, ALL)]
        table.add_row(row.variant.name, f"{figure.value:.3f}", *against, f"{row.cpu_seconds:,.0f}")
    Console().print(table, markup=False)
