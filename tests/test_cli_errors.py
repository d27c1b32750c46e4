"""Wrong input: exit code 2, one message that names the cause, no traceback; bad rows are counted, not fatal."""

import json
import shutil
import socket
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiny_index import write_query_encoder
from tiny_line import Line, Outcome, prepare_words, smar

ITEMS = {"item_id": ["a", "b", "c"], "title": ["red shirt", "blue shirt", "usb cable"]}
CLICKS = {
    "query": ["shirt", "cable", "shirt", "blue shirt"],
    "item_id": ["a", "c", "b", "b"],
    "timestamp": ["2026-01-01", "2026-01-05", "2026-01-20", "2026-01-30"],
    "clicked": [True, True, True, True],
}


def refused(done: Outcome, *parts: str) -> None:
    """Exit code 2, and a message with all the parts."""
    assert done.code == 2, done.err
    assert "Traceback" not in done.err
    for part in parts:
        assert done.says(part), (part, done.err)


def prepare(folder: Path, *words: object, items: object = ITEMS, clicks: object = CLICKS) -> Outcome:
    """`smar prepare` on small tables: columns, or the text of a CSV file."""
    for name, table in (("items", items), ("clicks", clicks)):
        if isinstance(table, str):
            (folder / f"{name}.csv").write_text(table)
        else:
            pq.write_table(pa.table(table), folder / f"{name}.parquet")
    files = [next(folder.glob(f"{name}.*")) for name in ("items", "clicks")]
    return smar("prepare", "--items", files[0], "--clicks", files[1], "--out", folder / "dataset", *words)


def test_small_tables_are_accepted(tmp_path: Path) -> None:
    done = prepare(tmp_path)
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("tables", "parts"),
    [
        (
            {"items": "item_id,name\na,red shirt\n"},
            ("no column 'title'", "Columns seen: item_id, name", "THEIR_NAME"),
        ),
        ({"clicks": "query,product\nshirt,a\n"}, ("--clicks", "no column 'item_id'")),
        ({"items": "item_id,title\n"}, ("--items", "empty")),
        ({"items": ""}, ("--items", "empty")),
        ({"clicks": "query,item_id,timestamp,clicked\n"}, ("--clicks", "empty")),
        (
            {"clicks": {**CLICKS, "item_id": ["x", "y", "z", "x"]}},
            ("'x'", "'a'"),
        ),
        ({"clicks": {**CLICKS, "clicked": [False] * 4}}, ("no click",)),
        ({"clicks": {**CLICKS, "timestamp": ["yesterday"] * 4}}, ("no readable timestamp: 4",)),
    ],
    ids=["no-title", "no-item-id", "header-only", "no-bytes", "empty-log", "unknown-items", "no-click", "no-time"],
)
def test_unusable_tables(tmp_path: Path, tables: dict[str, object], parts: tuple[str, ...]) -> None:
    refused(prepare(tmp_path, **tables), *parts)
    assert not (tmp_path / "dataset").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    items = {"item_id": ["a", "b", "c", "a", None], "title": [*ITEMS["title"], "red shirt again", "nameless"]}
    clicks = {name: [*values, *values[:2]] for name, values in CLICKS.items()}
    clicks["query"][4:] = [None, "   "]
    done = prepare(tmp_path, items=items, clicks=clicks)
    assert done.code == 0, done.err
    assert done.says("rejected items: duplicate item_id (the first row is kept) 1")
    assert done.says("rejected items: no item_id 1", "rejected clicks: no query 2")
    rejects = pq.read_table(tmp_path / "dataset" / "rejects.parquet").to_pylist()
    assert [(row["table"], row["row"]) for row in rejects] == [("clicks", 4), ("clicks", 5), ("items", 3), ("items", 4)]


@pytest.mark.parametrize(
    ("date", "parts"),
    [
        ("2027-01-01", ("the test period holds no click", "2026-01-30", "earlier --test-from")),
        ("2025-01-01", ("no click is left for training", "later --test-from")),
        ("27.09.2026", ("--test-from", "'27.09.2026' is not a date such as 2026-09-27")),
    ],
)
def test_unusable_dates(tmp_path: Path, date: str, parts: tuple[str, ...]) -> None:
    refused(prepare(tmp_path, "--test-from", date), *parts)


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ("train: {stage1: {step: 5}}", ("train.stage1.step", "Extra inputs", "(got 5)")),
        ("data: {image_size: large}", ("data.image_size", "valid integer", "(got 'large')")),
        ("model: {query: {hidden: 30, heads: 4}}", ("model.query", "multiple of heads")),
        (
            "{data: {image_size: 60}, model: {vision: {kind: vit}}}",
            ("data.image_size (60) must be a multiple of model.vision.patch (8)",),
        ),
        ("- data", ("must hold sections",)),
        ("data: [", ("cannot be read as YAML",)),
    ],
    ids=["unknown-key", "wrong-type", "heads", "patch", "no-sections", "no-yaml"],
)
def test_unusable_configuration(tmp_path: Path, config: str, parts: tuple[str, ...]) -> None:
    (tmp_path / "config.yaml").write_text(config)
    refused(prepare(tmp_path, "--config", tmp_path / "config.yaml"), *parts)


@pytest.mark.parametrize(
    ("assignment", "parts"),
    [
        ("train.seed", ("--set takes section.key=value", "'train.seed'")),
        ("train.sead=1", ("train.sead",)),
        ("train.seed.x=1", ("train.seed", "(got {'x': 1})")),
        ("train.stage1.steps=many", ("train.stage1.steps", "(got 'many')")),
        ("data.slice_columns=[group", ("data.slice_columns=[group",)),
    ],
)
def test_unusable_assignments(tmp_path: Path, assignment: str, parts: tuple[str, ...]) -> None:
    refused(prepare(tmp_path, "--set", assignment), *parts)


def test_missing_configuration(tmp_path: Path) -> None:
    refused(prepare(tmp_path, "--config", tmp_path / "none.yaml"), "none.yaml does not exist")


def test_out_that_is_something_else(line: Line, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    refused(smar(*prepare_words(line.root), "--out", tmp_path), "no smar dataset", "left alone")
    refused(smar("embed", line.run, line.dataset, "--out", tmp_path), "not made by `smar embed`")
    refused(smar("index", line.embeddings, "--out", tmp_path), "is not an index")
    refused(smar("train", line.dataset, "--out", tmp_path, "--config", line.config), "not made by `smar train`")
    for command in (["index", line.embeddings], ["evaluate", line.run, line.dataset], ["train", line.dataset]):
        refused(smar(*command, "--out", tmp_path / "notes.txt"), "notes.txt is a file; give a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_run_of_another_dataset(line: Line, tmp_path: Path) -> None:
    smaller = [*prepare_words(line.root), "--set", "data.test_share=0.2", "--set", "data.thumbnail_size=0"]
    assert smar(*smaller, "--out", tmp_path / "other").code == 0
    again = smar("train", tmp_path / "other", "--out", line.run, "--config", line.config)
    refused(again, f"{line.run} was trained on another dataset", "another --out")


def test_run_of_another_configuration(line: Line) -> None:
    again = smar("train", line.dataset, "--out", line.run, "--config", line.config, "--set", "train.seed=9")
    refused(again, "another configuration", "train.seed: 0 then, 9 now")


def test_unfinished_run(line: Line, tmp_path: Path) -> None:
    run = line.copy("run", tmp_path)
    shutil.rmtree(run / "stage2")
    for words in (["evaluate", run, line.dataset], ["embed", run, line.dataset]):
        refused(smar(*words, "--out", tmp_path / "out"), f"{run} is not finished", "Run `smar train`")
    for words in (["evaluate", tmp_path / "no", line.dataset], ["embed", tmp_path / "no", line.dataset]):
        refused(smar(*words, "--out", tmp_path / "out"), f"{tmp_path / 'no'} was not made by `smar train`")
    refused(smar("train", line.run, "--out", tmp_path / "out"), "manifest.json is not a manifest of `smar prepare`")


def test_corrupt_model(line: Line, tmp_path: Path) -> None:
    weights = line.copy("run", tmp_path) / "stage2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    for command in ("embed", "evaluate"):
        failed = smar(command, tmp_path / "run", line.dataset, "--out", tmp_path / command)
        refused(failed, str(tmp_path / "run" / "stage2"), "is damaged", "Train it again")


def test_corrupt_shard(line: Line, tmp_path: Path) -> None:
    shard = line.copy("embeddings", tmp_path) / "shard-00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100])
    refused(smar("index", tmp_path / "embeddings", "--out", tmp_path / "index"), "shard-00000.parquet is damaged")
    assert not (tmp_path / "index").exists()


def test_index_made_by_another_model(line: Line, tmp_path: Path) -> None:
    index = line.copy("index", tmp_path)
    version = index / "v0001"
    ours = json.loads((version / "manifest.json").read_text())["fingerprint"]
    shutil.rmtree(version / "query")
    write_query_encoder(version / "query", fingerprint="0123456789abcdef")
    for command in (["search", index, "red dress"], ["serve", index, "--port", "0"]):
        refused(smar(*command), "is of model 0123456789abcdef", f"of model {ours}")


@pytest.mark.parametrize("name", ["vectors.faiss", "payload.arrow", "pictures.bin", "query/model.onnx"])
def test_truncated_index(line: Line, tmp_path: Path, name: str) -> None:
    file = line.copy("index", tmp_path) / "v0001" / name
    content = file.read_bytes()
    file.unlink()  # pictures.bin may be another folder's file by a hard link
    file.write_bytes(content[: len(content) // 2])
    failed = smar("search", tmp_path / "index", "red dress")
    refused(failed, str(file), f"has {len(content) // 2:,} bytes, expected {len(content):,}", "smar index")


def test_port_in_use(line: Line) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(smar("serve", line.index, "--port", port), f"port {port} of 127.0.0.1 is in use", "--port")


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["x" * 10_000], ("10,000 characters", "at most 1,000")),
        ([""], ("the query is empty",)),
        ([" \t "], ("the query is empty",)),
        ([], ("give one query", "--queries FILE")),
        (["dress", "--queries", "q.txt", "--run", "r.trec"], ("give one query",)),
        (["--queries", "q.txt"], ("--run",)),
        (["--queries", "no-such-file.txt", "--run", "r.trec"], ("no-such-file.txt cannot be read",)),
        (["dress", "--run", "r.trec"], ("--queries",)),
        (["dress", "--filter", "price<"], ("filter",)),
        (["dress", "--filter", "prize<5"], ("prize", "price")),
        (["dress", "-k", "0"], ("k is 0",)),
        (["dress", "-k", "many"], ("invalid int value: 'many'",)),
        (["dress", "--mode", "loud"], ("adaptive", "text", "multimodal")),
    ],
    ids=lambda value: "-".join(map(str, value))[:40] if isinstance(value, list) else "",
)
def test_unusable_searches(line: Line, words: list[str], parts: tuple[str, ...]) -> None:
    refused(smar("search", line.index, *words), *parts)


@pytest.mark.parametrize(("text", "part"), [("shirt\n\nsocks\n", "line 2: the query is empty"), ("", "line 1: ")])
def test_unusable_query_file(line: Line, tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "q.txt").write_text(text)
    words = ["--queries", tmp_path / "q.txt", "--run", tmp_path / "r.trec"]
    refused(smar("search", line.index, *words), part)
    assert [path.name for path in tmp_path.iterdir()] == ["q.txt"]


def test_missing_index(tmp_path: Path) -> None:
    refused(smar("search", tmp_path / "none", "dress"), "none/current is missing", "smar index")
    refused(smar("serve", tmp_path / "none", "--port", "0"), "none/current is missing")
