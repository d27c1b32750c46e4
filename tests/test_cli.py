"""The whole line by its command line: what each command says, and the files that scripts rely on."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smar.commands.parser import parser
from smar.data.voices import query_features
from smar.evaluation.trec_input import read_topics
from smar.search.local.open_version import EmbeddedIndex
from tiny_line import Line, Outcome, prepare_words, smar

COMMANDS = ("prepare", "train", "evaluate", "ablate", "embed", "index", "export", "search", "serve", "demo")
MODELS = ("bm25", "dpsr", "dpsr-i", "hybrid", "multimodal", "smar", "two-way")
CONTROLS = ("text", "image", "route", "random-gate", "oracle-gate", "shuffled", "no-pictures")
METRICS = {"R@50", "P@50", "F1@50", "nDCG@50", "MRR"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    shown = smar(command, "--help")
    assert shown.code == 0
    assert f"example:\n  smar {command}" in shown.out


@pytest.mark.parametrize("command", COMMANDS)
def test_examples_of_help_can_be_typed(command: str) -> None:
    import shlex

    examples = smar(command, "--help").out.split("example:\n")[1].splitlines()
    for example in filter(None, map(str.strip, examples)):
        assert parser().parse_args(shlex.split(example)[1:]).command == command


def test_help_lists_every_command() -> None:
    shown = smar("--help").out
    assert all(f"    {command} " in shown for command in COMMANDS)


def test_no_command_is_an_error() -> None:
    assert smar().code == 2


def test_the_program_itself() -> None:
    """A process of its own: exit codes reach the shell, errors are one message on stderr."""
    command = [sys.executable, "-m", "smar.cli"]
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert version.stdout.startswith("smar ")
    failed = subprocess.run([*command, "index", "nowhere", "--out", "unmade"], capture_output=True, text=True)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("smar index: nowhere/manifest.json is missing")
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("command", "counts", "following"),
    [
        ("prepare", ("log rows", "30,000", "seconds for pairs"), "smar train {0}/dataset --out run --config"),
        ("train", ("smar stage1", "8 steps", "dpsr-i stage2", "pairs/s"), "smar evaluate {0}/run {0}/dataset"),
        ("evaluate", ("queries", "seconds", "report.md"), "smar embed {0}/run {0}/dataset --out embeddings"),
        ("embed", ("items", "300", "seconds"), "smar index {0}/embeddings --out index"),
        ("index", ("items", "300", "seconds"), "smar serve {0}/index"),
    ],
)
def test_summary_and_next_command(line: Line, command: str, counts: tuple[str, ...], following: str) -> None:
    said = line.said[command]
    assert said.code == 0
    assert "Traceback" not in said.err
    assert all(count in said.err for count in counts), said.err
    (advice,) = [text for text in said.err.splitlines() if text.startswith("next: ")]
    assert following.format(line.root) in advice


def test_train_again_does_nothing(line: Line) -> None:
    before = (line.run / "stage2" / "model.safetensors").stat().st_mtime_ns
    again = smar("train", line.dataset, "--out", line.run, "--config", line.config)
    assert again.code == 0, again.err
    assert (line.run / "stage2" / "model.safetensors").stat().st_mtime_ns == before
    assert not list(line.run.rglob("checkpoint-*"))


def test_metrics_file(line: Line) -> None:
    listed = json.loads((line.report / "metrics.json").read_text())
    keys = ["model", "slice", "metric", "value", "low", "high", "queries"]
    rows = [row for row in listed if " - " not in row["model"] and row["metric"] not in ("routed", "gate AUC")]
    assert all(list(row) == keys for row in rows)
    assert {row["model"] for row in rows} == {*MODELS, *CONTROLS}
    assert {row["metric"] for row in rows} == METRICS
    cells: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in rows:
        cells[row["slice"]].add((row["model"], row["metric"]))
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["queries"] >= 5
    assert {"all", "needs_image", "cold_items", "group=Fashion"} <= cells.keys()
    models = len(MODELS) + len(CONTROLS)
    assert all(len(filled) == models * len(METRICS) for filled in cells.values())
    assert len(rows) == models * len(METRICS) * len(cells)  # no row twice, though `group` is a slice column and a truth
    comparisons = {(row["model"], row["slice"]): row for row in listed if " - " in row["model"]}
    others = ({*MODELS} - {"smar"}) | ({*CONTROLS} - {"oracle-gate"})
    pairs = {f"smar - {other}" for other in others} | {"multimodal - text"}
    assert comparisons.keys() == {(pair, name) for pair in pairs for name in cells}
    assert all(0 < row["p"] <= row["p_holm"] <= 1 for row in comparisons.values())
    gate = {(row["metric"], row["slice"]): row["value"] for row in listed if row["metric"] in ("routed", "gate AUC")}
    assert gate.keys() == {("gate AUC", "all"), *(("routed", name) for name in cells)}
    assert all(0 <= value <= 1 for value in gate.values())


def test_report_files(line: Line) -> None:
    text = (line.report / "report.md").read_text()
    assert "generated shop, simulated log" in text
    pictures = sorted(line.report.glob("*.png"))
    assert [picture.name for picture in pictures] == ["categories.png", "gate.png", "recall-by-slice.png"]
    for picture in pictures:
        assert f"({picture.name})" in text
        with Image.open(picture) as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 200
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 3
    shown = {path.name for path in (line.report / "pictures").iterdir()}
    assert shown == {*re.findall(r'src="pictures/(\d+\.jpg)"', text)} != set()
    for name in shown:
        with Image.open(line.report / "pictures" / name) as image:
            assert max(image.size) <= 112
    for heading in ("## Is it more than chance?", "## Controls", "AUC of the probability", "cold items (", "BM25"):
        assert heading in text


def test_evaluate_with_judgements(line: Line, tmp_path: Path) -> None:
    out = tmp_path / "judged"
    judged = smar("evaluate", line.run, line.dataset, "--qrels", line.shop / "qrels.parquet", "--out", out)
    assert judged.code == 0, judged.err
    assert "judgements of qrels.parquet" in (out / "report.md").read_text()
    rows = json.loads((out / "metrics.json").read_text())
    hidden = {row["model"]: row for row in rows if row["slice"] == "hidden"}
    assert {row["metric"] for row in hidden.values()} == {"R@50"}
    assert {"bm25", "dpsr", "smar", "text", "shuffled", "smar - dpsr"} <= {*hidden}
    assert hidden["bm25"]["queries"] >= 5
    assert judged.says("cold items", "hidden")
    everything = [row for row in rows if row["slice"] == "all"]
    assert everything[0]["queries"] > json.loads((line.report / "metrics.json").read_text())[0]["queries"]


def test_search_for_people(line: Line) -> None:
    found = smar("search", line.index, "black trousers", "-k", "5")
    assert found.code == 0, found.err
    first, *hits = found.out.splitlines()
    assert first.startswith("pictures help: ")
    assert [hit.split()[0] for hit in hits] == ["1", "2", "3", "4", "5"]
    scores = [float(hit.split()[1]) for hit in hits]
    assert scores == sorted(scores, reverse=True)


def search_json(line: Line, query: str, *words: object) -> dict[str, object]:
    found = smar("search", line.index, query, "--json", *words)
    assert found.code == 0, found.err
    return dict(json.loads(found.out))


def test_search_as_json(line: Line) -> None:
    answer = search_json(line, "black trousers", "-k", "5")
    assert answer["query"] == "black trousers"
    assert 0 <= answer["image_probability"] <= 1
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5]
    assert all({"title", "price", "brand"} <= hit["item"].keys() for hit in answer["hits"])


@pytest.mark.parametrize("mode", ["adaptive", "route", "text", "multimodal"])
def test_search_modes_rank_by_their_score(line: Line, mode: str) -> None:
    answer = search_json(line, "black trousers", "--mode", mode)
    index = EmbeddedIndex.open(line.index)
    if mode == "adaptive":
        base, voices, p = index.segments[0].words, index.encoder.voices, np.array([answer["image_probability"]])
        share = voices.shares(query_features(["black trousers"], base, voices.known, p))[0]
    else:
        base = None
        share = {"route": [0, 1 - answer["routed"], answer["routed"]], "text": [0, 1, 0], "multimodal": [0, 0, 1]}[mode]
    for hit in answer["hits"]:
        assert (hit["words_score"] is None) == (base is None)
        words = hit["words_score"] / base.unit if base else 0
        expected = share[0] * words + share[1] * hit["text_score"] + share[2] * hit["multimodal_score"]
        assert hit["score"] == pytest.approx(expected, abs=1e-5)
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["mode"] == mode


def test_search_with_a_filter(line: Line) -> None:
    hits = search_json(line, "trousers", "--filter", "price<50 and category=Trousers")["hits"]
    assert hits
    assert all(hit["item"]["price"] < 50 and hit["item"]["category"] == "Trousers" for hit in hits)
    nothing = smar("search", line.index, "trousers", "--filter", "price<0")
    assert nothing.code == 0
    assert "no item matches the filter" in nothing.out


@pytest.mark.parametrize("query", ["🧥👗", "  RED   dress ", "платье", "a" * 1000, "красное 🔴 платье"])
def test_unusual_queries_are_answered(line: Line, query: str) -> None:
    assert len(search_json(line, query, "-k", "3")["hits"]) == 3


def trec(line: Line, tmp_path: Path, text: str, *words: object) -> tuple[Outcome, list[list[str]]]:
    (tmp_path / "queries.txt").write_text(text, encoding="utf-8")
    run = tmp_path / "new" / "run.trec"
    done = smar("search", line.index, "--queries", tmp_path / "queries.txt", "--run", run, *words)
    return done, [row.split(" ") for row in run.read_text().splitlines()] if run.is_file() else []


def test_trec_run(line: Line, tmp_path: Path) -> None:
    queries = ["black trousers", "usb cable", "🧥", "Black  TROUSERS"]
    done, rows = trec(line, tmp_path, "\n".join(queries) + "\n", "-k", "7")
    assert done.code == 0, done.err
    assert all(text in done.err for text in ("queries", "28", "queries per second"))
    assert all(len(row) == 6 and row[1] == "Q0" and row[5] == "smar-adaptive" for row in rows)
    assert [(int(row[0]), int(row[3])) for row in rows] == [(t, r) for t in range(4) for r in range(1, 8)]
    for topic, query in enumerate(queries):
        mine = [row for row in rows if row[0] == str(topic)]
        scores = [float(row[4]) for row in mine]
        assert scores == sorted(scores, reverse=True)
        hits = search_json(line, query, "-k", "7")["hits"]
        assert [row[2] for row in mine] == [hit["item_id"] for hit in hits]


def test_a_trec_run_goes_back_into_evaluate(line: Line, tmp_path: Path) -> None:
    """Its topics have the numbers of the report's: the index answers as the model that it was made of."""
    queries = read_topics(line.report / "topics.tsv").values()
    done, _ = trec(line, tmp_path, "".join(f"{query}\n" for query in queries), "-k", "50")
    assert done.code == 0, done.err
    words = ("--trec-run", f"mine={tmp_path / 'new' / 'run.trec'}", "--out", tmp_path / "report")
    again = smar("evaluate", line.run, line.dataset, *words)
    assert again.code == 0, again.err
    rows = json.loads((tmp_path / "report" / "metrics.json").read_text())
    found = {row["model"]: row["value"] for row in rows if (row["slice"], row["metric"]) == ("all", "R@50")}
    assert found["mine"] == pytest.approx(found["smar"], abs=0.01)


def test_trec_topics_are_line_numbers(line: Line, tmp_path: Path) -> None:
    """Windows line ends, a byte order mark, no newline at the end; U+2028 ends no line."""
    done, rows = trec(line, tmp_path, "\ufeffred dress\r\nusb\u2028cable\r\nkettle", "-k", "1", "--mode", "text")
    assert done.code == 0, done.err
    assert [(row[0], row[5]) for row in rows] == [("0", "smar-text"), ("1", "smar-text"), ("2", "smar-text")]
    assert rows[1][2] == search_json(line, "usb cable", "--mode", "text")["hits"][0]["item_id"]


def test_assignments_override_the_file(line: Line, tmp_path: Path) -> None:
    words = [*prepare_words(line.root), "--set", "data.image_size=16", "--set", "data.workers=1"]
    assert smar(*words, "--out", tmp_path / "small").code == 0
    assert json.loads((tmp_path / "small" / "manifest.json").read_text())["image_size"] == 16


def test_demo_walks_the_whole_line_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo on a smaller shop with less training; the second call keeps what the first one finished, and serves."""
    first = smar("demo", "--quick", "--out", tmp_path / "demo", "--no-serve")
    assert first.code == 0, first.err
    assert first.says("demo done", "generated shop, simulated log", "next: smar serve")
    assert "Not-fashion" in first.out
    for made in ("report/metrics.json", "report/report.md", "index/current"):
        assert (tmp_path / "demo" / made).is_file()
    weights = tmp_path / "demo" / "run" / "stage2" / "model.safetensors"
    trained = weights.stat().st_mtime_ns
    served: list[object] = []
    monkeypatch.setattr("smar.core.logs.configure_logs", lambda: None)  # it is of the whole process
    monkeypatch.setattr("smar.serving.supervise.serve", lambda indexes, *_: served.append(indexes))
    second = smar("demo", "--quick", "--out", tmp_path / "demo")
    assert served == [{"default": tmp_path / "demo" / "index"}]
    assert second.code == 0, second.err
    assert second.says("is there already")
    assert weights.stat().st_mtime_ns == trained
