"""Reports as a user makes them: of two runs, of seeds, with other systems, and what is refused first."""

import json
import shutil
from pathlib import Path

import bm25s
import pyarrow.parquet as pq
import pytest
import yaml
from test_trec import agree

from smar.data.dataset import Dataset
from smar.model.encoder import Encoder
from tiny_line import Line, smar


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
        [
            "bm25.trec",
            "one.trec",
            "two.trec",
            *["dpsr.trec", "dpsr-i.trec", "hybrid.trec", "multimodal.trec", "two-way.trec"] * 2,
        ]
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
    assert models == {"dpsr", "dpsr-i", "multimodal", "smar", "two-way"}
    assert "## Controls" not in (tmp_path / "out" / "report.md").read_text()
    assert not (tmp_path / "out" / "runs").exists()


@pytest.fixture(scope="module")
def seeds(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two runs `run-s0` and `run-s1` of one configuration; the second one's weights are of stage 1."""
    folder = tmp_path_factory.mktemp("seeds")
    for seed in (0, 1):
        run = Path(shutil.copytree(line.run, folder / f"run-s{seed}"))
        settings = yaml.safe_load((run / "config.yaml").read_text())
        settings["train"]["seed"] = seed
        (run / "config.yaml").write_text(yaml.safe_dump(settings))
    shutil.copy(run / "stage1" / "model.safetensors", run / "stage2")
    return folder


def bm25s_run(line: Line, topics: Path, out: Path) -> None:
    """What a researcher's script writes: bm25s over the titles, one line a hit, ids as the catalogue has them."""
    items = Dataset.open(line.dataset).items
    queries = [row.split("\t") for row in topics.read_text().splitlines()]
    retriever = bm25s.BM25(method="robertson")
    retriever.index(bm25s.tokenize(items["title"].to_pylist(), show_progress=False), show_progress=False)
    texts = bm25s.tokenize([text for _, text in queries], show_progress=False)
    found, scores = retriever.retrieve(texts, corpus=items["item_id"].to_pylist(), k=60, show_progress=False)
    with out.open("w") as file:
        for (topic, _), hits, values in zip(queries, found, scores, strict=True):
            lines = zip(hits, values, strict=True)
            file.writelines(f"{topic} Q0 {hit} {rank} {value} bm25s\n" for rank, (hit, value) in enumerate(lines))


def test_seeds_and_another_librarys_ranking_in_one_report(line: Line, seeds: Path, tmp_path: Path) -> None:
    bm25s_run(line, line.report / "topics.tsv", tmp_path / "bm25s.trec")
    out, words = tmp_path / "report", ("--set", "evaluate.controls=false")
    # our own judgements, whose topics.tsv lies beside them
    judged = ("--qrels", line.report / "qrels.trec", "--trec-run", f"other={tmp_path / 'bm25s.trec'}")
    done = smar("evaluate", seeds / "run-s0", seeds / "run-s1", line.dataset, *judged, *words, "--out", out)
    assert done.code == 0, done.err
    rows = json.loads((out / "metrics.json").read_text())
    values = {(row["model"], row["slice"], row["metric"]): row for row in rows}
    first = {(r["model"], r["slice"], r["metric"]): r for r in json.loads((line.report / "metrics.json").read_text())}
    for metric in ("R@50", "nDCG@50"):
        assert values["run-s0", "all", metric]["value"] == first["smar", "all", metric]["value"]
    mean, members = values["run (2 seeds)", "all", "R@50"], [values[f"run-s{n}", "all", "R@50"] for n in (0, 1)]
    assert mean["value"] == pytest.approx(sum(member["value"] for member in members) / 2)
    assert mean["sd"] == pytest.approx(abs(members[0]["value"] - members[1]["value"]) / 2**0.5)
    assert mean["sd"] > 0
    assert "sd" not in members[0]
    # the foreign system stands in every slice, with a test
    slices = {row["slice"] for row in rows if row["model"] == "run (2 seeds)" and row["metric"] == "R@50"}
    tested = {row["slice"] for row in rows if row["model"] == "run (2 seeds) - other" and row["p_holm"] <= 1}
    assert len(slices) > 5
    assert slices == tested == {row["slice"] for row in rows if row["model"] == "other"}
    # trec_eval finds the same of the file that bm25s's script wrote
    agree(out, ["bm25", "run-s0", "run-s1"])
    agree(out, ["other"], tmp_path / "bm25s.trec")
    assert (out / "qrels.trec").read_bytes() == (line.report / "qrels.trec").read_bytes()
    text = (out / "report.md").read_text()
    assert "| run (2 seeds) | run-s0, run-s1: train.seed 0, 1 |" in text
    assert "## R@50 by seed" in text
    assert "hits of bm25s.trec" in text
    head = next(row for row in text.splitlines() if row.startswith("| slice | queries |"))
    assert "other" in head
    assert "run-s0" not in head
    assert done.says("other", "hits of bm25s.trec")
    table = pq.read_table(out / "per-query.parquet")
    asked = Dataset.open(line.dataset).queries()["query"].to_pylist()
    assert {*table["query"].to_pylist()} <= {*asked}
    assert {*table["system"].to_pylist()} >= {"other", "run-s0", "run-s1", "run-s0/dpsr"}
    assert (out / "tables.csv").read_text().startswith("system,baseline,slice,metric,value,")
    assert r"\begin{tabular}" in (out / "tables.tex").read_text()


class Encoded(Exception):
    """An item or a query reached a model."""


@pytest.fixture
def no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Encoded

    monkeypatch.setattr(Encoder, "encode_items", refuse)
    monkeypatch.setattr(Encoder, "encode_queries", refuse)


def test_the_guard_of_the_next_test_sees_encoding(line: Line, tmp_path: Path, no_encoding: None) -> None:
    with pytest.raises(Encoded):
        smar("evaluate", line.run, line.dataset, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--qrels", "none.parquet"), ("--qrels none.parquet cannot be read",)),
        (("--qrels", "none.trec"), ("--qrels none.trec cannot be read",)),
        (("--trec-run", "x=none.trec"), ("--trec-run none.trec cannot be read",)),
        (("--trec-run", "x=bad.trec"), ("bad.trec", "has 3 columns")),
        (("--trec-run", "x"), ("'x' is not NAME=FILE",)),
        (("--trec-run", "smar=bad.trec"), ("another row of that name",)),
        (("--topics", "none.tsv", "--trec-run", "x=bad.trec"), ("--topics none.tsv cannot be read",)),
        (("--topics", "topics.tsv"), ("--topics topics.tsv", "none is given")),
        (("--set", "evaluate.k=0"), ("evaluate.k",)),
        (("--out", "bad.trec/report"), ("bad.trec/report cannot be written",)),
        (("unfinished",), ("unfinished is not finished",)),
        (("damaged",), ("is damaged",)),
        (("fields",), ("reads the item columns title, fabric", "lacks fabric")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_everything_is_checked_before_anything_is_encoded(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_encoding: None, words: tuple, parts: tuple
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.trec").write_text("0 Q0 a\n")
    Path("topics.tsv").write_text("0 dress\n")
    runs: list[object] = [line.run]
    if not words[0].startswith("--"):
        runs.append(shutil.copytree(line.run, words[0]))
        damage(Path(words[0]))
        words = ()
    refused = smar("evaluate", *runs, line.dataset, "--out", "report", *words)
    assert refused.code == 2, refused.err
    assert refused.says(*parts), refused.err
    assert not Path("report").exists()


def damage(run: Path) -> None:
    """What the second run's name says."""
    stage = run / "stage2"
    if run.name == "unfinished":
        shutil.rmtree(stage)
    elif run.name == "damaged":
        weights = run / "baselines" / "dpsr" / "stage2" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:2000])
    else:
        config = json.loads((stage / "config.json").read_text())
        (stage / "config.json").write_text(json.dumps({**config, "text_fields": ["title", "fabric"]}))
