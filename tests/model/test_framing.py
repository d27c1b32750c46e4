"""Pictures are packed as a checkpoint's own image processor makes its squares: from the file to S_i nothing differs."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.datasets
import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import (
    AutoImageProcessor,
    AutoModel,
    BitImageProcessorPil,
    ConvNextImageProcessorPil,
    ViTImageProcessorPil,
)

from checkpoints import SIDE, checkpoint
from smar.core.settings import load_settings
from smar.data.dataset import Dataset
from smar.data.images import ImageOptions, decode, fit_square
from smar.model.encoder import Encoder
from smar.model.framing import Framing, read_framing
from smar.model.processing import build_processor
from smar.model.start import new_model, start_notes
from tiny_line import prepare_shop, prepare_words, smar

PHOTOGRAPHS = sorted((Path(sklearn.datasets.__file__).parent / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.mark.parametrize(
    ("name", "fit", "resample"),
    [("clip", "crop", "bicubic"), ("siglip", "squash", "bilinear"), ("align", "squash", "bicubic")],
)
def test_from_the_file_to_the_vector_a_pair_sees_what_it_sees_by_itself(root, name, fit, resample):
    folder = checkpoint(name, root)
    framing = read_framing(str(folder))
    assert framing == Framing(SIDE, fit, resample)
    settings = load_settings(None, [f"model.pretrained={folder}", *framing.assignments()])
    processor = build_processor(settings.model, SIDE, ["red dress"])
    encoder = Encoder(new_model(settings, settings.model, processor), processor)
    assert len(PHOTOGRAPHS) == 2
    packed = np.stack([decode(path, ImageOptions.of(settings.data)).packed for path in PHOTOGRAPHS])
    own, pictures = AutoModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder, backend="pil")
    seen = pictures(images=[Image.open(path) for path in PHOTOGRAPHS], return_tensors="pt")
    with torch.no_grad():
        wanted = normalize(own.get_image_features(**seen).pooler_output, dim=-1)
    assert np.abs(encoder.encode_pictures(packed) - wanted.numpy()).max() < 1e-5
    assert not [note for note in start_notes(settings.model, encoder.config, settings.data) if "packed" in note]
    other = load_settings(None, [f"model.pretrained={folder}", f"data.image_size={SIDE}"])
    (note,) = [note for note in start_notes(other.model, encoder.config, other.data) if "packed" in note]
    assert f"packed by pad, bicubic in cheap steps, the encoder learned from {fit}, {resample}" in note
    assert f"smar prepare --pictures-for {folder}" in note


def test_every_fit_and_filter_is_told_and_what_is_none_of_them_is_said(root):
    for number, (kind, options, found) in enumerate(
        [
            (
                ViTImageProcessorPil,
                {"size": {"height": 40, "width": 40}, "resample": 1},
                Framing(40, "squash", "lanczos"),
            ),
            (BitImageProcessorPil, {"size": {"shortest_edge": 48}, "crop_size": 48}, Framing(48, "crop", "bicubic")),
            (BitImageProcessorPil, {"size": {"shortest_edge": 64}, "crop_size": 48}, Framing(48, None, "bicubic")),
            (ConvNextImageProcessorPil, {"size": {"shortest_edge": 56}}, Framing(56, None, "bicubic")),
        ]
    ):
        folder = root / f"processor-{number}"
        kind(**options).save_pretrained(folder)
        assert read_framing(str(folder)) == found
    siglip2 = read_framing(str(checkpoint("siglip2", root)))
    assert siglip2 == Framing(SIDE, None, "bilinear")
    assert "frames pictures that are no squares as no data.image_fit does" in siglip2.note("x", load_settings().data)


def test_prepare_packs_the_pictures_for_a_checkpoint(root, tmp_path):
    assert prepare_shop(tmp_path, items=64, searches=400).code == 0
    words = [*prepare_words(tmp_path), "--pictures-for", checkpoint("siglip", root), "--out", tmp_path / "framed"]
    done = smar(*words)
    assert done.code == 0, done.err
    dataset = Dataset.open(tmp_path / "framed")
    settings = dataset.manifest.settings
    assert [settings[f"image_{name}"] for name in ("size", "fit", "resample")] == [SIDE, "squash", "bilinear"]
    row = int((dataset.image_row >= 0).argmax())
    rows = pq.read_table(tmp_path / "shop" / "items.parquet", columns=["item_id", "image"]).to_pylist()
    pictures = {str(one["item_id"]): one["image"] for one in rows}
    path = tmp_path / "shop" / pictures[dataset.items["item_id"][row].as_py()]
    wanted = fit_square(Image.open(path).convert("RGB"), SIDE, "squash", "bilinear")
    assert np.array_equal(dataset.images[dataset.image_row[row]], wanted)
    refused = smar(*prepare_words(tmp_path), "--pictures-for", tmp_path, "--out", tmp_path / "none")
    assert refused.code == 2
    assert refused.says("the image processor of", "cannot be loaded")
