"""Every option on losses and negatives reaches real training, and a run with all of them resumes bit for bit."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smar.core.errors import InputError
from smar.core.sections.training import LossWeights
from smar.core.settings import load_settings
from smar.data.dataset import Dataset
from smar.evaluation.metrics import Relevance
from smar.evaluation.scores import Task, shortened
from smar.evaluation.systems import rank_run
from smar.model.encoder import Encoder
from smar.model.modeling import ItemOutput, QueryOutput
from smar.training import checkpoints
from smar.training.losses.contrastive import prefix
from smar.training.setup import TrainingData
from smar.training.stage_losses import add_prefix_losses, stage_losses
from smar.training.train import train

SHORT = ["train.baselines=[]", "train.bf16=false", "train.stage1.steps=4", "train.stage2.steps=3"]
EVERYTHING = [
    "train.loss={symmetric: 0.3, learn_temperature: true}",
    "train.negatives={uniform: 5}",
    "model.matryoshka=[8, 16]",
]


def run(line, folder, *assignments):
    dataset = Dataset.open(line.dataset)
    settings = load_settings(line.config, [*SHORT, *assignments], dataset.manifest.settings)
    train(dataset, folder, settings)
    return {stage: load_file(folder / stage / "model.safetensors") for stage in ("stage1", "stage2")}


@pytest.fixture(scope="module")
def plain(line, tmp_path_factory):
    return run(line, tmp_path_factory.mktemp("plain") / "run")


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ("train.loss.symmetric=0.5", {"stage1", "stage2"}),
        ("train.negatives.uniform=8", {"stage1", "stage2"}),
        ("model.matryoshka=[8]", {"stage1", "stage2"}),
        ("train.loss.temperature_bounds=[0.02, 0.2]", set()),
    ],
)
def test_an_option_changes_what_is_learned(line, plain, tmp_path, option, changed):
    weights = run(line, tmp_path / "run", option)
    for stage, tensors in weights.items():
        same = all(torch.equal(tensor, plain[stage][name]) for name, tensor in tensors.items())
        assert same == (stage not in changed), stage
        assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_a_learned_temperature_moves_stays_inside_its_bounds_and_is_saved(line, tmp_path):
    low = 1 / 30 - 1e-5
    option = f"train.loss={{learn_temperature: true, temperature_bounds: [{low}, 0.2]}}"
    run(line, tmp_path / "run", option, "train.stage1.steps=20", "train.evaluate_steps=0")
    model = Encoder.from_pretrained(tmp_path / "run/stage2").model
    assert model.config.temperature_bounds == [low, 0.2]
    assert low * 0.999 <= model.temperature().item() <= 0.2
    first = load_file(tmp_path / "run/stage1/model.safetensors")["log_temperature"].exp().item()
    assert first != pytest.approx(1 / 30, rel=1e-7)
    events = EventAccumulator(str(tmp_path / "run/stage1/logs"))
    events.Reload()
    assert events.Scalars("train/temperature")[0].value == pytest.approx(max(first, low), rel=1e-3)


def test_a_clamped_temperature_can_come_back(line, tmp_path):
    run(line, tmp_path / "run", "train.loss.learn_temperature=true", "train.stage2.steps=0", "train.stage1.steps=1")
    model = Encoder.from_pretrained(tmp_path / "run/stage1").model
    with torch.no_grad():
        model.log_temperature.fill_(3.0)
    temperature = model.temperature()
    assert temperature.item() == pytest.approx(0.2)
    temperature.backward()
    assert model.log_temperature.grad.item() == pytest.approx(0.2)


def test_a_stopped_run_with_everything_on_ends_as_an_undisturbed_one(line, tmp_path, monkeypatch):
    options = [*EVERYTHING, "train.stage1.steps=6", "train.stage2.steps=6"]
    whole = run(line, tmp_path / "whole", *options)
    seal, real = [], checkpoints.seal

    def stops(checkpoint: Path, seconds: float) -> None:
        real(checkpoint, seconds)
        seal.append(checkpoint)
        if len(seal) in (2, 5):  # step 4 of stage 1, step 4 of stage 2
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "seal", stops)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(line, tmp_path / "run", *options)
    resumed = run(line, tmp_path / "run", *options)
    assert [f"{path.parent.name} {path.name.split('-')[1]}" for path in seal] == [
        *("stage1 2", "stage1 4", "stage1 6"),
        *("stage2 2", "stage2 4", "stage2 6"),
    ]
    for stage, tensors in resumed.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, whole[stage][name]), f"{stage} {name}"


def test_prefix_losses_are_those_of_cut_vectors_added_up():
    generator = torch.Generator().manual_seed(0)

    def unit(n):
        return torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=-1)

    query = QueryOutput(unit(2), torch.tensor([0.5, -1.0]))
    item = ItemOutput(unit(3), unit(3), unit(3), torch.tensor([True, False, True]))
    batch = {
        "query_of_pair": torch.tensor([0, 1, 1]),
        "target": torch.tensor([0, 1, 2]),
        "blocked": torch.tensor([[False, False, False], [False, False, True], [False, True, False]]),
        "weight": torch.tensor([1.0, 2.0, 0.5]),
    }
    weights = LossWeights(text=1, image=1, multimodal=1, adaptive=1, gate=1)
    losses = stage_losses(weights, query, item, batch, 0.1)
    got = add_prefix_losses(losses, (2, 5), weights, query, item, batch, 0.1)
    for name, value in losses.items():
        expected = value
        for size in (2, 5) if name != "gate" else ():
            q = QueryOutput(prefix(query.embedding, size), query.gate_logit)
            i = ItemOutput(*(prefix(v, size) for v in (item.text, item.image, item.multimodal)), item.has_image)
            expected = expected + stage_losses(LossWeights(**{name: 1}), q, i, batch, 0.1)[name]
        assert got[name].item() == pytest.approx(expected.item()), name


def test_the_weights_of_the_prepared_pairs_reach_the_loss(line):
    """tests/data/test_clicks.py holds what an order adds to a pair's weight, test_metrics.py graded nDCG."""
    dataset = Dataset.open(line.dataset)
    table = dataset.pairs("train").to_pylist()
    data = TrainingData.from_dataset(dataset, dataset.text_fields)
    ordered, clicked = ([row["weight"] for row in table if (row["orders"] > 0) == paid] for paid in (True, False))
    assert np.mean(ordered) > 1.5 * np.mean(clicked) > 0
    assert data.pairs.weight.tolist() == [row["weight"] for row in table]
    query = QueryOutput(torch.eye(2), torch.zeros(2))
    vectors = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [0.6, 0.8]]), dim=-1)
    item = ItemOutput(vectors, vectors, vectors, torch.ones(2, dtype=torch.bool))
    batch = {
        "query_of_pair": torch.tensor([0, 1]),
        "target": torch.tensor([1, 1]),
        "blocked": torch.zeros(2, 2, dtype=torch.bool),
    }

    def loss(*weight):
        return stage_losses(LossWeights(text=1), query, item, {**batch, "weight": torch.tensor(weight)}, 0.5)["text"]

    bad, good = loss(1.0, 0.0).item(), loss(0.0, 1.0).item()
    assert loss(3.0, 1.0).item() == pytest.approx((3 * bad + good) / 4)
    assert bad > good


def test_evaluation_by_a_prefix_ranks_by_cut_vectors(line):
    dataset = Dataset.open(line.dataset)
    queries = sorted(set(dataset.pairs("test")["query"].to_pylist()))[:5]
    task = Task(Relevance.from_pairs([], [], [], 5), 10, 10, np.zeros(0, np.int64))
    ranked = {
        dim: rank_run(line.run, "smar", dataset, queries, replace(task, dim=dim), controls=False).others["multimodal"]
        for dim in (8, 32, None)
    }
    encoder = Encoder.from_pretrained(line.run / "stage2", bf16=True)
    q = shortened(encoder.encode_queries(queries)[0], 8)
    fields = dataset.fields(tuple(encoder.config.text_fields))
    vectors = list(encoder.encode_items(fields, dataset.images, dataset.image_row))
    items = shortened(np.concatenate([v.multimodal for v in vectors]), 8)
    assert np.linalg.norm(items, axis=1) == pytest.approx(np.ones(len(items)), abs=1e-5)
    assert ranked[8].ranking[:, 0].tolist() == (q @ items.T).argmax(1).tolist()
    assert not np.array_equal(ranked[8].ranking, ranked[None].ranking)
    assert np.array_equal(ranked[32].ranking, ranked[None].ranking)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.loss.temperature_bounds=[0.2, 0.1]", "0 < low < high"),
        ("train={temperature: 0.5, loss: {learn_temperature: true}}", "outside loss.temperature_bounds"),
        ("model.matryoshka=[64, 32]", "must rise, each below dim"),
        ("model.matryoshka=[128]", "must rise, each below dim"),
        ("evaluate.dim=256", "must not exceed model.dim"),
        ("train.loss.kind=triplet", "softmax"),
    ],
)
def test_contradictions_are_refused_when_the_settings_are_read(assignment, message):
    with pytest.raises(InputError, match=message):
        load_settings(None, [assignment])


def test_more_random_items_than_the_catalogue_has_stop_training_at_once(line, tmp_path):
    with pytest.raises(InputError, match="uniform is 900, the catalogue has 300"):
        run(line, tmp_path / "run", "train.negatives.uniform=900")
    shutil.rmtree(tmp_path / "run")
