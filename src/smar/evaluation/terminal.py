"""The report's tables on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from smar.evaluation.findings import KEY_SLICES, Findings
from smar.evaluation.markdown import figure
from smar.evaluation.slices import ALL


def print_table(findings: Findings, console: Console | None = None) -> None:
    """Print recall by slice and model, every metric on all queries, and the controls' recall, as plain tables.

    Args:
        findings: what was measured.
        console: standard output when not given.
    """
    console = console or Console()
    recall, found, models = findings.recall, findings.found, findings.models
    slices = _table(f"{recall} by slice", ["slice", "queries", *models])
    for name, queries in findings.slices.items():
        slices.add_row(name, f"{queries:,}", *(figure(found[model, name, recall]) for model in models))
    metrics = _table("all queries", ["metric", *models])
    for metric in dict.fromkeys(row.metric for row in findings.rows):
        metrics.add_row(metric, *(figure(found[model, ALL, metric]) for model in models))
    tables = [slices, metrics]
    if findings.controls:
        key = {text: name for name, text in KEY_SLICES.items() if name in findings.slices}
        tables.append(_table(f"{recall} of the controls", ["control", *key]))
        for model in filter(findings.controls.__contains__, findings.shown):
            tables[-1].add_row(model, *(figure(found[model, name, recall]) for name in key.values()))
    console.print(*tables, sep="\n\n", markup=False)


def key_figures(findings: Findings) -> list[tuple[str, object]]:
    """Summary lines: recall of each model over all queries, on cold items and on hidden ones."""
    recall, found = findings.recall, findings.found
    key = {name: text for name, text in KEY_SLICES.items() if name in findings.slices}
    lines: list[tuple[str, object]] = []
    for model in findings.models:
        shown = ", ".join(f"{text} {figure(found[model, name, recall])}" for name, text in key.items())
        lines.append((f"{recall} {model}", shown))
    return lines


def _table(title: str, columns: Sequence[str]) -> Table:
    """An empty table: the first column to the left, the others to the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left", no_wrap=not number)
    return table
