"""The evaluation report: metrics.json for programs, report.md and pictures for people, a terminal table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from smar.evaluation.charts import LABELS, gate_chart, recall_chart
from smar.evaluation.examples import Example, Gate
from smar.evaluation.measure import DifferenceRow, MetricRow
from smar.evaluation.slices import ALL
from smar.files import atomic, write_json

_HOW = """## How to read this

- Every model ranks the whole catalogue for every test query; clicked or judged items are the relevant ones.
- R = share of a query's relevant items in the top k, P = share of the top k that is relevant, both averaged
  over queries; F1 is the harmonic mean of these two averages; nDCG has gains 2^grade - 1; MRR is the mean
  reciprocal rank of the first relevant item.
- [low, high] is the 95 % interval of a bootstrap over queries. Differences are paired: both models see the
  same resampled queries. A difference in bold has an interval without 0.
- `cold_items` counts only items never clicked in training, `new_pairs` only query-item pairs never clicked in
  training, `unseen_queries` only queries that training does not have. `needs_image`: the titles of most
  fitting items leave out something that is asked and that the picture shows; `words_suffice`: no title does.
  `column=value`: most of the query's relevant items have that value.
- The intervals tell of chance in the queries, not of chance in training: another seed trains another model.
"""

_NAMED = 30
"""How many left out slices a report names."""


@dataclass(frozen=True)
class Facts:
    """What the report says of its making.

    note: what kind of data this is, for example "generated shop, simulated log" (empty: the user's own).
    rows: (what, value) pairs, counts and settings; training_seconds: model -> seconds.
    needs_image: from this share on a query counts as needing the picture.
    """

    note: str = ""
    rows: Sequence[tuple[str, object]] = ()
    training_seconds: Mapping[str, float] = field(default_factory=dict)
    needs_image: float = 0.5


def write_report(
    out: Path,
    rows: Sequence[MetricRow],
    differences: Sequence[DifferenceRow],
    facts: Facts,
    examples: Sequence[Example] = (),
    left_out: Sequence[tuple[str, int]] = (),
    gate: Gate | None = None,
) -> None:
    """Write metrics.json, report.md, recall-by-slice.png and, with a gate, gate.png into the folder `out`.

    Args:
        out: made if missing; files of an earlier report are replaced.
        rows: of `measure`, slice `all` among them.
        differences: paired differences of `measure`; may be empty.
        facts: note, counts and training seconds.
        examples: queries with their first hits.
        left_out: (slice, queries) that were too small.
        gate: the gate on the test queries; None for a run without one.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "metrics.json", [asdict(row) for row in rows])
    recall = recall_name(rows)
    with atomic(out / "recall-by-slice.png") as partial:
        recall_chart(partial, rows, recall, facts.note)
    if gate is not None:
        with atomic(out / "gate.png") as partial:
            gate_chart(partial, gate, facts.needs_image, facts.note)
    parts = [
        _head(facts),
        _slice_section(rows, differences, recall, left_out),
        _all_section(rows),
        _gate_section(gate),
        _example_section(examples),
        _HOW,
    ]
    with atomic(out / "report.md") as partial:
        partial.write_text("\n".join(part for part in parts if part), encoding="utf-8")


def recall_name(rows: Sequence[MetricRow]) -> str:
    """The recall metric's name in these rows, "R@50" for k = 50."""
    return next(row.metric for row in rows if row.metric.startswith("R@"))


def print_table(rows: Sequence[MetricRow], console: Console | None = None) -> None:
    """Print recall by slice and model, then every metric on all queries, as plain tables.

    Args:
        rows: of `measure`.
        console: standard output when not given.
    """
    console = console or Console()
    recall = recall_name(rows)
    models = _models(rows)
    table = Table(title=f"{recall} by slice", title_justify="left", box=None, pad_edge=False)
    metrics = Table(title="all queries", title_justify="left", box=None, pad_edge=False)
    table.add_column("slice")
    table.add_column("queries", justify="right")
    metrics.add_column("metric")
    for model in models:
        table.add_column(model, justify="right")
        metrics.add_column(model, justify="right")
    found = _by_key(rows)
    for name, queries in _slices(rows).items():
        table.add_row(name, f"{queries:,}", *(f"{found[model, name, recall].value:.3f}" for model in models))
    for metric in dict.fromkeys(row.metric for row in rows):
        metrics.add_row(metric, *(f"{found[model, ALL, metric].value:.3f}" for model in models))
    console.print(table, metrics, sep="\n\n", markup=False)


def _models(rows: Sequence[MetricRow]) -> list[str]:
    return list(dict.fromkeys(row.model for row in rows))


def _slices(rows: Sequence[MetricRow]) -> dict[str, int]:
    return {row.slice: row.queries for row in rows}


def _by_key(rows: Sequence[MetricRow]) -> dict[tuple[str, str, str], MetricRow]:
    return {(row.model, row.slice, row.metric): row for row in rows}


def _cell(text: object) -> str:
    """Text of the user's data inside a Markdown table or list."""
    plain = " ".join(str(text).split())
    for sign in "\\|`*<[":
        plain = plain.replace(sign, "\\" + sign)
    return plain


def _table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A Markdown table: the first column to the left, the others to the right."""
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in (head, ruler, *lines)) + "\n"


def _ranged(row: MetricRow | DifferenceRow, sign: str = "") -> str:
    return f"{row.value:{sign}.3f} [{row.low:{sign}.3f}, {row.high:{sign}.3f}]"


def _difference(row: DifferenceRow) -> str:
    text = _ranged(row, "+")
    return f"**{text}**" if row.significant else text


def _head(facts: Facts) -> str:
    note = f"> **{_cell(facts.note)}**\n\n" if facts.note else ""
    rows = [(what, f"{value:,}" if isinstance(value, int) else _cell(value)) for what, value in facts.rows]
    rows += [(f"training seconds, {model}", f"{took:,.0f}") for model, took in facts.training_seconds.items()]
    return f"# Evaluation\n\n{note}" + (_table(("", "value"), rows) if rows else "")


def _slice_section(
    rows: Sequence[MetricRow],
    differences: Sequence[DifferenceRow],
    recall: str,
    left_out: Sequence[tuple[str, int]],
) -> str:
    models, found = _models(rows), _by_key(rows)
    paired = {row.slice: row for row in differences if row.metric == recall}
    head = ["slice", "queries", *(LABELS.get(model, model) for model in models)]
    if paired:
        one = next(iter(paired.values()))
        head.append(f"{one.model} - {one.baseline}")
    lines = []
    for name, queries in _slices(rows).items():
        line = [_cell(name), f"{queries:,}", *(_ranged(found[model, name, recall]) for model in models)]
        lines.append([*line, _difference(paired[name])] if name in paired else line)
    text = f"## {recall} by slice\n\n{_table(head, lines)}\n![{recall} by slice](recall-by-slice.png)\n"
    if left_out:
        names = ", ".join(f"{_cell(name)} ({queries})" for name, queries in left_out[:_NAMED])
        more = f", and {len(left_out) - _NAMED:,} more" if len(left_out) > _NAMED else ""
        text += f"\nLeft out, too few queries: {names}{more}.\n"
    return text


def _all_section(rows: Sequence[MetricRow]) -> str:
    models, found = _models(rows), _by_key(rows)
    lines = [
        (metric, *(_ranged(found[model, ALL, metric]) for model in models))
        for metric in dict.fromkeys(row.metric for row in rows)
    ]
    return "## All test queries\n\n" + _table(("metric", *(LABELS.get(m, m) for m in models)), lines)


def _gate_section(gate: Gate | None) -> str:
    if gate is None:
        return ""
    lines = [(_cell(name), f"{share:.1%}") for name, share in gate.routed.items()]
    head = ("slice", f"routed to pictures (p > {gate.threshold:g})")
    return f"## What the gate decides\n\n{_table(head, lines)}\n![gate](gate.png)\n"


def _example_section(examples: Sequence[Example]) -> str:
    if not examples:
        return ""
    parts = ["## Examples\n\nLargest gains of recall, then largest losses. ✓ = clicked or judged relevant.\n"]
    for example in examples:
        gate = "" if example.probability is None else f" (image probability {example.probability:.2f})"
        parts.append(f"### {_cell(example.query)}{gate}\n")
        parts.append(
            _table(("model", "recall", "first hits"), _example_lines(example)).replace("---: |\n", "--- |\n", 1)
        )
    return "\n".join(parts)


def _example_lines(example: Example) -> list[tuple[str, str, str]]:
    return [
        (
            LABELS.get(model, model),
            f"{example.recall[model]:.2f}",
            "<br>".join(f"{'✓' if hit.relevant else '·'} {_cell(hit.title)}" for hit in hits),
        )
        for model, hits in example.lists.items()
    ]
