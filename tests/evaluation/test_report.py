"""The report: metrics.json as promised, Markdown that survives any title, pictures that are pictures."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from smar.evaluation.charts import SHOWN_SLICES, chosen_slices
from smar.evaluation.examples import Gate, pick_examples, routed_shares
from smar.evaluation.measure import Measured, MetricRow, measure
from smar.evaluation.metrics import Relevance, metric_names, per_query
from smar.evaluation.report import Facts, print_table, write_report
from smar.evaluation.slices import Slice
from smar.settings import EvaluateSettings

QUERIES, ITEMS, K = 40, 120, 5
MODELS = ["dpsr", "dpsr-i", "multimodal", "smar"]
SETTINGS = EvaluateSettings(k=K, bootstrap=200)


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
    return measure(rankings, relevance, slices, SETTINGS)


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
    first = measured.differences[0]
    assert (first.model, first.baseline, first.slice) == ("smar", "dpsr", "all")
    assert first.value == pytest.approx(got["smar", "all", f"R@{K}"] - got["dpsr", "all", f"R@{K}"])
    assert first.significant


def test_one_model_alone_has_no_difference(
    rankings: dict[str, np.ndarray], relevance: Relevance, slices: list[Slice]
) -> None:
    got = measure({"smar": rankings["smar"]}, relevance, slices, SETTINGS)
    assert not got.differences
    assert len(got.rows) == 10


def write(
    out: Path, measured: Measured, rankings: dict[str, np.ndarray], relevance: Relevance, slices: list[Slice]
) -> str:
    titles = [f"Item {i} | <b>*bold*</b>\n[x]" for i in range(ITEMS)]
    queries = [f"query {i} `code`" for i in range(QUERIES)]
    probability = np.linspace(0, 1, QUERIES)
    examples = pick_examples(queries, titles, rankings, relevance, K, probability)
    shares = routed_shares(probability, 0.5, relevance, slices)
    gate = Gate(probability, 0.5, shares, (np.arange(QUERIES) % 2).astype(float))
    facts = Facts("generated shop, simulated log", [("items", 1234567)], {"smar": 61.4})
    write_report(out, measured.rows, measured.differences, facts, examples, [("category=Hat", 3)], gate)
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
    assert len(listed) == len(measured.rows)
    assert all(list(row) == ["model", "slice", "metric", "value", "low", "high", "queries"] for row in listed)
    assert MetricRow(**listed[0]) == measured.rows[0]
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


def test_a_run_without_gate_and_examples(tmp_path: Path, measured: Measured) -> None:
    write_report(tmp_path, measured.rows, [], Facts())
    text = (tmp_path / "report.md").read_text()
    assert "gate.png" not in text
    assert not (tmp_path / "gate.png").exists()
    assert "## Examples" not in text


def test_examples_are_the_largest_gains_then_losses(rankings: dict[str, np.ndarray], relevance: Relevance) -> None:
    queries, titles = [f"q{i}" for i in range(QUERIES)], [f"t{i}" for i in range(ITEMS)]
    got = pick_examples(queries, titles, rankings, relevance, K, count=3, shown=4)
    gains = [example.recall["smar"] - example.recall["dpsr"] for example in got]
    best = per_query(rankings["smar"], relevance, K).recall - per_query(rankings["dpsr"], relevance, K).recall
    assert gains[:3] == sorted(best, reverse=True)[:3]
    assert all(gain < 0 for gain in gains[3:])
    first = got[0]
    row = int(first.query[1:])
    wanted = {f"t{i}" for i in relevance.items[relevance.query == row]}
    assert all(hit.relevant == (hit.title in wanted) for hits in first.lists.values() for hit in hits)
    assert [hit.title for hit in first.lists["smar"]] == [f"t{i}" for i in rankings["smar"][row, :4]]
    assert first.probability is None
    assert pick_examples(queries, titles, {"smar": rankings["smar"]}, relevance, K) == []


def test_the_chart_shows_own_slices_and_the_largest_values() -> None:
    names = ["all", "cold_items", *(f"category={i}" for i in range(40))]
    rows = [MetricRow("smar", name, "R@50", 0.5, 0.4, 0.6, 10 + n) for n, name in enumerate(names)]
    shown = [name for name, _ in chosen_slices(rows)]
    assert len(shown) == SHOWN_SLICES
    assert shown[:2] == ["all", "cold_items"]
    assert shown[2:] == names[-(SHOWN_SLICES - 2) :]


def test_the_terminal_table(measured: Measured) -> None:
    text = io.StringIO()
    print_table(measured.rows, Console(file=text, width=100))
    shown = text.getvalue()
    assert f"R@{K} by slice" in shown
    assert "half|odd" in shown
    assert f"{measured.rows[0].value:.3f}" in shown
    assert f"nDCG@{K}" in shown
