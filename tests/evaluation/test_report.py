"""The report: metrics.json as promised, Markdown that survives any title, pictures that are pictures."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from smar.core.sections.evaluation import EvaluateSettings
from smar.evaluation.charts import SHOWN_CATEGORIES, SHOWN_SLICES, chosen_slices
from smar.evaluation.examples import pick_examples, pick_routed
from smar.evaluation.findings import Facts, Findings
from smar.evaluation.gate_quality import judge_gate
from smar.evaluation.hidden import Hidden
from smar.evaluation.measure import ComparisonRow, Family, Measured, MetricRow, measure
from smar.evaluation.metrics import Relevance, metric_names, per_query
from smar.evaluation.report import write_report
from smar.evaluation.sections import harm
from smar.evaluation.significance import flips_for, sign_flip
from smar.evaluation.slices import Slice
from smar.evaluation.terminal import key_figures, print_table

QUERIES, ITEMS, K = 40, 120, 5
MODELS = ["dpsr", "dpsr-i", "multimodal", "smar"]
SETTINGS = EvaluateSettings(k=K, bootstrap=200)
FAMILIES = [Family("smar", ["dpsr", "multimodal"]), Family("smar", ["dpsr-i"])]


@pytest.fixture(scope="module")
def relevance() -> Relevance:
    rng = np.random.default_rng(0)
    pairs = [(q, item) for q in range(QUERIES) for item in rng.permutation(ITEMS)[:4]]
    return Relevance.from_pairs(*zip(*pairs, strict=True), [1] * len(pairs), queries=QUERIES)


@pytest.fixture(scope="module")
def rankings(relevance: Relevance) -> dict[str, np.ndarray]:
    """The later the model, the more it knows of the truth."""
    rng = np.random.default_rng(1)
    truth = np.zeros((QUERIES, ITEMS))
    truth[relevance.query, relevance.items] = 1
    return {m: np.argsort(-(truth * n + rng.normal(size=truth.shape)))[:, :20] for n, m in enumerate(MODELS)}


@pytest.fixture(scope="module")
def slices(relevance: Relevance) -> list[Slice]:
    return [
        Slice("all", np.ones(len(relevance.items), dtype=bool)),
        Slice("half|odd", relevance.query % 2 == 1),
    ]


@pytest.fixture(scope="module")
def measured(rankings: dict[str, np.ndarray], relevance: Relevance, slices: list[Slice]) -> Measured:
    return measure(rankings, relevance, slices, SETTINGS, FAMILIES)


def test_measure_gives_a_row_per_model_slice_and_metric(
    measured: Measured, rankings: dict[str, np.ndarray], relevance: Relevance
) -> None:
    assert len(measured.rows) == len(MODELS) * 2 * 5
    assert {row.metric for row in measured.rows} == {*metric_names(K)}
    assert all(row.low <= row.value <= row.high for row in measured.rows)
    assert {row.slice: row.queries for row in measured.rows} == {"all": 40, "half|odd": 20}
    want = per_query(rankings["smar"], relevance, K)
    got = {(r.model, r.slice, r.metric): r.value for r in measured.rows}
    assert got["smar", "all", f"R@{K}"] == pytest.approx(want.recall.mean())
    p, r = want.precision.mean(), want.recall.mean()
    assert got["smar", "all", f"F1@{K}"] == pytest.approx(2 * p * r / (p + r))


def test_comparisons_are_paired_and_corrected_by_family(
    measured: Measured, rankings: dict[str, np.ndarray], relevance: Relevance
) -> None:
    rows = {(row.baseline, row.slice): row for row in measured.comparisons}
    assert [*rows] == [
        *((b, s) for s in ("all", "half|odd") for b in ("dpsr", "multimodal")),
        *(("dpsr-i", s) for s in ("all", "half|odd")),
    ]
    recall = {model: per_query(ranked, relevance, K).recall for model, ranked in rankings.items()}
    difference = recall["smar"] - recall["dpsr"]
    first = rows["dpsr", "all"]
    assert (first.model, first.metric, first.queries) == ("smar", f"R@{K}", QUERIES)
    assert first.value == pytest.approx(difference.mean())
    assert first.low < first.value < first.high
    assert first.p == sign_flip(difference[:, None], flips_for(4))[0]
    p = [rows[b, s].p for s in ("all", "half|odd") for b in ("dpsr", "multimodal")]
    assert first.p_holm == pytest.approx(min(4 * first.p, 1)) or first.p > min(p)
    assert first.significant
    alone = [rows["dpsr-i", s] for s in ("all", "half|odd")]
    assert min(row.p_holm for row in alone) == pytest.approx(2 * min(row.p for row in alone))


def test_one_model_alone_has_no_comparison(
    rankings: dict[str, np.ndarray], relevance: Relevance, slices: list[Slice]
) -> None:
    for families in ([], [Family("smar", [])]):
        got = measure({"smar": rankings["smar"]}, relevance, slices, SETTINGS, families)
        assert not got.comparisons
        assert len(got.rows) == 10


def test_hidden_items_make_a_slice_with_recall_only(
    rankings: dict[str, np.ndarray], relevance: Relevance, slices: list[Slice]
) -> None:
    pairs = np.array([0, 1, 5])  # two of query 0, one of query 1
    places = {model: np.array([1, K + 1, K]) if model == "smar" else np.array([9, 9, 9]) for model in MODELS}
    got = measure(rankings, relevance, slices, SETTINGS, FAMILIES, Hidden(pairs, places))
    rows = {row.model: row for row in got.rows if row.slice == "hidden"}
    assert {row.metric for row in rows.values()} == {f"R@{K}"}
    assert (rows["smar"].value, rows["dpsr"].value, rows["smar"].queries) == (0.75, 0, 2)
    assert next(row.value for row in got.comparisons if row.slice == "hidden") == 0.75


def write(
    out: Path, measured: Measured, rankings: dict[str, np.ndarray], relevance: Relevance, slices: list[Slice]
) -> str:
    titles = [f"Item {i} | <b>*bold*</b>\n[x]" for i in range(ITEMS)]
    queries = [f"query {i} `code`" for i in range(QUERIES)]
    p, truth = np.linspace(0, 1, QUERIES), (np.arange(QUERIES) % 2).astype(float)
    examples = pick_examples(queries, titles, rankings, relevance, K, ("smar", "dpsr"), p)
    recall = np.linspace(1, 0, QUERIES)
    findings = Findings(
        rows=measured.rows,
        comparisons=measured.comparisons,
        facts=Facts("generated shop, simulated log", [("items", 1234567)], {"smar": 61.4}),
        controls=frozenset(["dpsr-i"]),
        reference="dpsr",
        left_out=[("category=Hat", 3)],
        gates=[judge_gate("smar", p, 0.5, relevance, slices, truth, 0.5, 100)],
        examples=examples,
        routed=pick_routed(queries, p, recall, recall, np.arange(QUERIES), count=3),
        pictures={hit.item: f"pictures/{hit.item}.jpg" for hit in examples[0].lists["smar"]},
    )
    write_report(out, findings)
    return (out / "report.md").read_text(encoding="utf-8")


def test_the_report_folder(
    tmp_path: Path,
    measured: Measured,
    rankings: dict[str, np.ndarray],
    relevance: Relevance,
    slices: list[Slice],
) -> None:
    out = tmp_path / "a" / "report"
    text = write(out, measured, rankings, relevance, slices)
    listed = json.loads((out / "metrics.json").read_text())
    keys = ["model", "slice", "metric", "value", "low", "high", "queries"]
    comparisons = [row for row in listed if " - " in row["model"]]
    figures = [row for row in listed if " - " not in row["model"]]
    assert all(list(row) == keys for row in figures)
    assert [MetricRow(**row) for row in figures[: len(measured.rows)]] == measured.rows
    assert [row["metric"] for row in figures[len(measured.rows) :]] == ["routed", "routed", "gate AUC"]
    assert all(list(row) == [*keys, "p", "p_holm"] for row in comparisons)
    assert [row["model"] for row in comparisons] == [f"smar - {row.baseline}" for row in measured.comparisons]
    for words in (
        "generated shop, simulated log",
        "1,234,567",
        "training seconds, smar | 61",
        "category=Hat (3)",
    ):
        assert words in text
    assert "| half\\|odd | 20 |" in text
    assert "smar - dpsr" in text
    assert "| all | 50.0% |" in text
    assert "p corrected for 4 comparisons" in text
    assert "### smar minus its controls" in text
    assert "perfect): smar 0." in text
    assert "Queries of the highest image probability" in text
    assert "query 39 \\`code\\` | 1.000 | 0.00 |" in text
    assert text.count('<img src="pictures/') >= 5
    for name in ("recall-by-slice.png", "gate.png"):
        with Image.open(out / name) as picture:
            assert picture.format == "PNG"
            assert np.asarray(picture.convert("L")).std() > 5  # something is drawn
    assert not list(out.glob("*.partial"))


def test_tables_keep_their_columns_whatever_the_titles_hold(
    tmp_path: Path,
    measured: Measured,
    rankings: dict[str, np.ndarray],
    relevance: Relevance,
    slices: list[Slice],
) -> None:
    text = write(tmp_path, measured, rankings, relevance, slices)
    width = 0
    for line in text.splitlines():
        bars = line.replace("\\|", "").count("|")
        assert bars in ((0,) if not line.startswith("|") else (width or bars,)), line
        width = bars
    assert "<b>" not in text.replace("\\<", "")
    assert text.count("<") - text.count("\\<") == text.count("<img ") + text.count("<br>")


def test_a_run_without_gate_and_examples(tmp_path: Path, measured: Measured) -> None:
    (tmp_path / "gate.png").write_bytes(b"of an earlier report")
    write_report(tmp_path, Findings(measured.rows))
    text = (tmp_path / "report.md").read_text()
    assert "gate.png" not in text
    assert not (tmp_path / "gate.png").exists()
    assert "## Examples" not in text


def test_examples_are_the_largest_gains_then_losses(rankings: dict[str, np.ndarray], relevance: Relevance) -> None:
    queries, titles = [f"q{i}" for i in range(QUERIES)], [f"t{i}" for i in range(ITEMS)]
    got = pick_examples(queries, titles, rankings, relevance, K, ("smar", "dpsr"), count=3, shown=4)
    gains = [example.recall["smar"] - example.recall["dpsr"] for example in got]
    best = per_query(rankings["smar"], relevance, K).recall - per_query(rankings["dpsr"], relevance, K).recall
    assert gains[:3] == sorted(best, reverse=True)[:3]
    assert all(gain < 0 for gain in gains[3:])
    first = got[0]
    row = int(first.query[1:])
    wanted = {f"t{i}" for i in relevance.items[relevance.query == row]}
    assert all(hit.relevant == (hit.title in wanted) for hits in first.lists.values() for hit in hits)
    assert [hit.title for hit in first.lists["smar"]] == [f"t{i}" for i in rankings["smar"][row, :4]]
    assert [hit.item for hit in first.lists["smar"]] == rankings["smar"][row, :4].tolist()
    assert first.probability is None


def test_queries_at_the_ends_of_the_gate() -> None:
    p, rows = np.array([0.2, 0.9, 0.5, 0.1, 0.8, 0.99]), np.array([0, 1, 2, 3, 4])  # query 5 has no relevant item
    recall = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    high, low = pick_routed(list("abcdef"), p, recall, 2 * recall, rows, count=8)
    assert [(q.query, q.probability, q.text, q.multimodal) for q in high] == [("b", 0.9, 0.2, 0.4), ("e", 0.8, 0.5, 1)]
    assert [q.query for q in low] == ["d", "a"]


def test_categories_are_drawn_by_gain(tmp_path: Path) -> None:
    names = ["all", *(f"category=c|{i}" for i in range(SHOWN_CATEGORIES + 5))]
    rows = [MetricRow(model, name, "R@5", 0.5, 0.4, 0.6, 9) for model in ("smar", "dpsr") for name in names]
    values = np.random.default_rng(0).permutation(len(names)) / 50 - 0.3
    comparisons = [
        ComparisonRow("smar", "dpsr", n, "R@5", v, v - 0.1, v + 0.1, 9) for n, v in zip(names, values, strict=True)
    ]
    findings = Findings(rows, comparisons, reference="dpsr", categories="category")
    gains = findings.gains()
    assert [row.value for row in gains] == sorted(values[1:], reverse=True)
    assert Findings(rows, comparisons, reference="dpsr").gains() == []
    write_report(tmp_path, findings)
    with Image.open(tmp_path / "categories.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5
    text = (tmp_path / "report.md").read_text()
    assert "Where pictures help" in text
    assert "routed to pictures" not in text


def test_the_chart_shows_own_slices_and_the_largest_values() -> None:
    names = ["all", "cold_items", *(f"category={i}" for i in range(40))]
    rows = [MetricRow("smar", name, "R@50", 0.5, 0.4, 0.6, 10 + n) for n, name in enumerate(names)]
    shown = [name for name, _ in chosen_slices(rows)]
    assert len(shown) == SHOWN_SLICES
    assert shown[:2] == ["all", "cold_items"]
    assert shown[2:] == names[-(SHOWN_SLICES - 2) :]


def test_the_terminal_tables_and_the_summary(measured: Measured) -> None:
    text = io.StringIO()
    rows = [*measured.rows, *(MetricRow(m, "cold_items", f"R@{K}", 0.125, 0, 1, 20) for m in MODELS)]
    findings = Findings(rows, controls=frozenset(["dpsr-i"]))
    print_table(findings, Console(file=text, width=100))
    shown = text.getvalue()
    assert f"R@{K} by slice" in shown
    assert "half|odd" in shown
    assert f"{measured.rows[0].value:.3f}" in shown
    assert f"nDCG@{K}" in shown
    assert next(line.split() for line in shown.splitlines() if line.startswith("dpsr-i"))[-1] == "0.125"
    lines = dict(key_figures(findings))
    assert [*lines] == [f"R@{K} dpsr", f"R@{K} multimodal", f"R@{K} smar"]
    assert all("cold items 0.125" in str(line) for line in lines.values())


def test_harm_is_named(rankings: dict[str, np.ndarray], relevance: Relevance, slices: list[Slice]) -> None:
    def told(own: str, other: str, pictures: str, words: str) -> str:
        ranked = {own: rankings[own], other: rankings[other], "multimodal": rankings[pictures], "text": rankings[words]}
        families = [Family(own, [other]), Family("multimodal", ["text"])]
        found = measure(ranked, relevance, slices, SETTINGS, families)
        return harm(Findings(found.rows, found.comparisons, controls=frozenset(["text"]), own=own, reference=other))

    text = told("dpsr", "smar", "dpsr", "smar")
    assert "DPSR (words only) is significantly below:" in text
    assert "| all | SMAR (adaptive) | **-" in text
    assert "Pictures hurt (always multimodal minus always text) in all (-" in text
    assert "Pictures help (always multimodal minus always text) in no slice" in text
    text = told("smar", "dpsr", "smar", "dpsr")
    assert "No slice where SMAR (adaptive) is significantly below another model." in text
    assert "Pictures help (always multimodal minus always text) in all (+" in text
    assert "Pictures hurt (always multimodal minus always text) in no slice" in text
