"""A saved stage is a folder as model hubs know it."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModel

from smar.core.errors import InputError
from smar.core.settings import load_settings
from smar.data.dataset import Dataset
from smar.model.encoder import Encoder, fingerprint
from smar.model.run_folder import StageRecord
from smar.training.card import write_card
from tiny_line import Line

QUERIES = ["red dress", "blue shoe"]
MORE = """
import numpy as np
import torch
queries = ["red dress", "blue shoe"]
ids, mask = encoder._pad(encoder.processor.query_ids(queries, encoder.config))
pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
with torch.inference_mode():
    query = model.encode_query_ids(ids, mask)
    item = model.encode_item_ids(ids[:1], mask[:1], pixels, torch.tensor([True]))
np.savez("out", name=type(model).__name__, vector=vector, vectors=vectors.detach(), p=query.image_probability,
         multimodal=item.multimodal, text=item.text, image=item.image)
"""


def test_the_cards_code_gives_the_same_vectors_in_a_fresh_process(line: Line, tmp_path):
    """As it is written; the last block first, which must import all that it needs."""
    (tmp_path / "this-folder").symlink_to(line.run / "stage2")
    use = (line.run / "stage2" / "README.md").read_text().split("## Use")[1]
    blocks = [part.split("```")[0] for part in use.split("```python\n")[1:]]
    assert len(blocks) == 2
    subprocess.run([sys.executable, "-c", "\n".join([*reversed(blocks), MORE])], check=True, cwd=tmp_path)
    fresh, encoder = np.load(tmp_path / "out.npz"), Encoder.from_pretrained(line.run / "stage2")
    query = encoder.encode_query(QUERIES)
    ids, mask = encoder._pad(encoder.processor.query_ids(QUERIES, encoder.config))
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.inference_mode():
        item = encoder.model.encode_item_ids(ids[:1], mask[:1], pixels, torch.tensor([True]))
    assert fresh["name"] == "SmarModel"
    assert np.abs(fresh["vector"] - query.embedding[:1].numpy()).max() < 1e-6
    assert np.abs(fresh["vectors"] - query.embedding.numpy()).max() < 1e-6
    assert np.abs(fresh["p"] - query.image_probability.numpy()).max() < 1e-6
    for name in ("text", "image", "multimodal"):
        assert np.abs(fresh[name] - getattr(item, name).numpy()).max() < 1e-6


@pytest.mark.parametrize("stage", ["stage1", "stage2", "baselines/dpsr/stage2"])
def test_card_says_what_the_run_knows(line: Line, stage):
    card = ModelCard.load(line.run / stage / "README.md")
    record = StageRecord.read(line.run / stage, "smar train")
    for part in ("## Data", "## Training", "## Metrics", "## Limits", "## Use"):
        assert part in card.text
    assert f"R@50 on validation clicks: {record.validated.recall:.3f} after step {record.validated.step:,}" in card.text
    assert f"{record.steps:,} steps, {record.pairs:,} pairs" in card.text
    assert "300 items" in card.text
    assert ("--format sentence-transformers" in card.text) == (record.kind == "dpsr")
    assert record.cpu_seconds > 0
    assert record.pairs_per_second == pytest.approx(record.pairs / record.seconds)


@pytest.mark.parametrize("stage", ["stage2", "baselines/dpsr/stage2"])
def test_a_hubs_metadata_of_a_model_from_scratch(line: Line, stage):
    front = ModelCard.load(line.run / stage / "README.md").data
    record = StageRecord.read(line.run / stage, "smar train")
    assert (front.license, front.license_name, front.library_name) == ("other", "not-stated", "smar")
    assert front.base_model is None
    assert "pipeline_tag" not in front.to_dict()  # no pipeline can ask a tower
    assert len(front.tags) == len(set(front.tags))
    assert {"smar", record.kind} <= set(front.tags)
    assert ("multimodal" in front.tags) == (record.kind == "smar")
    (result,) = front.eval_results
    assert (result.metric_type, result.dataset_name) == ("recall_at_50", "generated shop, simulated log")
    assert result.metric_value == pytest.approx(record.validated.recall, abs=1e-4)
    assert front.metrics == ["recall_at_50"]


def test_a_hubs_metadata_names_licence_and_base_models_but_no_local_path(line: Line, tmp_path):
    (tmp_path / "minilm").mkdir()
    towers = [f"model.{tower}.pretrained={tmp_path / 'minilm'}" for tower in ("query", "text")]
    settings = load_settings(
        line.run / "config.yaml", [*towers, "model.vision.pretrained=facebook/dinov2-small@abc", "train.license=mit"]
    )
    data = SimpleNamespace(dataset=Dataset.open(line.dataset), pairs=[], queries=[])
    record = StageRecord.read(line.run / "stage2", "smar train")
    for kind, bases in (("smar", ["facebook/dinov2-small"]), ("dpsr", None)):
        model = settings.model.model_copy(update={"kind": kind})
        unseen = record.model_copy(update={"validated": None})
        write_card(tmp_path, unseen, data, settings.model_copy(update={"model": model}), 0.03)
        card = ModelCard.load(tmp_path / "README.md")
        assert (card.data.base_model, card.data.license) == (bases, "mit")
        assert not {"license_name", "model-index", "metrics"} & card.data.to_dict().keys()
        assert "From pretrained weights: " in card.text
        assert "a local minilm" in card.text
        assert str(tmp_path) not in card.content
        assert "no licence" not in card.text


def saved(folder) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()} - {"manifest.json"}


def test_a_saved_copy_is_whole(line: Line, tmp_path):
    model = AutoModel.from_pretrained(line.run / "stage2")
    model.save_pretrained(tmp_path)
    assert saved(tmp_path) == saved(line.run / "stage2")
    model.save_pretrained(tmp_path)  # over itself
    own, copy = (
        Encoder.from_pretrained(folder).encode_queries(QUERIES)[0] for folder in (line.run / "stage2", tmp_path)
    )
    assert np.array_equal(own, copy)
    assert fingerprint(tmp_path) == fingerprint(line.run / "stage2")  # so the copy's queries fit the index
    again = AutoModel.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path)  # into the folder that it came from
    assert (tmp_path / "README.md").read_text() == (line.run / "stage2" / "README.md").read_text()


def test_a_copy_from_a_folder_that_is_gone_says_what_it_lacks(line: Line, tmp_path):
    folder = Path(shutil.copytree(line.run / "stage2", tmp_path / "moved"))
    model = AutoModel.from_pretrained(folder)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="call push_to_hub"):
        model.save_pretrained(tmp_path / "copy", push_to_hub=True)
    with pytest.raises(InputError, match="moved, which this model was loaded from, is gone"):
        model.save_pretrained(tmp_path / "copy")
    assert saved(tmp_path / "copy") == {"model.safetensors", "config.json"}


def test_what_is_pushed_is_the_saved_folder(line: Line, monkeypatch):
    """No hub can be reached: its two calls are recorded, and the folder is looked at while it is there."""
    seen = {}

    def create(self, repo_id, **options):
        return SimpleNamespace(repo_id=f"shop/{repo_id}")

    def upload(self, *, repo_id, folder_path, **options):
        folder = Path(folder_path)
        seen.update(repo=repo_id, files=saved(folder), card=(folder / "README.md").read_text(), options=options)
        return f"https://hub/{repo_id}"

    monkeypatch.setattr(HfApi, "create_repo", create)
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    model = AutoModel.from_pretrained(line.run / "stage2")
    assert model.push_to_hub("search", commit_message="first") == "https://hub/shop/search"
    assert (seen["repo"], seen["options"]) == ("shop/search", {"commit_message": "first"})
    assert seen["files"] == saved(line.run / "stage2")
    assert seen["card"] == (line.run / "stage2" / "README.md").read_text()
