"""Judgement files, and a report over two runs as a user makes it."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smar.errors import InputError
from smar.evaluation.evaluate import read_qrels
from tiny_line import Line, smar


def test_qrels_come_from_parquet_or_csv_and_are_normalised(tmp_path):
    table = pa.table({"query": ["  Red   DRESS"], "item_id": ["7"], "relevance": [2]})
    pq.write_table(table, tmp_path / "q.parquet")
    (tmp_path / "q.csv").write_text("query,item_id,relevance\n  Red   DRESS,7,2\n")
    for name in ("q.parquet", "q.csv"):
        read = read_qrels(str(tmp_path / name))
        assert read["query"].to_pylist() == ["red dress"]
        assert read["relevance"].to_pylist() == [2]


def test_qrels_that_lack_a_column_or_a_file_are_refused(tmp_path):
    (tmp_path / "q.csv").write_text("query,item_id\nred,7\n")
    with pytest.raises(InputError, match="lacks relevance; it has query, item_id"):
        read_qrels(str(tmp_path / "q.csv"))
    with pytest.raises(InputError, match="cannot be read"):
        read_qrels(str(tmp_path / "absent.parquet"))


def test_two_runs_in_one_report(line: Line, tmp_path):
    shutil.copytree(line.run, tmp_path / "twin")
    out = tmp_path / "report"
    done = smar("evaluate", line.run, tmp_path / "twin", line.dataset, "--names", "one,two", "--out", out)
    assert done.code == 0, done.err
    rows = json.loads((out / "metrics.json").read_text())
    values = {(row["model"], row["slice"], row["metric"]): row["value"] for row in rows}
    alone = {
        (r["model"], r["slice"], r["metric"]): r["value"]
        for r in json.loads((line.report / "metrics.json").read_text())
    }
    names = {
        "smar": "one",
        "dpsr": "one/dpsr",
        "multimodal": "one/multimodal",
        "shuffled": "one/shuffled",
        "bm25": "bm25",
    }
    for single, several in names.items():
        assert values[several, "all", "R@50"] == alone[single, "all", "R@50"]
        twin = several.replace("one", "two")
        assert values[twin, "all", "R@50"] == values[several, "all", "R@50"]  # the same weights
    same = [row for row in rows if row["model"] == "one - two"]
    assert len(same) > 5
    assert all((row["value"], row["p"], row["p_holm"]) == (0, 1, 1) for row in same)
    assert not any(row["model"].startswith("one - two/shuffled") for row in rows)  # only the first run's controls
    text = (out / "report.md").read_text()
    assert "two: trained on" in text
    assert sorted(path.name for path in (out / "runs").rglob("*.trec")) == sorted(
        ["bm25.trec", "one.trec", "two.trec", *["dpsr.trec", "dpsr-i.trec", "multimodal.trec"] * 2]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "two runs are called 'run'"),
        (("--names", "a"), "gives 1 names"),
        (("--names", "a,a"), "two runs are called 'a'"),
        (("--names", "a,b/c"), "'b/c' cannot name a run"),
        (("--names", "a,bm25"), "'bm25' cannot name a run"),
        (("--names", "a,b", "--set", "train.seed=1"), "evaluate.* only"),
        (("--names", "a,b", "--set", "evaluate.nope=1"), "evaluate.nope"),
    ],
)
def test_names_that_cannot_be_and_settings_that_are_the_runs_own(line: Line, tmp_path, words, message):
    refused = smar("evaluate", line.run, line.run, line.dataset, *words, "--out", tmp_path / "out")
    assert refused.code == 2
    assert refused.says(message)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_the_users_is_not_replaced(line: Line, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "7.jpg").write_bytes(b"mine")
    refused = smar("evaluate", line.run, line.dataset, "--out", tmp_path)
    assert refused.code == 2
    assert refused.says("is no report", "name a new --out")
    assert (tmp_path / "pictures" / "7.jpg").read_bytes() == b"mine"


def test_without_controls_bm25_and_trec(line: Line, tmp_path):
    off = [word for name in ("controls", "bm25", "trec") for word in ("--set", f"evaluate.{name}=false")]
    done = smar("evaluate", line.run, line.dataset, *off, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    rows = json.loads((tmp_path / "out" / "metrics.json").read_text())
    models = {row["model"] for row in rows if " - " not in row["model"]}
    assert models == {"dpsr", "dpsr-i", "multimodal", "smar"}
    assert "## Controls" not in (tmp_path / "out" / "report.md").read_text()
    assert not (tmp_path / "out" / "runs").exists()
