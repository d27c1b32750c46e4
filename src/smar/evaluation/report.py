"""The report folder: metrics.json and tables.csv for programs, tables.tex, report.md and charts for people."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from smar.core.errors import InputError
from smar.core.files import atomic, write_json
from smar.evaluation import sections
from smar.evaluation.bootstrap import Interval
from smar.evaluation.charts import category_chart, gate_chart, recall_chart
from smar.evaluation.findings import Findings
from smar.evaluation.measure import MetricRow
from smar.evaluation.slices import ALL
from smar.evaluation.table_files import write_csv, write_tex

PARTS = (
    sections.head,
    sections.summary,
    sections.by_slice,
    sections.significance,
    sections.harm,
    sections.seeds,
    sections.all_metrics,
    sections.categories,
    sections.gates,
    sections.routed,
    sections.controls,
    sections.examples,
)
"""Sections of report.md in order; how to read it comes last."""


def refuse_foreign(out: Path) -> None:
    """Raise InputError where `out` has a folder that a report would replace and holds no earlier report."""
    for name in ("pictures", "runs", "tables.csv", "tables.tex"):
        if (out / name).exists() and not (out / "metrics.json").is_file():
            raise InputError(f"{out / name} is there, but {out} is no report: name a new --out, or remove it first.")


def write_report(out: Path, findings: Findings) -> None:
    """Write metrics.json, tables, report.md and its charts into the folder `out`.

    recall-by-slice.png is always there, gate.png with a gate, categories.png with a slice column to draw.

    Args:
        out: made if missing; files of an earlier report are replaced.
        findings: the content.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "metrics.json", list(metric_rows(findings)))
    write_csv(out / "tables.csv", findings)
    write_tex(out / "tables.tex", findings)
    recall, note, shown = findings.recall, findings.facts.note, set(findings.models)
    with atomic(out / "recall-by-slice.png") as partial:
        recall_chart(partial, [row for row in findings.rows if row.model in shown], recall, note)
    for name in ("gate.png", "categories.png"):
        (out / name).unlink(missing_ok=True)
    if findings.gates:
        with atomic(out / "gate.png") as partial:
            gate_chart(partial, findings.gates[0], findings.facts.needs_image, note)
    if gains := findings.gains():
        with atomic(out / "categories.png") as partial:
            category_chart(partial, gains, findings.routed_shares, note)
    text = [part(findings) for part in PARTS]
    with atomic(out / "report.md") as partial:
        partial.write_text("\n".join([*filter(None, text), sections.HOW]), encoding="utf-8")


def metric_rows(findings: Findings) -> Iterator[dict[str, object]]:
    """The rows of metrics.json; docs/evaluation.md has the schema.

    Figures come first, then comparisons (model "A - B", with p and p_holm), then the gates' routed shares and AUC.
    """
    yield from (_figure(row) for row in findings.rows)
    for row in findings.comparisons:
        fields = asdict(row)
        fields["model"] = f"{row.model} - {fields.pop('baseline')}"
        yield fields
    for gate in findings.gates:
        shares = [("routed", name, Interval(share, share, share)) for name, share in gate.routed.items()]
        for metric, name, found in [*shares, *([("gate AUC", ALL, gate.auc)] if gate.auc else [])]:
            queries = gate.known if metric == "gate AUC" else findings.slices[name]
            yield _figure(MetricRow(gate.model, name, metric, found.value, found.low, found.high, queries))


def _figure(row: MetricRow) -> dict[str, object]:
    """The row's fields; `seeds` and `sd` where there are several."""
    return {name: value for name, value in asdict(row).items() if row.seeds > 1 or name not in ("seeds", "sd")}
