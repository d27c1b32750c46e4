"""The query encoder: the same numbers as the torch module, and no damaged or foreign file let through."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from smar.errors import InputError
from smar.files import sha256
from smar.index.query import MODEL_FILE, QueryEncoder
from tiny_index import DIM, WORDS, TinyQuery, rewrite_manifest


@pytest.fixture
def folder(embeddings: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(embeddings / "query", tmp_path / "query"))


def test_equals_torch(embeddings: Path) -> None:
    texts = ["red shirt", "Steel kettle new", "watch"]
    found = QueryEncoder.load(embeddings / "query").encode(texts)
    for at, text in enumerate(texts):
        ids = torch.tensor([[WORDS.index(word) for word in text.lower().split()]])
        with torch.no_grad():
            embedding, probability = TinyQuery()(ids, torch.ones_like(ids))
        np.testing.assert_allclose(found.embedding[at], embedding[0].numpy(), atol=1e-6)
        np.testing.assert_allclose(found.image_probability[at], probability[0].numpy(), atol=1e-6)


def test_nothing_is_reported_to_anyone(embeddings: Path, tmp_path: Path) -> None:
    """onnxruntime prepares its reports in the home folder, before it sends them."""
    code = (
        "import sys; from pathlib import Path; from smar.index.query import QueryEncoder; "
        "QueryEncoder.load(Path(sys.argv[1])).encode(['red'])"
    )
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = [sys.executable, "-c", code, str(embeddings / "query")]
    subprocess.run(command, check=True, env=kept | {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_batch_equals_one_by_one(embeddings: Path) -> None:
    encoder = QueryEncoder.load(embeddings / "query")
    texts = ["red", "plain small classic new red shirt", "🙂", "", "\x00", "never seen words"] * 60
    batch = encoder.encode(texts)
    assert batch.embedding.shape == (len(texts), DIM)
    assert batch.embedding.dtype == batch.image_probability.dtype == np.float32
    for at in range(6):
        alone = encoder.encode([texts[at]])
        np.testing.assert_allclose(batch.embedding[at::6], np.repeat(alone.embedding, 60, axis=0), atol=1e-6)
        np.testing.assert_allclose(batch.image_probability[at::6], np.repeat(alone.image_probability, 60), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(batch.embedding, axis=1), 1, atol=1e-5)


def test_no_texts(embeddings: Path) -> None:
    nothing = QueryEncoder.load(embeddings / "query").encode([])
    assert nothing.embedding.shape == (0, DIM)
    assert len(nothing) == len(nothing.image_probability) == 0


def test_long_query_is_truncated(embeddings: Path) -> None:
    encoder = QueryEncoder.load(embeddings / "query")
    long, cut = encoder.encode(["red " * 500, "red " * encoder.manifest.max_length]).embedding
    np.testing.assert_allclose(long, cut, atol=1e-6)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_damage_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} is damaged"):
        QueryEncoder.load(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        QueryEncoder.load(folder)


def test_manifest_must_name_the_files(folder: Path) -> None:
    rewrite_manifest(folder, files={})
    with pytest.raises(InputError, match=r"does not name model.onnx"):
        QueryEncoder.load(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"manifest.json is missing"):
        QueryEncoder.load(folder)


def test_what_is_not_a_graph_is_refused(folder: Path) -> None:
    files = {"tokenizer.json": sha256(folder / "tokenizer.json")}
    (folder / MODEL_FILE).write_bytes(b"not a graph")
    rewrite_manifest(folder, files=files | {MODEL_FILE: sha256(folder / MODEL_FILE)})
    with pytest.raises(InputError, match="does not hold a query encoder"):
        QueryEncoder.load(folder)


def test_a_graph_with_other_outputs_is_refused(folder: Path) -> None:
    model = onnx.load(folder / MODEL_FILE)
    del model.graph.output[1]
    onnx.save(model, folder / MODEL_FILE)
    files = {name: sha256(folder / name) for name in (MODEL_FILE, "tokenizer.json")}
    rewrite_manifest(folder, files=files)
    with pytest.raises(InputError, match=r"expected .*image_probability"):
        QueryEncoder.load(folder)
