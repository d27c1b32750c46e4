"""Validation: the measure, the best weights, early stop, and what a checkpoint remembers."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from smar.core.sections.training import LossWeights
from smar.core.settings import load_settings
from smar.data.dataset import Dataset
from smar.evaluation.metrics import Relevance, per_query
from smar.model.encoder import Encoder
from smar.model.run_folder import StageRecord, run_settings
from smar.training.validation import BEST_FILE, Measure, Measurement, Validation, ValidationSet, recall
from tiny_line import Line, smar


def test_recall_equals_that_of_the_evaluation():
    rng = np.random.default_rng(0)
    query, text, image = (rng.normal(size=(n, 4)).astype(np.float32) for n in (9, 30, 30))
    p = rng.random(9).astype(np.float32)
    relevant = [np.sort(rng.choice(30, rng.integers(1, 6), replace=False)) for _ in range(9)]
    scores = p[:, None] * (query @ image.T) + (1 - p[:, None]) * (query @ text.T)
    rows = np.repeat(np.arange(9), [len(items) for items in relevant])
    truth = Relevance.from_pairs(rows, np.concatenate(relevant), np.ones(len(rows)), 9)
    expected = per_query(np.argsort(-scores, axis=1), truth, 5).recall.mean()
    assert recall(query, p, text, image, relevant, 5, size=4) == pytest.approx(expected)
    assert recall(query, p, text, image, relevant, 30) == 1
    assert recall(query, p, text, image, relevant, 100) == 1


def test_validation_set_is_capped_and_keeps_every_clicked_item(line: Line):
    dataset = Dataset.open(line.dataset)
    settings = load_settings(None, ["train.validation_queries=7", "train.validation_items=100"])
    part, again = (ValidationSet.from_dataset(dataset, settings) for _ in range(2))
    assert part.queries == again.queries
    assert np.array_equal(part.items, again.items)
    assert len(part.queries) == 7
    assert len(part.items) == len(set(part.items)) == 100
    table = dataset.pairs("valid").to_pylist()
    for query, rows in zip(part.queries, part.relevant, strict=True):
        assert set(part.items[rows]) == {row["item_index"] for row in table if row["query"] == query}
    whole = ValidationSet.from_dataset(dataset, load_settings())
    assert np.array_equal(whole.items, np.arange(300))


def test_a_handful_of_queries_chooses_no_weights(line: Line, capsys: pytest.CaptureFixture[str]):
    dataset = Dataset.open(line.dataset)
    table = dataset.pairs("valid")
    few = table.filter(pc.is_in(table["query"], pa.array(table["query"].unique()[:19])))
    stand_in = SimpleNamespace(pairs=lambda _: few, items=dataset.items)
    assert ValidationSet.from_dataset(stand_in, load_settings()) is None
    assert "19 validation queries are too few" in capsys.readouterr().err


class Falling:
    """A measure whose figures are given beforehand."""

    def __init__(self, *figures: float) -> None:
        self.figures, self.k = iter(figures), 50
        self.part = SimpleNamespace(queries=["a"], items=[1, 2])

    def __call__(self, model: torch.nn.Module) -> Measurement:
        return Measurement(next(self.figures), None)


def steps(validation: Validation, model: torch.nn.Linear, *numbers: int, end: int = 100) -> int | None:
    """Step at which the stage was stopped; the weight at each step is the step's number."""
    for step in numbers:
        control = SimpleNamespace(should_training_stop=False)
        torch.nn.init.constant_(model.weight, step)
        validation.on_step_end(None, SimpleNamespace(global_step=step, max_steps=end), control, model=model)
        if control.should_training_stop:
            return step
    return None


def of(measure: Falling, folder: Path, patience: int | None = None) -> Validation:
    return Validation(measure, folder, 2, patience, SimpleNamespace(tb_writer=None))


def test_the_best_weights_come_back_and_patience_ends_the_stage(tmp_path):
    model = torch.nn.Linear(1, 1)
    validation = of(Falling(0.3, 0.5, 0.5, 0.4), tmp_path, patience=2)
    assert steps(validation, model, 1, 2, 3, 4, 5, 6, 7, 8, 9) == 8
    seen = validation.finish(model)
    assert (seen.step, seen.recall) == (4, 0.5)
    assert model.weight.item() == 4
    assert steps(of(Falling(0.3, 0.2, 0.1), tmp_path), model, 2, 4, 7, end=7) is None


def test_a_checkpoint_remembers_the_best_so_far(tmp_path):
    """What came after the checkpoint is forgotten, also when its weights were the best."""
    model, checkpoint = torch.nn.Linear(1, 1), tmp_path / "checkpoint-6"
    first = of(Falling(0.5, 0.4, 0.3, 0.9), tmp_path, patience=9)
    steps(first, model, 2, 4, 6)
    checkpoint.mkdir()
    first.on_save(SimpleNamespace(output_dir=tmp_path), SimpleNamespace(global_step=6), None)
    steps(first, model, 8)
    resumed = of(Falling(0.45, 0.1), tmp_path, patience=4)
    resumed.resume(checkpoint)
    assert steps(resumed, model, 8, 10) == 10  # two waits before the checkpoint, two after
    assert resumed.finish(model).step == 2
    assert model.weight.item() == 2


def test_the_saved_model_is_the_validated_one(line: Line, tmp_path: Path):
    """Best weights of a rate that ruins the model late are those of the step that the record names."""
    dataset, run = Dataset.open(line.dataset), tmp_path / "run"
    options = ["evaluate_steps=1", "patience=3", "stage1.learning_rate=0.5", "stage1.steps=12", "baselines=[]"]
    words = [word for option in options for word in ("--set", f"train.{option}")]
    done = smar("train", line.dataset, "--out", run, "--config", line.config, *words)
    assert done.code == 0, done.err
    record, settings = StageRecord.read(run / "stage1", "smar train"), run_settings(run)
    assert record.steps == record.validated.step + 3 < 12
    assert record.pairs == record.steps * 64
    encoder = Encoder.from_pretrained(run / "stage1")
    part = ValidationSet.from_dataset(dataset, settings)
    measure = Measure.of_stage(dataset, part, encoder.processor, LossWeights(multimodal=1), settings)
    assert measure(encoder.model).recall == pytest.approx(record.validated.recall, abs=1e-9)
    assert not (run / "stage1" / BEST_FILE).exists()


def test_curves_are_written(line: Line):
    events = EventAccumulator(str(line.run / "stage2" / "logs"), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {f"train/loss_{name}" for name in ("adaptive", "gate")} <= scalars
    assert {"train/loss", "train/temperature", "train/pairs_per_second", "valid/R@50"} <= scalars
    record = StageRecord.read(line.run / "stage2", "smar train")
    assert max(point.value for point in events.Scalars("valid/R@50")) == pytest.approx(record.validated.recall)
    assert events.Scalars("train/temperature")[-1].value == pytest.approx(1 / 30)
    assert events.Scalars("train/pairs_per_second")[-1].value > 0
    shares = events.Histograms("valid/image_probability")[-1].histogram_value
    assert shares.num == record.validated.queries
    assert shares.min >= 0
    assert shares.max <= 1
    words = EventAccumulator(str(line.run / "baselines" / "dpsr" / "stage2" / "logs")).Reload()
    assert not words.Tags()["histograms"]  # a baseline has no gate


def test_no_validation_where_it_is_off(line: Line, tmp_path: Path):
    options = ("evaluate_steps=0", "baselines=[]", "stage1.steps=1", "stage2.steps=0")
    words = [word for option in options for word in ("--set", f"train.{option}")]
    done = smar("train", line.dataset, "--out", tmp_path / "run", "--config", line.config, *words)
    assert done.code == 0, done.err
    record = StageRecord.read(tmp_path / "run" / "stage1", "smar train")
    assert record.validated is None
    assert "Not validated" in (tmp_path / "run" / "stage1" / "README.md").read_text()
    refused = smar("train", line.dataset, "--out", tmp_path / "no", *words, "--set", "train.patience=2")
    assert refused.code == 2
    assert refused.says("train.patience counts validations")
