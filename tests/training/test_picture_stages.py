"""Stage 0, frozen image encoders and their patch states, in real tiny trainings."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from transformers import (
    AutoModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from preloaded import train_until_killed
from smar.core.errors import InputError
from smar.core.settings import load_settings
from smar.data.dataset import Dataset
from smar.model.encoder import Encoder
from smar.model.run_folder import finished_stages, load_encoder
from smar.model.start import freeze, new_model
from smar.training.patches import PatchManifest, patch_states, weights_digest
from smar.training.setup import TrainingData, new_processor
from tiny_line import CONFIG, Line, smar

pytestmark = pytest.mark.slow
EPOCH_IN_3 = 350
"""So many pairs in a batch that step 4 is in the middle of the second epoch."""
EVERYTHING = {
    "stage0": {"steps": 4, "batch_size": 32, "learning_rate": 0.003},
    "stage1": {**CONFIG["train"]["stage1"], "steps": 6, "batch_size": EPOCH_IN_3, "weights": {"alignment": 0.5}},
    "stage2": {**CONFIG["train"]["stage2"], "steps": 4, "weights": {"alignment": 0.5}, "freeze_image": True},
    "baselines": [{"kind": "dpsr-i", "steps": [3, 2]}],
    "pictures": {"alignment_items": 16, "augment": True},
}


def configured(folder: Path, model: dict | None = None, **train: object) -> Path:
    tree = copy.deepcopy(CONFIG)
    tree["train"] |= train
    for name, value in (model or {}).items():
        tree["model"][name] = {**tree["model"][name], **value}
    (folder / "shop.yaml").write_text(yaml.safe_dump(tree))
    return folder / "shop.yaml"


@pytest.fixture(scope="module")
def staged(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every picture option: stage 0, trained in stage 1, frozen in stage 2."""
    folder = tmp_path_factory.mktemp("staged")
    config = configured(folder, {"vision": {"stages": 2}}, **EVERYTHING)
    done = smar("train", line.dataset, "--out", folder / "run", "--config", config)
    assert done.code == 0, done.err
    return folder / "run"


def encoder_of(folder: Path) -> dict[str, torch.Tensor]:
    return Encoder.from_pretrained(folder).model.image_tower.encoder.state_dict()


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_encoder_learns_in_stage_0_and_1_and_stays_in_stage_2(staged: Path) -> None:
    zero, one, two = (encoder_of(staged / f"stage{n}") for n in range(3))
    assert not same(zero, one)
    assert same(one, two)  # batch statistics, too
    models = [Encoder.from_pretrained(staged / f"stage{n}").model.image_tower for n in (1, 2)]
    assert not torch.equal(models[0].projection.weight, models[1].projection.weight)
    records = [(record.kind, record.stage, record.steps) for record in finished_stages(staged)]
    assert records == [
        *(("smar", f"stage{n}", steps) for n, steps in enumerate((4, 6, 4))),
        *(("dpsr-i", f"stage{n}", steps) for n, steps in enumerate((4, 3, 2))),
    ]


def test_a_run_killed_in_stage_0_and_in_a_second_epoch_goes_on_bit_for_bit(
    line: Line, staged: Path, tmp_path: Path
) -> None:
    pairs = len(Dataset.open(line.dataset).pairs("train"))
    assert pairs // EPOCH_IN_3 == 3
    words = ("train", line.dataset, "--out", tmp_path / "run", "--config", staged.parent / "shop.yaml")
    for checkpoints, newest in ((1, "stage0/checkpoint-2"), (3, "stage1/checkpoint-4")):
        train_until_killed(checkpoints, *words)
        assert (tmp_path / "run" / newest / "seal.json").exists()
        assert not (tmp_path / "run" / "stage2").exists()
    done = smar(*words)
    assert done.code == 0, done.err
    assert done.says("smar stage1: going on from checkpoint-4")
    models = sorted(path.relative_to(staged) for path in staged.rglob("stage*/model.safetensors"))
    assert len(models) == 6
    for model in models:
        assert (tmp_path / "run" / model).read_bytes() == (staged / model).read_bytes(), f"{model} differs"


def test_two_stages_of_convolutions_give_a_finer_grid(staged: Path) -> None:
    states, _ = load_encoder(staged).model.image_tower(torch.zeros(1, 3, 32, 32))
    assert states.shape == (1, 16, 32)  # one token per 8 x 8 pixels, as wide as hidden


def test_a_staged_run_goes_through_the_rest_of_the_line(line: Line, staged: Path, tmp_path: Path) -> None:
    for words in (
        ("evaluate", staged, line.dataset, "--out", tmp_path / "report"),
        ("embed", staged, line.dataset, "--out", tmp_path / "embeddings"),
    ):
        done = smar(*words)
        assert done.code == 0, done.err
    assert "smar stage0 4" in (tmp_path / "report" / "report.md").read_text()


def test_stage_0_learns_to_name_words(line: Line, tmp_path: Path) -> None:
    """Pictures of one category come closer to each other than a fresh tower puts them."""
    config = configured(
        tmp_path,
        stage0={"steps": 120, "batch_size": 64, "learning_rate": 0.003},
        stage1={**CONFIG["train"]["stage1"], "steps": 0},
        stage2={**CONFIG["train"]["stage2"], "steps": 0},
        baselines=[],
    )
    done = smar("train", line.dataset, "--out", tmp_path / "run", "--config", config, "--set", "train.save_steps=40")
    assert done.code == 0, done.err
    trained, fresh = (probe(line, folder, tmp_path) for folder in (tmp_path / "run" / "stage0", None))
    assert trained > fresh + 0.15, (trained, fresh)


def probe(line: Line, folder: Path | None, tmp_path: Path) -> float:
    """Share of items whose nearest other item by pooled image state is of the same category."""
    dataset = Dataset.open(line.dataset)
    settings = load_settings(tmp_path / "shop.yaml", data=dataset.manifest.settings)
    if folder is None:
        data = TrainingData.from_dataset(dataset, settings.data.text_fields)
        processor = new_processor(settings, data)
        torch.manual_seed(0)
        encoder = Encoder(new_model(settings, settings.model, processor), processor)
    else:
        encoder = Encoder.from_pretrained(folder)
    with torch.no_grad():
        pooled = encoder.model.image_tower(encoder.processor.pixels(np.array(dataset.images)))[1]
    pooled = torch.nn.functional.normalize(pooled - pooled.mean(0), dim=1)
    near = (pooled @ pooled.T).fill_diagonal_(-2).argmax(1).numpy()
    category = np.array(dataset.fields(["category"])[0])[dataset.image_row >= 0]
    return float((category == category[near]).mean())


def test_patch_states_stand_for_pixels(line: Line, staged: Path) -> None:
    """Vectors from cached states equal those from pixels, though the states are 16 bits wide."""
    encoder, dataset = load_encoder(staged), Dataset.open(line.dataset)
    states = patch_states(staged, dataset, encoder.model, encoder.processor, encoder.bf16)
    assert states.dtype == np.float16
    assert len(states) == len(dataset.images)
    shown = torch.ones(40, dtype=torch.bool)
    ids, mask = torch.tensor([[2, 5, 3]] * 40), torch.ones(40, 3, dtype=torch.long)
    vectors = {}
    for bf16 in (True, False):
        encoder.bf16 = bf16
        with encoder._autocast(), torch.no_grad():
            inputs = (
                encoder.processor.pixels(np.array(dataset.images[:40])),
                torch.from_numpy(np.array(states[:40])).float(),
            )
            vectors[bf16] = [encoder.model.encode_item_ids(ids, mask, x, shown) for x in inputs]
    for pixels, cached in vectors.values():
        assert (pixels.image * cached.image).sum(1).min() > 1 - 1e-3
        assert (pixels.multimodal * cached.multimodal).sum(1).min() > 1 - 1e-3
    with torch.no_grad():  # in full precision nothing at all is lost
        exact = encoder.model.image_tower.patches(inputs[0]).clone()
        direct, stored = (encoder.model.image_tower(x)[1] for x in (inputs[0], exact))
    assert torch.allclose(direct, stored, atol=1e-5)


def test_patch_states_are_made_again_for_another_encoder_and_kept_for_the_same(
    line: Line, staged: Path, tmp_path: Path
) -> None:
    encoder, dataset = load_encoder(staged), Dataset.open(line.dataset)
    before = np.array(patch_states(tmp_path, dataset, encoder.model, encoder.processor, True))
    made = (tmp_path / "patches" / "states.npy").stat().st_mtime_ns
    patch_states(tmp_path, dataset, encoder.model, encoder.processor, True)
    assert (tmp_path / "patches" / "states.npy").stat().st_mtime_ns == made
    digest = weights_digest(encoder.model.image_tower.encoder)
    assert PatchManifest.read(tmp_path / "patches", "smar train").encoder == digest
    with torch.no_grad():
        next(encoder.model.image_tower.encoder.parameters()).add_(0.5)
    after = np.array(patch_states(tmp_path, dataset, encoder.model, encoder.processor, True))
    assert not np.array_equal(before, after)
    (tmp_path / "patches" / "states.npy").write_bytes(b"cut off")
    assert np.array_equal(patch_states(tmp_path, dataset, encoder.model, encoder.processor, True), after)


def test_states_too_large_for_16_bits_are_refused(line: Line, staged: Path, tmp_path: Path) -> None:
    encoder, dataset = load_encoder(staged), Dataset.open(line.dataset)
    with torch.no_grad():
        for parameter in encoder.model.image_tower.encoder.parameters():
            parameter.mul_(1e5)
    with pytest.raises(InputError, match=r"float16.*precompute=false"):
        patch_states(tmp_path, dataset, encoder.model, encoder.processor, True)
    assert not list((tmp_path / "patches").iterdir())


def vision_folder(kind: str, folder: Path) -> Path:
    """A small pretrained vision encoder as Hugging Face saves it."""
    torch.manual_seed(5)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    if kind == "resnet":
        encoder = ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 32], depths=[1, 1], layer_type="basic"))
        with torch.no_grad():  # statistics of its own, which training must not touch
            encoder.train()(torch.randn(8, 3, 32, 32))
    elif kind == "vit":
        encoder = ViTModel(ViTConfig(**shape, image_size=32, patch_size=8))
    else:
        encoder = CLIPVisionModel(CLIPVisionConfig(**shape, image_size=32, patch_size=8))
    encoder.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}, image_mean=[0.4] * 3).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["resnet", "vit", "clip"])
def test_pretrained_vision_folders_train_frozen_and_tuned(line: Line, tmp_path: Path, kind: str) -> None:
    folder = vision_folder(kind, tmp_path / "encoder")
    original = AutoModel.from_pretrained(folder).state_dict()
    for frozen in (True, False):
        home = tmp_path / f"frozen-{frozen}"
        home.mkdir()
        short = {name: {**CONFIG["train"][name], "steps": 2} for name in ("stage1", "stage2")}
        config = configured(home, {"vision": {"pretrained": str(folder), "frozen": frozen}}, **short, baselines=[])
        done = smar("train", line.dataset, "--out", home / "run", "--config", config)
        assert done.code == 0, done.err
        after = encoder_of(home / "run" / "stage2")
        assert after
        assert same(after, original) == frozen
        assert (home / "run" / "patches" / "manifest.json").is_file() == frozen


def test_freezing_is_of_the_encoder_only_and_can_be_undone(line: Line) -> None:
    encoder = load_encoder(line.run)
    settings = load_settings(line.config).model
    tower = encoder.model.image_tower
    freeze(encoder.model, settings, image=True)
    encoder.model.train()
    assert not any(parameter.requires_grad for parameter in tower.encoder.parameters())
    assert not any(module.training for module in tower.encoder.modules())
    assert tower.training
    assert all(parameter.requires_grad for parameter in tower.projection.parameters())
    freeze(encoder.model, settings)
    encoder.model.train()
    assert all(module.training for module in tower.encoder.modules())
    assert all(parameter.requires_grad for parameter in encoder.model.parameters())
