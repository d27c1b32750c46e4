"""Checkpoints that open_clip wrote: beside transformers' files they do no harm, alone they are refused by name."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from checkpoints import SIDE, checkpoint
from smar.core.errors import InputError
from smar.core.settings import load_settings
from smar.model.processing import build_processor
from smar.model.start import new_model

CONFIG = {
    "model_cfg": {
        "embed_dim": 24,
        "vision_cfg": {"image_size": SIDE, "layers": 2, "width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 79, "width": 32, "heads": 4, "layers": 2},
    },
    "preprocess_cfg": {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28]},
}
"""As open_clip's push_to_hf_hub writes it."""


@pytest.fixture
def folder(tmp_path):
    made = checkpoint("clip", tmp_path)
    (made / "open_clip_config.json").write_text(json.dumps(CONFIG))
    weights = load_file(made / "model.safetensors")
    theirs = {
        "visual.proj": weights["visual_projection.weight"].T.contiguous(),
        "text_projection": weights["text_projection.weight"].T.contiguous(),
        "logit_scale": weights["logit_scale"],
        "token_embedding.weight": weights["text_model.embeddings.token_embedding.weight"],
    }
    save_file(theirs, made / "open_clip_model.safetensors")
    return made


def start(folder):
    settings = load_settings(None, [f"model.pretrained={folder}", f"data.image_size={SIDE}"])
    return new_model(settings, settings.model, build_processor(settings.model, SIDE, ["red dress"]))


def test_a_folder_with_both_layouts_is_read_in_that_of_transformers(folder):
    assert start(folder).config.head("query_tower").kept


def test_open_clips_layout_alone_is_refused_by_name(folder):
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"holds open_clip_config\.json: .* open_clip's own layout"):
        start(folder)


def test_a_configuration_of_transformers_over_weights_of_open_clip_is_refused(folder):
    """As repositories do it whose config.json points to Python code of their own, which is never run."""
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "shop.ShopConfig", "AutoModel": "shop.ShopModel"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "shop.py").write_text("raise SystemExit('this code must not run')\n")
    assert start(folder).config.head("query_tower").kept  # the class is transformers' own, whatever the map says
    shutil.copy(folder / "open_clip_model.safetensors", folder / "model.safetensors")
    with pytest.raises(InputError, match=r"open_clip's own layout"):
        start(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "shop", "auto_map": config["auto_map"]}))
    with pytest.raises(InputError, match=r"open_clip's own layout"):
        start(folder)


def test_a_folder_that_is_not_there_is_said_to_be_none(tmp_path):
    with pytest.raises(InputError, match=r"no pretrained encoder under .*Give a local folder or a hub name\."):
        start(tmp_path / "gone")
