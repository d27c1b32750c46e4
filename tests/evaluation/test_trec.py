"""TREC files of a real tiny run: a well-kept tool reads them and finds the report's figures."""

import json
from pathlib import Path

import ir_measures
import numpy as np
import pytest

from smar.evaluation.metrics import Relevance
from smar.evaluation.trec import document_id, write_trec
from tiny_line import Line

K = 50


def agree(report: Path, models: list[str], foreign: Path | None = None) -> None:
    """Every mean that ir_measures finds in the report's files (or a foreign run's) is the report's own to 1e-6."""
    rows = [row for row in json.loads((report / "metrics.json").read_text()) if row["slice"] == "all"]
    ours = {(row["model"], row["metric"]): row["value"] for row in rows}
    gains = {0: 0, 1: 1, 2: 3, 3: 7}  # 2^grade - 1; trec_eval's own gain is the grade
    measures = {
        f"R@{K}": ir_measures.R @ K,
        f"P@{K}": ir_measures.P @ K,
        f"nDCG@{K}": ir_measures.nDCG(cutoff=K, gains=gains),
        "MRR": ir_measures.RR,
    }
    qrels = list(ir_measures.read_trec_qrels(str(report / "qrels.trec")))
    assert len({judged.query_id for judged in qrels}) == rows[0]["queries"]
    for model in models:
        run = list(ir_measures.read_trec_run(str(foreign or report / "runs" / f"{model}.trec")))
        theirs = ir_measures.calc_aggregate(list(measures.values()), qrels, run)
        for name, measure in measures.items():
            assert theirs[measure] == pytest.approx(ours[model, name], abs=1e-6), (model, name)


def test_ir_measures_finds_the_reports_figures(line: Line) -> None:
    agree(line.report, ["bm25", "dpsr", "dpsr-i", "multimodal", "smar"])
    topics = (line.report / "topics.tsv").read_text().splitlines()
    assert topics[0].split("\t")[0] == "0"
    assert len(topics) == len({*topics})
    first = (line.report / "runs" / "smar.trec").read_text().splitlines()[0].split(" ")
    assert (first[0], first[1], first[3:]) == ("0", "Q0", ["1", "100", "smar"])


def test_any_item_id_and_grade_survives(tmp_path: Path) -> None:
    ids = ["red dress", "50%", 'a"b', "plain-1", "tab\there"]
    assert len({document_id(item) for item in ids}) == len(ids)
    assert document_id("plain-1") == "plain-1"
    relevance = Relevance.from_pairs([0, 0, 1, 1], [0, 2, 1, 4], [1, 3, 2, 1], queries=2)
    rankings = {"a/b": np.array([[2, 3, 0], [1, -1, -1]])}
    write_trec(tmp_path, ['say "x"\tnow', "b"], ids, relevance, rankings)
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels.trec")))
    assert [(q.query_id, q.doc_id, q.relevance) for q in qrels] == [
        ("0", "red%20dress", 1),
        ("0", "a%22b", 3),
        ("1", "50%25", 2),
        ("1", "tab%09here", 1),
    ]
    run = list(ir_measures.read_trec_run(str(tmp_path / "runs" / "a" / "b.trec")))
    assert [(d.query_id, d.doc_id, d.score) for d in run] == [
        ("0", "a%22b", 3),
        ("0", "plain-1", 2),
        ("0", "red%20dress", 1),
        ("1", "50%25", 3),
    ]
    assert (tmp_path / "topics.tsv").read_text() == '0\tsay "x" now\n1\tb\n'
