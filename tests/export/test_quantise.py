"""The int8 query encoder: its measured cost, and the gate in front of making it the default."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from smar.core.errors import InputError
from smar.export import quantise
from smar.search.embeddings import Embeddings
from smar.search.local.live import UpdatableIndex
from smar.search.query import Precision, QueryEncoder
from tiny_index import write_embeddings
from tiny_line import Line, smar


@pytest.fixture(scope="module")
def exported(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "encoder"
    done = smar("export", line.run, "--embeddings", line.embeddings, "--out", folder)
    assert done.code == 0, done.err
    assert done.says("recall@50 int8", "validation queries", "of the top 50 equal")
    return folder


def test_cost_equals_counting(line: Line, exported: Path) -> None:
    source = Embeddings(line.embeddings)
    vectors = np.concatenate([np.concatenate([s.multimodal, s.text], axis=1) for s in source.shards()])
    ids = source.payload["item_id"].to_pylist()
    clicked: dict[str, set[str]] = {}
    for row in source.valid().to_pylist():
        clicked.setdefault(row["query"], set()).add(row["item_id"])
    recall, tops = {}, {}
    for precision in Precision:
        encoder = QueryEncoder.load(exported, precision=precision)
        shares, tops[precision] = [], {}
        for query, wanted in clicked.items():
            asked = encoder.encode([query])
            p, embedding = asked.image_probability[0], asked.embedding[0]
            scores = vectors @ np.concatenate([p * embedding, (1 - p) * embedding])
            tops[precision][query] = {ids[row] for row in np.argsort(-scores)[:50]}
            shares.append(len(wanted & tops[precision][query]) / len(wanted))
        recall[precision] = np.mean(shares)
    cost = QueryEncoder.load(exported).manifest.int8
    assert cost.queries == len(clicked)
    assert cost.float32 == pytest.approx(recall[Precision.FLOAT32], abs=0.005)
    assert cost.int8 == pytest.approx(recall[Precision.INT8], abs=0.02)  # int8 depends on what shares a batch
    assert cost.recall_cost == pytest.approx((cost.float32 - cost.int8) / cost.float32)
    assert 0.5 < cost.overlap <= 1


def test_both_graphs_are_there_and_float32_is_the_default(exported: Path) -> None:
    texts = ["red dress", "kettle", "a much longer query for a pair of blue trousers"]
    default, exact, small = (
        QueryEncoder.load(exported, precision=p) for p in (None, Precision.FLOAT32, Precision.INT8)
    )
    assert default.manifest.precision is Precision.FLOAT32
    np.testing.assert_array_equal(default.encode(texts).embedding, exact.encode(texts).embedding)
    difference = np.abs(small.encode(texts).embedding - exact.encode(texts).embedding).max()
    assert 0 < difference < 0.1
    sizes = [(exported / name).stat().st_size for name in ("model.int8.onnx", "model.onnx")]
    assert sizes[0] < sizes[1]


def test_int8_is_the_default_where_it_costs_little(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantise, "MAX_COST", 1.0)
    words = ("export", line.run, "--embeddings", line.embeddings, "--precision", "int8", "--out", tmp_path / "encoder")
    assert smar(*words).code == 0
    assert QueryEncoder.load(tmp_path / "encoder").manifest.model_file() == "model.int8.onnx"
    done = smar("index", line.embeddings, "--query", tmp_path / "encoder", "--out", tmp_path / "index")
    assert done.code == 0, done.err
    shutil.rmtree(tmp_path / "encoder")
    assert UpdatableIndex.open(tmp_path / "index").snapshot.encoder.manifest.precision is Precision.INT8


def test_int8_is_refused_as_the_default_where_it_costs_more(
    line: Line, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantise, "MAX_COST", -2.0)
    folder = Path(shutil.copytree(exported, tmp_path / "encoder"))
    words = ("export", line.run, "--embeddings", line.embeddings, "--out", folder)
    refused = smar(*words, "--precision", "int8")
    assert refused.code == 2
    assert refused.says("int8 costs", "of recall@50", "Export with --precision float32")
    assert QueryEncoder.load(folder).manifest.precision is Precision.FLOAT32
    assert not (folder / "model.int8.onnx").exists()
    assert smar(*words).code == 0  # beside float32 it may lie whatever it costs
    assert (folder / "model.int8.onnx").exists()


def test_what_cannot_be_measured_is_refused(line: Line, exported: Path, tmp_path: Path) -> None:
    failed = smar("export", line.run, "--precision", "int8", "--out", tmp_path / "a")
    assert failed.code == 2
    assert failed.says("--precision int8 needs --embeddings")
    other = write_embeddings(tmp_path / "other", 12)
    with pytest.raises(InputError, match=r"of model feedfeed.* must be measured"):
        quantise.add_int8(exported, other)
    silent = line.copy("embeddings", tmp_path)
    (silent / "valid.parquet").unlink()
    with pytest.raises(InputError, match="no validation queries to measure int8 on"):
        quantise.add_int8(exported, silent)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    assert smar("export", line.run, "--out", tmp_path / "full").says("manifest.json is missing")


def test_the_manifest_holds_the_cost(exported: Path) -> None:
    cost = json.loads((exported / "manifest.json").read_text())["int8"]
    assert set(cost) == {"queries", "float32", "int8", "recall_cost", "overlap"}
