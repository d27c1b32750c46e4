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
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from smar.core.errors import InputError
from smar.core.files import sha256
from smar.search.query import MODEL_FILE, QueryEncoder
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
        "import sys; from pathlib import Path; from smar.search.query import QueryEncoder; "
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


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("red shirt", 0), ("", 1), ("\x00", 1), ("🙂", 1), ("red 红色", 2 / 5), ("red red 红色连衣裙 x", 6 / 12),
        ("red " * 20 + "红", 0),
    ],
)  # fmt: skip
def test_the_share_of_unknown_characters_is_told(embeddings: Path, text: str, share: float) -> None:
    """A word of an unknown character is unknown as a whole here; what is cut off was not read."""
    encoder = QueryEncoder.load(embeddings / "query")
    assert encoder.encode(["red", text, "red shirt"]).unknown == pytest.approx([0, share, 0])
    assert encoder.encode([text] * 40)[39:].unknown == pytest.approx([share])


def other_tokenizer(folder: Path, tokenizer: Tokenizer, **ids: object) -> QueryEncoder:
    tokenizer.save(str(folder / "tokenizer.json"))
    files = {name: sha256(folder / name) for name in (MODEL_FILE, "tokenizer.json")}
    rewrite_manifest(folder, files=files, **ids)
    return QueryEncoder.load(folder)


def test_bytes_of_a_fallback_are_unknown_characters(folder: Path) -> None:
    """As SentencePiece has them: one piece of text, blanks as signs."""
    pieces = [("<unk>", 0.0), ("▁red", -1.0), ("▁", -2.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256))]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    found = other_tokenizer(folder, tokenizer, pad_id=0, unknown_ids=[0, *range(3, 259)])
    shares = [found._tokenise([text])[2].item() for text in ("red", "red 红色", "红色连衣裙", "👗")]
    assert shares == pytest.approx([0, 2 / 5, 1, 1])


def test_an_end_token_that_is_the_unknown_one_is_not_counted(folder: Path) -> None:
    """CLIP's `<|endoftext|>` ends every query, pads it, and is its unknown token."""
    tokenizer = Tokenizer(models.WordLevel({"<end>": 0, "red": 1}, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 0)])
    found = other_tokenizer(folder, tokenizer, pad_id=0, unknown_ids=[0])
    assert found.encode(["red", "red red"]).unknown.tolist() == [0, 0]


def test_an_encoder_of_before_the_unknown_was_told_is_refused(folder: Path) -> None:
    rewrite_manifest(folder, format="smar-query/1")
    with pytest.raises(InputError, match=r"Make it again"):
        QueryEncoder.load(folder)


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
