"""A training step's losses, modality dropout, parameter groups, jobs and checkpoint seals."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from smar.core.errors import InputError
from smar.core.sections.losses import LossSettings
from smar.core.sections.training import BaselineSettings, LossWeights
from smar.core.settings import load_settings
from smar.model.modeling import ItemOutput, QueryOutput, SmarModel
from smar.model.processing import build_processor
from smar.model.start import new_model
from smar.training.checkpoints import SEAL, Spent, latest, seal
from smar.training.jobs import jobs
from smar.training.losses.contrastive import counterfactual_labels, pair_losses
from smar.training.stage_losses import stage_losses
from smar.training.train import optimizer
from smar.training.trainer import hide_pictures

TINY = [
    "data.image_size=16",
    "model.share_text=false",
    *(f"model.{tower}.{key}" for tower in ("query", "text", "vision") for key in ("layers=1", "hidden=32", "heads=2")),
]


def unit(n, seed):
    return torch.nn.functional.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def a_batch():
    query = QueryOutput(unit(2, 0), torch.tensor([0.5, -1.0]))
    item = ItemOutput(unit(3, 1), unit(3, 2), unit(3, 3), torch.tensor([True, False, True]))
    batch = {
        "query_of_pair": torch.tensor([0, 1, 1]),
        "target": torch.tensor([0, 1, 2]),
        "blocked": torch.tensor([[False, False, False], [False, False, True], [False, True, False]]),
        "weight": torch.tensor([1.0, 2.0, 0.5]),
    }
    return query, item, batch


def test_stage_losses_equal_their_definitions_one_pair_at_a_time():
    query, item, batch = a_batch()
    losses = stage_losses(LossWeights(text=1, image=1, multimodal=1, adaptive=1, gate=1), query, item, batch, 0.1)
    rows, target, blocked, weight = batch.values()
    p = torch.sigmoid(query.gate_logit)
    expected = {"text": [], "image": [], "multimodal": [], "adaptive": []}
    for n in range(3):
        q = query.embedding[rows[n]]
        scores = {name: getattr(item, name) @ q for name in ("text", "image", "multimodal")}
        scores["adaptive"] = p[rows[n]] * scores["multimodal"] + (1 - p[rows[n]]) * scores["text"]
        for name, values in expected.items():
            values.append(pair_losses(scores[name][None], target[n : n + 1], blocked[n : n + 1], 0.1)[0])
    for name, values in expected.items():
        share = weight * item.has_image[target] if name == "image" else weight
        assert losses[name].item() == pytest.approx(float((torch.stack(values) * share).sum() / share.sum()), rel=1e-5)
    label = counterfactual_labels(torch.stack(expected["text"]), torch.stack(expected["multimodal"]), rows, 2)
    bce = -(label * p.log() + (1 - label) * (1 - p).log()).mean()
    assert losses["gate"].item() == pytest.approx(bce.item(), rel=1e-5)


def test_only_the_losses_with_a_weight_are_there():
    query, item, batch = a_batch()
    assert set(stage_losses(LossWeights(text=1), query, item, batch, 0.1)) == {"text"}
    assert set(stage_losses(LossWeights(adaptive=1), query, item, batch, 0.1)) == {"adaptive"}


def test_image_loss_of_a_batch_without_pictures_is_zero_and_has_a_gradient_path():
    query, item, batch = a_batch()
    blind = ItemOutput(item.text, item.image.requires_grad_(), item.multimodal, torch.zeros(3, dtype=torch.bool))
    loss = stage_losses(LossWeights(image=1), query, blind, batch, 0.1)["image"]
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(item.image.grad).all()


def test_hidden_pictures_take_their_pixels_along():
    torch.manual_seed(0)
    shown = torch.tensor([True, False, True, True, True])
    batch = {"pixels": torch.arange(4).reshape(4, 1, 1, 1), "has_image": shown, "other": 1}
    dropped = hide_pictures(batch, 0.5)
    kept = dropped["pixels"].flatten().tolist()
    rows = shown.nonzero().flatten()[torch.tensor(kept)] if kept else torch.tensor([])
    assert dropped["has_image"].nonzero().flatten().tolist() == rows.tolist()
    assert 0 < len(kept) < 4
    assert batch["has_image"].tolist() == shown.tolist()
    assert hide_pictures(batch, 0.0) is batch


def test_jobs_are_the_model_and_its_baselines_with_their_own_loss_and_budget():
    settings = load_settings(None, ["train.baselines=[{kind: dpsr, steps: [7, 3]}, {kind: dpsr-i}]"])
    smar, dpsr, image = jobs(settings, Path("run"))
    assert [job.name for job in (smar, dpsr, image)] == ["smar", "dpsr", "dpsr-i"]
    assert dpsr.folder == Path("run/baselines/dpsr")
    assert [stage.steps for stage in dpsr.stages.values()] == [7, 3]
    assert [stage.steps for stage in image.stages.values()] == [stage.steps for stage in smar.stages.values()]
    assert dpsr.stages["stage2"].weights == LossWeights(text=1)
    assert image.stages["stage1"].weights == LossWeights(image=1)
    assert BaselineSettings(kind="dpsr").steps is None


def test_a_named_baseline_is_the_runs_model_with_some_settings_changed():
    entries = "[{name: concat, model: {fusion: concat, vision: {hidden: 64}}}, {kind: clip, learning_rate: 0.1}]"
    settings = load_settings(None, [f"train.baselines={entries}", "train.stage1.weights.image=0.25"])
    smar, concat, clip = jobs(settings, Path("run"))
    assert (concat.name, concat.folder) == ("concat", Path("run/baselines/concat"))
    changed = {"fusion": "concat", "vision": smar.model.vision.model_copy(update={"hidden": 64})}
    assert concat.model == smar.model.model_copy(update=changed)
    assert concat.stages == smar.stages
    assert clip.model == smar.model.model_copy(update={"kind": "clip"})
    assert [stage.learning_rate for stage in clip.stages.values()] == [0.1, 0.1]
    expected = LossWeights(text=1, image=0.25, multimodal=1).model_dump()
    assert all(stage.weights.model_dump() == expected for stage in clip.stages.values())


def test_pretrained_towers_have_their_own_rate_and_vectors_do_not_decay(tmp_path):
    settings = load_settings(None, TINY)
    processor = build_processor(settings.model, 16, ["red dress"])
    model = new_model(settings, settings.model, processor)
    model.text_tower.encoder.save_pretrained(tmp_path)
    pretrained = load_settings(None, [*TINY, f"model.text.pretrained={tmp_path}"])
    job = jobs(pretrained, Path("run"))[0]
    groups = optimizer(model, job, job.stages["stage1"]).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            assert group["lr"] == (5e-5 if name.startswith("text_tower.encoder.") else 6e-4)
            assert group["weight_decay"] == (0.01 if parameter.dim() > 1 else 0.0)
    assert not names


def test_a_pretrained_encoder_that_is_a_pickle_is_refused(tmp_path):
    settings = load_settings(None, TINY)
    processor = build_processor(settings.model, 16, ["red dress"])
    encoder = new_model(settings, settings.model, processor).text_tower.encoder
    encoder.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(encoder.state_dict(), tmp_path / "pytorch_model.bin")
    settings = load_settings(None, [*TINY, f"model.text.pretrained={tmp_path}"])
    with pytest.raises(InputError, match=r"Only safetensors are.*AutoModel.from_pretrained\(.*\).save_pretrained"):
        new_model(settings, settings.model, processor)
    AutoModel.from_pretrained(tmp_path).save_pretrained(tmp_path)  # the advice
    new_model(settings, settings.model, processor)


def test_every_tower_may_have_a_rate_of_its_own(tmp_path):
    settings = load_settings(None, TINY)
    processor = build_processor(settings.model, 16, ["red dress"])
    new_model(settings, settings.model, processor).text_tower.encoder.save_pretrained(tmp_path)
    rates = {"text_tower.encoder.": 1e-5, "image_tower.encoder.": 0.02}
    own = [f"model.text.pretrained={tmp_path}", "model.text.learning_rate=1e-5", "model.vision.learning_rate=0.02"]
    settings = load_settings(None, [*TINY, *own])
    job, model = jobs(settings, Path("run"))[0], new_model(settings, settings.model, processor)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in optimizer(model, job, job.stages["stage1"]).param_groups:
        for parameter in group["params"]:
            name = names.pop(id(parameter))
            assert group["lr"] == next((rate for tower, rate in rates.items() if name.startswith(tower)), 6e-4), name
    assert not names


def test_dropout_hides_all_pictures_of_an_item():
    torch.manual_seed(1)
    counts = torch.tensor([2, 0, 3, 1, 2])
    batch = {"pixels": torch.repeat_interleave(torch.arange(5), counts), "has_image": counts > 0, "pictures": counts}
    dropped = hide_pictures(batch, 0.5)
    kept = sorted(set(dropped["pixels"].tolist()))
    assert 0 < len(kept) < 4
    assert dropped["has_image"].nonzero().flatten().tolist() == kept
    assert dropped["pictures"].tolist() == [int(counts[row]) if row in kept else 0 for row in range(5)]
    assert torch.equal(dropped["pixels"], torch.repeat_interleave(torch.arange(5), dropped["pictures"]))


def test_a_model_starts_equal_for_equal_seeds():
    settings = load_settings(None, TINY)
    processor = build_processor(settings.model, 16, ["red dress"])
    models: list[SmarModel] = []
    for _ in range(2):
        torch.manual_seed(settings.train.seed)
        models.append(new_model(settings, settings.model, processor))
    pairs = zip(models[0].parameters(), models[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def checkpoint(folder, step):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "model.safetensors").write_bytes(bytes(range(step)))
    return path


def test_the_newest_whole_checkpoint_is_found_and_half_written_ones_go(tmp_path):
    assert latest(tmp_path) is None
    seal(checkpoint(tmp_path, 9), Spent(1.5, 2.0))
    seal(checkpoint(tmp_path, 10), Spent(2.5, 4.0))
    unsealed = checkpoint(tmp_path, 11)
    assert latest(tmp_path) == (tmp_path / "checkpoint-10", Spent(2.5, 4.0))
    assert not unsealed.exists()


@pytest.mark.parametrize("damage", ["flip", "missing"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, damage):
    path = checkpoint(tmp_path, 10)
    seal(path, Spent())
    weights = path / "model.safetensors"
    weights.write_bytes(b"x" * 10) if damage == "flip" else weights.unlink()
    with pytest.raises(InputError, match=r"checkpoint-10 is corrupt: model\.safetensors"):
        latest(tmp_path)
    assert (path / SEAL).is_file()


@pytest.mark.parametrize("part", [1, 2, 4])
def test_losses_in_parts_are_those_of_the_whole_batch(part):
    weights = LossWeights(text=1, image=0.5, multimodal=1, adaptive=1, gate=0.2)
    loss = LossSettings(symmetric=0.3)

    def computed(part):
        query, item, batch = a_batch()
        batch["liked"] = torch.tensor([[True, False, False], [False, True, True]])
        vectors = [query.embedding, query.gate_logit, item.text, item.image, item.multimodal]
        for vector in vectors:
            vector.requires_grad_()
        losses = stage_losses(weights, query, item, batch, 0.1, loss, part)
        torch.stack(list(losses.values())).sum().backward()
        return losses, [vector.grad for vector in vectors]

    (whole, gradients), (parts, again) = computed(None), computed(part)
    assert {name: value.item() for name, value in parts.items()} == pytest.approx(
        {name: value.item() for name, value in whole.items()}, rel=1e-5
    )
    for one, other in zip(gradients, again, strict=True):
        torch.testing.assert_close(one, other)
