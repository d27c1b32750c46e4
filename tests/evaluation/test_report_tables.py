"""tables.csv and tables.tex from findings, per-query.parquet from `measure`."""

import csv
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from smar.core.sections.evaluation import EvaluateSettings
from smar.evaluation.findings import Facts, Findings
from smar.evaluation.hidden import Hidden
from smar.evaluation.measure import Family, Measured, measure
from smar.evaluation.metrics import Relevance, f1
from smar.evaluation.per_query import per_query_file
from smar.evaluation.slices import Slice
from smar.evaluation.table_files import escape, write_csv, write_tex

QUERIES, ITEMS, K = 30, 60, 5
SEEDS = {"our_run (3 seeds)": ("a_1", "a_2", "a_3")}
TEXTS = [f"query {number}" for number in range(QUERIES)]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Measured, Path]:
    rng = np.random.default_rng(0)
    pairs = [(q, item) for q in range(QUERIES) for item in rng.permutation(ITEMS)[:4]]
    relevance = Relevance.from_pairs(*zip(*pairs, strict=True), rng.integers(1, 4, len(pairs)), queries=QUERIES)
    truth = np.zeros((QUERIES, ITEMS))
    truth[relevance.query, relevance.items] = 1
    names = ("b_m25", "a_1", "a_2", "a_3")
    rankings = {m: np.argsort(-(truth * n + rng.normal(size=truth.shape)))[:, :20] for n, m in enumerate(names)}
    masks = {"all": relevance.items >= 0, "cold_items": relevance.items % 3 == 0, "type=50% _off_": relevance.query < 9}
    slices = [Slice(name, mask) for name, mask in masks.items()]
    hidden = Hidden(np.array([0, 1, 5]), {m: rng.integers(1, 9, 3) for m in rankings})
    path = tmp_path_factory.mktemp("tables") / "per-query.parquet"
    clicks = pa.table(
        {"query": ["query 0", "query 0", "query 7", "other"], "clicks": pa.array([2, 3, 1, 9], pa.int32())}
    )
    settings = EvaluateSettings(k=K, bootstrap=100)
    families = [Family(*SEEDS, ["b_m25"])]
    with per_query_file(path, TEXTS, K, clicks) as sink:
        return measure(rankings, relevance, slices, settings, families, hidden, means=SEEDS, sink=sink), path


def findings(measured: Measured) -> Findings:
    return Findings(
        measured.rows, measured.comparisons, Facts("100 % made_up & {odd}"), own=next(iter(SEEDS)), seeds=SEEDS
    )


def test_a_row_of_seeds_is_their_mean_with_its_deviation(measured: tuple[Measured, Path]) -> None:
    rows = {(row.model, row.slice, row.metric): row for row in measured[0].rows}
    assert [*dict.fromkeys(row.model for row in measured[0].rows)] == ["b_m25", *SEEDS, "a_1", "a_2", "a_3"]
    for (model, piece, metric), row in rows.items():
        if model in SEEDS:
            values = [rows[member, piece, metric].value for member in SEEDS[model]]
            assert (row.value, row.sd) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
            assert (row.seeds, row.low <= row.value <= row.high) == (3, True)
        else:
            assert (row.seeds, row.sd) == (1, None)
    assert (next(iter(SEEDS)), "hidden", f"R@{K}") in rows


def test_seeds_are_compared_by_each_querys_mean(measured: tuple[Measured, Path]) -> None:
    from smar.evaluation.significance import flips_for, sign_flip

    table = pq.read_table(measured[1]).to_pylist()
    recall = {
        name: [r[f"R@{K}"] for r in table if (r["system"], r["slice"]) == (name, "all")]
        for name in ("a_1", "a_2", "a_3", "b_m25")
    }
    mean = np.mean([recall[name] for name in SEEDS["our_run (3 seeds)"]], axis=0)
    first = measured[0].comparisons[0]
    difference = mean - np.array(recall["b_m25"])
    assert first.value == pytest.approx(difference.mean())
    assert first.p == sign_flip(difference[:, None], flips_for(4))[0]


def test_csv_has_every_figure_and_comparison_whole(measured: tuple[Measured, Path], tmp_path: Path) -> None:
    write_csv(tmp_path / "tables.csv", findings(measured[0]))
    with (tmp_path / "tables.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(measured[0].rows) + len(measured[0].comparisons)
    read = {(x["system"], x["baseline"], x["slice"], x["metric"]): x for x in lines}
    assert len(read) == len(lines)
    for row in measured[0].rows:
        line = read[row.model, "", row.slice, row.metric]
        assert tuple(float(line[name]) for name in ("value", "low", "high")) == (row.value, row.low, row.high)
        assert (int(line["n"]), int(line["seeds"]), line["p"]) == (row.queries, row.seeds, "")
        assert line["sd"] == ("" if row.sd is None else repr(row.sd))
    for pair in measured[0].comparisons:
        line = read[pair.model, pair.baseline, pair.slice, pair.metric]
        assert tuple(float(line[x]) for x in ("value", "p", "p_holm")) == (pair.value, pair.p, pair.p_holm)


def test_tex_is_well_formed(measured: tuple[Measured, Path], tmp_path: Path) -> None:
    """Checked once with plasTeX, too; here: braces, columns, no bare special sign."""
    write_tex(tmp_path / "tables.tex", findings(measured[0]))
    text = (tmp_path / "tables.tex").read_text(encoding="utf-8")
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert "1 slices are in tables.csv only, those of columns' values" in text
    plain = re.sub(r"\\[&%$#_{}]", "", body)
    assert plain.count("$") % 2 == 0
    outside = re.sub(r"\$[^$]*\$|\\label\{[^}]*\}", "", plain)
    assert not re.search(r"[_^%#~<>|]", outside)
    depth = 0
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    tables = re.findall(r"\\begin\{tabular\}\{(l r*|lr*)\}(.*?)\\end\{tabular\}", plain, re.DOTALL)
    assert len(tables) == body.count(r"\begin{table}") == body.count(r"\end{table}") == 2
    for columns, inside in tables:
        assert [part for part in ("toprule", "midrule", "bottomrule") if f"\\{part}" in inside]
        rows = [line for line in inside.splitlines() if line and not line.endswith("rule")]
        assert len(rows) == 1 + 2  # the head, bm25, the seeds' row
        for line in rows:
            assert line.endswith(r" \\")
            assert line.count("&") == len(columns) - 1
    assert r"100 \% made\_up \& \{odd\}" in body
    assert r"our\_run (3 seeds)" in body
    assert r" $\pm$ " in body


def test_special_signs_are_set_as_they_are() -> None:
    assert escape("a_b & 50% #1 ~x^2 \\ {y} $") == (
        r"a\_b \& 50\% \#1 \textasciitilde{}x\textasciicircum{}2 \textbackslash{} \{y\} \$"
    )


def test_means_of_the_queries_are_the_reports_figures(measured: tuple[Measured, Path]) -> None:
    table = pq.read_table(measured[1])
    figures = {(row.model, row.slice, row.metric): row for row in measured[0].rows if row.model not in SEEDS}
    for (model, piece, metric), row in figures.items():
        mask = pc.and_(pc.equal(table["system"], model), pc.equal(table["slice"], piece))
        part = table.filter(mask)
        assert len(part) == row.queries
        if metric.startswith("F1"):
            got = f1(np.mean(part[f"P@{K}"].to_numpy()), np.mean(part[f"R@{K}"].to_numpy()))
        else:
            got = pc.mean(part["RR" if metric == "MRR" else metric]).as_py()
        assert got == pytest.approx(row.value)
    hidden = table.filter(pc.equal(table["slice"], "hidden"))
    assert hidden[f"P@{K}"].null_count == len(hidden)
    clicks = dict(zip(table["query"].to_pylist(), table["clicks"].to_pylist(), strict=True))
    assert (clicks["query 0"], clicks["query 7"], clicks["query 1"]) == (5, 1, None)
    assert all(
        TEXTS[topic] == query for topic, query in zip(*(table[n].to_pylist() for n in ("topic", "query")), strict=True)
    )
