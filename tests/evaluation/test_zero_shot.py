"""A run from pretrained weights reports what it could do before training."""

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from checkpoints import checkpoint
from smar.core.settings import load_settings
from smar.data.dataset import Dataset
from smar.evaluation.metrics import read_judgements
from smar.evaluation.scores import Task, rank
from smar.evaluation.systems import rank_run
from smar.model.encoder import Encoder
from smar.model.processing import build_processor
from smar.model.start import new_model, start_key
from tiny_line import prepare_shop, smar

SHORT = ["train.baselines=[]", "train.threads=1", "train.evaluate_steps=0", "model.dim=null", "train.bf16=false"]
PARTLY = [
    "model.query.lora=2",
    "model.text.lora=2",
    "model.vision.unfreeze_last=1",
    "train.activation_checkpointing=true",
]
SIZES = [f"train.stage{stage}.{key}" for stage in (1, 2) for key in ("steps=2", "batch_size=16")]


@torch.no_grad()
def own_scores(folder: Path, dataset: Dataset, queries: list[str]) -> np.ndarray:
    """What the checkpoint says by itself: query text against the sum of item text and picture."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    pictures = AutoImageProcessor.from_pretrained(folder, backend="pil")

    def text(texts: list[str]) -> torch.Tensor:
        words = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
        return normalize(model.get_text_features(**words).pooler_output, dim=-1)

    items = text(
        [" , ".join(filter(None, values)) for values in zip(*dataset.fields(dataset.text_fields), strict=True)]
    )
    shown = np.flatnonzero(dataset.image_row >= 0)
    images = [Image.fromarray(dataset.images[row]) for row in dataset.image_row[shown]]
    seen = model.get_image_features(**pictures(images=images, return_tensors="pt")).pooler_output
    items[shown] += normalize(seen, dim=-1)
    return (text(queries) @ normalize(items, dim=-1).T).numpy()


def test_the_row_is_the_checkpoint_itself_and_is_left_out_aloud_where_its_weights_are_gone(tmp_path):
    assert prepare_shop(tmp_path, items=80, searches=600).code == 0
    folder = shutil.copytree(checkpoint("clip", tmp_path / "made"), tmp_path / "clip")
    sets = [word for text in (f"model.pretrained={folder}", *SHORT, *PARTLY, *SIZES) for word in ("--set", text)]
    run = tmp_path / "run"
    done = smar("train", tmp_path / "dataset", "--out", run, "--config", tmp_path / "tiny.yaml", *sets)
    assert done.code == 0, done.err
    saved, first = load_file(run / "stage2" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert not [name for name in saved if "lora" in name]  # the adapters are in the weights
    moved = "layers.1.self_attn.q_proj.weight"
    for tower, part in (("query_tower", "text"), ("image_tower", "vision")):
        assert not torch.equal(saved[f"{tower}.encoder.encoder.{moved}"], first[f"{part}_model.encoder.{moved}"])
    frozen = "encoder.layers.0.mlp.fc1.weight"
    assert torch.equal(saved[f"image_tower.encoder.{frozen}"], first[f"vision_model.{frozen}"])
    dataset = Dataset.open(tmp_path / "dataset")
    judged = read_judgements(dataset.qrels(), dataset.items["item_id"])
    task = Task(judged.relevance, 20, 20, np.arange(0))
    ranked = rank_run(run, "smar", dataset, judged.queries, task, controls=False)
    scores = own_scores(folder, dataset, judged.queries)
    best = np.take_along_axis(scores, ranked.others["zero-shot"].ranking, 1)
    assert np.allclose(best, np.take_along_axis(scores, rank(scores, 20), 1), atol=1e-5)
    assert not np.array_equal(ranked.others["zero-shot"].ranking, ranked.others["multimodal"].ranking)
    weights = folder / "model.safetensors"
    save_file({name: 1.1 * value for name, value in load_file(weights).items()}, weights, {"format": "pt"})
    assert "other weights" in rank_run(run, "smar", dataset, judged.queries, task, controls=False).absent["zero-shot"]
    shutil.rmtree(folder)
    done = smar("evaluate", run, tmp_path / "dataset", "--out", tmp_path / "report")
    assert done.code == 0, done.err
    report = (tmp_path / "report" / "report.md").read_text()
    assert "no zero-shot row" in report
    assert "no pretrained encoder under" in report
    assert "zero-shot (before training)" not in report


def test_models_that_began_alike_have_one_row(tmp_path):
    folder = checkpoint("clip", tmp_path)
    words = [f"model.query.pretrained={folder}", f"model.text.pretrained={folder}"]

    def key(*assignments: str) -> str:
        settings = load_settings(None, [*assignments, "data.image_size=32", "train.baselines=[]"])
        processor = build_processor(settings.model, 32, ["red dress"])
        torch.manual_seed(len(assignments))
        return start_key(Encoder(new_model(settings, settings.model, processor), processor))

    pair = f"model.pretrained={folder}"
    assert key(pair) == key(pair, "model.fusion=gated", "train.stage1.steps=1")  # the fusion begins as the sum
    assert len({key(pair), key(pair, "model.kind=dpsr"), key(pair, "model.query_length=8"), key(*words)}) == 4
