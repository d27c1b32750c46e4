"""sentence-transformers gives a dpsr model's own vectors, or the export is refused with a sentence."""

import sys

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from checkpoints import PAIRS, SIDE, checkpoint
from smar.core.errors import InputError
from smar.core.settings import load_settings
from smar.data.text import normalise
from smar.export import sentences
from smar.export.sentences import export_sentences
from smar.model.encoder import Encoder
from smar.model.processing import build_processor
from smar.model.start import new_model
from tiny_line import Line, smar

QUERIES = ["Red Dress", "Straße ΣΟΦΟΣ", "kettle 1.7 l", "a long blue cotton shirt with sleeves " * 10, "☃ unknown", ""]
FIELDS = [
    [*QUERIES[:4], "ＮＩＫＥ ™", "shoe"],
    ["Dresses", "", "Kettles", "Shirts", "", ""],
    ["Acme", "", "", "", "B", ""],
]
FRESH = [f"model.{tower}.{size}" for tower in ("query", "text") for size in ("hidden=32", "layers=1")]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


def dpsr(*assignments: str) -> Encoder:
    settings = load_settings(None, ["model.kind=dpsr", "train.baselines=[]", f"data.image_size={SIDE}", *assignments])
    processor = build_processor(settings.model, SIDE, ["red dress for women", "kettle 1.7 l"] * 3)
    torch.manual_seed(0)
    return Encoder(new_model(settings, settings.model, processor), processor)


def pretrained(root, name: str) -> list[str]:
    folder = checkpoint(name, root)
    return [f"model.{tower}.pretrained={folder}" for tower in (["query", "text"] if name not in PAIRS else [])] or [
        f"model.pretrained={folder}"
    ]


def same_there(encoder: Encoder, folder, queries=QUERIES) -> None:
    """The library's vectors of normal forms are ours, one at a time and together."""
    read = SentenceTransformer(str(folder), device="cpu")
    fields = [field[: len(queries)] for field in FIELDS]
    own, _ = encoder.encode_queries(queries)
    items = encoder.encode_item(fields, np.zeros((0, SIDE, SIDE, 3), np.uint8), np.zeros(len(queries), bool)).text
    texts, joined = [normalise(query) for query in queries], encoder.processor.item_texts(fields)
    assert np.abs(read.encode_query(texts) - own).max() < 1e-5
    assert np.abs(read.encode_document(joined) - items.numpy()).max() < 1e-5
    assert np.abs(read.encode(joined) - items.numpy()).max() < 1e-5
    assert np.abs(np.stack([read.encode_query(text) for text in texts]) - own).max() < 1e-5
    assert np.abs(own - items.numpy()).max() > 0.01  # two sides, not one


@pytest.mark.parametrize(
    "how", [("model.share_text=true",), ("model.share_text=false", "model.pooling=cls"), ("model.query_length=8",)]
)
def test_a_fresh_model(tmp_path, how):
    encoder = dpsr(*FRESH, *how)
    assert export_sentences(encoder, tmp_path / "out") < 1e-5
    same_there(encoder, tmp_path / "out")
    copies = len(list((tmp_path / "out").glob("*_Transformer")))
    assert copies == (2 if "model.share_text=false" in how else 1)


def test_a_sentence_encoder_with_prefixes(root, tmp_path):
    more = ["model.query_prefix='query: '", "model.item_prefix='item: '", "model.dim=16"]
    encoder = dpsr(*pretrained(root, "minilm"), *more)
    assert export_sentences(encoder, tmp_path / "out") < 1e-5
    same_there(encoder, tmp_path / "out")


@pytest.mark.parametrize("name", ["clip", "gemma3", "qwen3"])  # the encoder's own pooled state, the last token
def test_other_poolings(root, tmp_path, name):
    encoder = dpsr(*pretrained(root, name), *(["model.dim=16"] if name != "clip" else []))
    assert export_sentences(encoder, tmp_path / "out") < 1e-5
    if name != "clip":  # whose two projections are the same before training
        same_there(encoder, tmp_path / "out", QUERIES[:1] + QUERIES[2:4])


@pytest.mark.parametrize(
    ("name", "said"), [("siglip", "filled up to 16 tokens"), ("chinese_clip", "cannot read this model: ValueError")]
)
def test_what_the_library_cannot_do_is_refused(root, tmp_path, name, said):
    with pytest.raises(InputError, match=said):
        export_sentences(dpsr(*pretrained(root, name)), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_other_vectors_are_refused_and_an_older_folder_stays(tmp_path, monkeypatch):
    encoder = dpsr(*FRESH)
    export_sentences(encoder, tmp_path / "out")
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    monkeypatch.setattr(sentences, "TOLERANCE", -1.0)
    with pytest.raises(InputError, match="differ from this model's by"):
        export_sentences(encoder, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before


def test_without_the_library_its_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(InputError, match=r"install smar\[sentences\]"):
        export_sentences(dpsr(*FRESH), tmp_path / "out")


def test_the_command(line: Line, tmp_path):
    out = tmp_path / "out"
    words = ("export", line.run, "--format", "sentence-transformers", "--out", out)
    assert smar(*words).says("kind dpsr, words alone, and this one is of kind smar", "--baseline NAME")
    assert smar(*words, "--baseline", "none").says("has no baseline none; it has dpsr, dpsr-i")
    assert smar(*words, "--embeddings", line.embeddings).says("belong to --format onnx")
    done = smar(*words, "--baseline", "dpsr")
    assert done.code == 0, done.err
    assert done.says("largest difference")
    card = (out / "README.md").read_text()
    for part in (
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "- sentence-transformers\n",
    ):
        assert part in card
    assert "title [SEP] category [SEP] brand" in card
    assert "smar.model.encoder" not in card
    assert smar(*words, "--baseline", "dpsr").code == 0  # an older export is replaced
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    assert smar(*words[:-1], tmp_path / "other", "--baseline", "dpsr").says("was not made by this command")
