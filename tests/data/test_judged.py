"""Pairs with labels: relevance, weight and split; and labels that nobody maps."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from shop_tables import click, items, read, rejects, run

from smar.core.errors import InputError
from smar.core.sections.evaluation import EvaluateSettings
from smar.data import clicks as clicks_module
from smar.data.dataset import Dataset
from smar.evaluation.metrics import per_query, read_judgements
from smar.evaluation.slices import build_slices

Row = dict[str, Any]


def pair(query: str, item: str, relevance: Any, split: Any, weight: float = 1.0) -> Row:
    return {"query": query, "item_id": item, "relevance": relevance, "split": split, "weight": weight}


PAIRS = [
    pair("red", "i0", 3, "train"),
    pair("Red ", "i1", 1, "Train", 0.1),
    pair("red", "i2", 0, "train"),
    pair("hat", "i0", 2, "validation"),
    pair("hat", "i1", -1, "dev"),
    pair("shoe", "i0", 3, "test"),
    pair("shoe", "i1", 1, "test"),
    pair("shoe", "i2", 0, "test"),
    pair("coat", "i3", 0, "test"),
    pair("red", "i0", 2, "test"),
]


def qrels(folder: Path) -> set[tuple[str, str, int]]:
    return {(row["query"], row["item_id"], row["relevance"]) for row in read(folder, "qrels.parquet")}


def pairs(folder: Path, part: str) -> list[tuple[str, int, float, bool]]:
    rows = read(folder, f"pairs/{part}.parquet")
    return [(row["query"], row["item_index"], round(row["weight"] * 0.55, 3), row["seen_in_train"]) for row in rows]


def test_labels_become_weights_parts_and_qrels(tmp_path: Path) -> None:
    """Mean weight of the training pairs is 1, so 0.55 stands for the weight 1 of the table."""
    summary = run(tmp_path, items(), PAIRS)
    assert pairs(tmp_path, "train") == [("red", 0, 1.0, False), ("red", 1, 0.1, False)]
    assert pairs(tmp_path, "valid") == [("hat", 0, 1.0, False)]
    assert pairs(tmp_path, "test") == [("red", 0, 1.0, True), ("shoe", 0, 1.0, False), ("shoe", 1, 1.0, False)]
    assert qrels(tmp_path) == {
        ("red", "i0", 2),
        ("shoe", "i0", 3),
        ("shoe", "i1", 1),
        ("shoe", "i2", 0),
        ("coat", "i3", 0),
    }
    assert (summary.counts["clicks"], summary.counts["judged_irrelevant"]) == (6, 4)
    assert any("4 pairs are judged irrelevant" in note for note in summary.notes)
    schema = pq.read_schema(tmp_path / "out" / "qrels.parquet")
    assert [str(field.type) for field in schema] == ["string", "string", "int32"]


def test_repeats_that_are_dropped_are_not_judged(tmp_path: Path) -> None:
    summary = run(tmp_path, items(), PAIRS, repeat_pairs="drop")
    assert ("red", "i0", 2) not in qrels(tmp_path)
    assert ("shoe", "i2", 0) in qrels(tmp_path)
    assert summary.counts["dropped_clicks"] == 1


def test_what_is_no_label_is_rejected(tmp_path: Path) -> None:
    wrong = [pair("x", "i0", value, "train") for value in (1.5, None, 11, -12, float("inf"))]
    wrong += [pair("x", "i0", 1, "part 3"), pair("x", "i0", 1, None), pair("x", "i0", 1, "test", 0.0)]
    run(tmp_path, items(), [*PAIRS, *wrong])
    seen = [reason for table, row, _, reason in rejects(tmp_path) if row >= len(PAIRS)]
    assert seen[:5] == ["relevance is not a whole number up to 10"] * 5
    assert seen[5:] == ["split is none of train, valid, test"] * 2 + ["weight is not a number from 1e-6 to 1e12"]


def test_the_highest_of_several_labels_counts(tmp_path: Path) -> None:
    rows = [*PAIRS, pair("shoe", "i1", 2, "test"), pair("SHOE", "i2", 1, "test")]
    run(tmp_path, items(), rows)
    assert {("shoe", "i1", 2), ("shoe", "i2", 1)} <= qrels(tmp_path)


def test_without_validation_pairs_some_training_queries_are_taken(tmp_path: Path) -> None:
    rows = [pair(f"query {n}", f"i{m}", 1, "train") for n in range(50) for m in range(2)]
    rows += [pair("query 1", "i2", 3, "test"), pair("query 2", "i2", 0, "test")]
    summary = run(tmp_path, items(), rows, valid_share=0.2)
    train, valid = ({row["query"] for row in read(tmp_path, f"pairs/{part}.parquet")} for part in ("train", "valid"))
    assert not train & valid
    assert len(train | valid) == 50
    assert 4 <= len(valid) <= 16
    assert any(f"20% of the training queries ({2 * len(valid)} pairs)" in note for note in summary.notes)
    assert qrels(tmp_path) == {("query 1", "i2", 3), ("query 2", "i2", 0)}


def test_labels_without_a_split_are_divided_by_a_hash(tmp_path: Path) -> None:
    rows = [{"query": f"q{n}", "item_id": f"i{n % 4}", "relevance": n % 3} for n in range(120)]
    run(tmp_path, items(), rows, test_share=0.3)
    parts = {
        part: {row["query"] for row in read(tmp_path, f"pairs/{part}.parquet")} for part in ("train", "valid", "test")
    }
    assert sum(map(len, parts.values())) == 80
    judged = qrels(tmp_path)
    assert {query for query, _, relevance in judged if relevance} == parts["test"]
    assert {relevance for *_, relevance in judged} == {0, 1, 2}


def test_a_split_needs_both_ends(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"0 test pairs of 3 clicks; give rows of both in its column split"):
        run(tmp_path, items(), [row for row in PAIRS if row["split"] != "test"])


def test_a_log_with_times_is_split_by_them_and_says_so(tmp_path: Path) -> None:
    rows = [click("x", f"i{day % 4}", day, split="test", relevance=0) for day in range(20)]
    summary = run(tmp_path, items(), rows)
    assert summary.counts["pairs_train"] == 4
    note = next(note for note in summary.notes if "is not read" in note)
    assert "'relevance', 'split'" in note
    assert "data.select.clicks" in note


@pytest.mark.parametrize("name", ["esci_label", "Rating", "graded-relevance", "esciLabel"])
def test_a_label_that_nobody_maps_is_pointed_out(tmp_path: Path, name: str) -> None:
    rows = [{"query": f"q{n}", "item_id": f"i{n % 4}", name: "EEES"[n % 4], "page": 1} for n in range(40)]
    summary = run(tmp_path, items(), rows)
    (note,) = summary.notes
    assert f"column '{name}' looks like a label" in note
    assert "E (30), S (10)" in note
    assert f"CASE \"{name}\" WHEN 'E' THEN 1 ELSE 0 END AS relevance" in note
    told = note.partition("data.select.clicks: ")[2]
    summary = run(tmp_path, items(), rows, select={"clicks": told})
    assert summary.counts["clicks"] == 30


def test_columns_that_are_no_labels_are_left_alone(tmp_path: Path) -> None:
    rows = [
        {"query": f"q{n}", "item_id": f"i{n % 4}", "labeler": "x", "scored_by": "x", "relation": 1} for n in range(40)
    ]
    assert run(tmp_path, items(), rows).notes == []
    rows = [{"query": f"q{n}", "item_id": f"i{n % 4}", "esci_label": "E", "grade": 1 + n % 2} for n in range(40)]
    assert run(tmp_path, items(), rows, columns={"clicks": {"relevance": "grade"}}).notes == []


def test_the_leak_check_finds_an_irrelevant_pair_in_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = clicks_module.script

    def script(name: str) -> str:
        return honest(name).replace("WHERE clicks > 0", "") if name == "pairs" else honest(name)

    monkeypatch.setattr(clicks_module, "script", script)
    with pytest.raises(clicks_module.LeakError, match="judged irrelevant is in a part"):
        run(tmp_path, items(), [{**row, "weight": 1.0} for row in PAIRS])


def test_judged_irrelevant_counts_as_not_relevant(tmp_path: Path) -> None:
    """nDCG has gains 7, 3, 1, 0; a query without a relevant item is not counted."""
    run(tmp_path, items(), PAIRS)
    dataset = Dataset.open(tmp_path / "out")
    judged = read_judgements(dataset.qrels(), dataset.items["item_id"])
    row = judged.queries.index("shoe")
    ranked = np.tile(np.array([[2, 1, 0, 3]]), (len(judged.queries), 1))
    measured = per_query(ranked, judged.relevance, 3)
    assert [judged.queries[at] for at in measured.rows] == ["red", "shoe"]
    shoe = list(measured.rows).index(row)
    assert measured.recall[shoe] == 1.0
    assert measured.rr[shoe] == 0.5
    gain, ideal = 1 / np.log2(3) + 7 / np.log2(4), 7 + 1 / np.log2(3)
    assert measured.ndcg[shoe] == pytest.approx(gain / ideal)
    kept = build_slices(dataset, judged.queries, judged.relevance, EvaluateSettings(slice_queries=1)).kept
    assert {part.name for part in kept} >= {"all", "unseen_queries", "new_pairs"}
