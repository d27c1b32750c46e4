"""tables.csv, every figure and comparison as one line each, and tables.tex, the main tables for a paper."""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from smar.core.files import atomic
from smar.evaluation.findings import Findings, label
from smar.evaluation.measure import MetricRow
from smar.evaluation.slices import ALL

COLUMNS = (
    *("system", "baseline", "slice", "metric", "value", "low", "high", "sd", "seeds", "n", "p", "p_holm", "control"),
)
_SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


def write_csv(path: Path, findings: Findings) -> None:
    """One line a figure, then one a comparison (`baseline` is named, `value` the difference); docs/evaluation.md."""
    with atomic(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_lines(findings))


def _lines(findings: Findings) -> Iterator[dict[str, object]]:
    shared = ("slice", "metric", "value", "low", "high")
    for row in findings.rows:
        fields = {name: getattr(row, name) for name in (*shared, "sd", "seeds")}
        yield {"system": row.model, **fields, "n": row.queries, "control": int(row.model in findings.controls)}
    for pair in findings.comparisons:
        fields = {name: getattr(pair, name) for name in ("baseline", *shared, "p", "p_holm")}
        yield {"system": pair.model, **fields, "n": pair.queries, "control": int(pair.baseline in findings.controls)}


def escape(text: str) -> str:
    """Text as LaTeX sets it, white space as one blank."""
    return "".join(_SIGNS.get(sign, sign) for sign in re.sub(r"\s+", " ", text))


def write_tex(path: Path, findings: Findings) -> None:
    """Two tables of booktabs: every metric on all queries, and recall on the slices that are no column's value."""
    slices = [name for name in findings.slices if "=" not in name]
    left = len(findings.slices) - len(slices)
    head = [
        "% \\usepackage{booktabs}, and with pdfTeX before 2018 \\usepackage[utf8]{inputenc}",
        *([f"% {left} slices are in tables.csv only, those of columns' values"] if left else []),
    ]
    metrics = list(dict.fromkeys(row.metric for row in findings.rows if row.slice == ALL))
    queries = f"All {findings.slices[ALL]:,} queries"
    tables = [
        _table(findings, queries, [(ALL, metric, metric) for metric in metrics], "metrics"),
        _table(
            *(findings, f"{findings.recall} by slice (queries)"),
            [(name, findings.recall, f"{name.replace('_', ' ')} ({findings.slices[name]:,})") for name in slices],
            "slices",
        ),
    ]
    with atomic(path) as partial:
        partial.write_text("\n".join([*head, "", *tables]), encoding="utf-8")


def _table(findings: Findings, what: str, columns: Sequence[tuple[str, str, str]], name: str) -> str:
    """Models down, (slice, metric, head) across."""
    marks = {(row.baseline, row.slice, row.metric) for row in findings.comparisons if row.significant}
    lines = [["", *(escape(head) for _, _, head in columns)]]
    for model in findings.models:
        cells = []
        for piece, metric, _ in columns:
            dagger = r"$^{\dagger}$" if (model, piece, metric) in marks else ""
            cells.append(_figure(findings.found[model, piece, metric]) + dagger)
        lines.append([escape(label(model)), *cells])
    rows = [" & ".join(line) + r" \\" for line in lines]
    caption = ". ".join(filter(None, [escape(what), escape(findings.facts.note), _legend(findings, marks)]))
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{caption}.}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _figure(row: MetricRow) -> str:
    return f"{row.value:.3f}" + (rf" $\pm$ {row.sd:.3f}" if row.sd is not None else "")


def _legend(findings: Findings, marks: set[tuple[str, str, str]]) -> str:
    texts = []
    if findings.seeds:
        texts.append(r"$\pm$: sample standard deviation over seeds")
    if marks:
        texts.append(
            rf"$\dagger$: differs from {escape(label(findings.own))}, paired randomisation test over queries, "
            r"$p < 0.05$ after Holm's correction"
        )
    return "; ".join(texts)
