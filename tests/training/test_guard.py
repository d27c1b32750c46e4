"""A run that goes wrong stops, and says where."""

import math
from dataclasses import replace

import numpy as np
import pytest

from smar.core.errors import TrainingError
from smar.data.dataset import Dataset
from smar.training.loss_guard import LEAST, PATIENCE, LossGuard
from smar.training.setup import TrainingData
from tiny_line import Line, smar


@pytest.fixture(scope="module")
def data(line: Line) -> TrainingData:
    return TrainingData.from_dataset(Dataset.open(line.dataset), ("title",))


@pytest.fixture
def guard(data: TrainingData) -> LossGuard:
    return LossGuard(data, "smar stage1", "Lower it.")


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_items_and_queries(guard, data, loss):
    with pytest.raises(TrainingError, match=r"text nan.* at step 7 of smar stage1.*Lower it\.") as stopped:
        guard.check_loss(7, loss, {"text": math.nan}, [3, 4])
    for pair in (3, 4):
        assert data.dataset.items["item_id"][int(data.pairs.item[pair])].as_py() in str(stopped.value)
        assert repr(data.queries[data.pairs.query[pair]]) in str(stopped.value)


def losses(guard, values):
    """Step of the error, or None."""
    for step, loss in enumerate(values):
        try:
            guard.check_loss(step, loss, {"text": loss}, [0, 1])
        except TrainingError:
            return step
    return None


@pytest.mark.parametrize(
    ("values", "stopped"),
    [
        ([2.0] * LEAST + [21.0] * PATIENCE, LEAST + PATIENCE - 1),
        ([2.0] * LEAST + [19.0] * 50, None),
        (([2.0] * LEAST + [21.0] * (PATIENCE - 1)) * 5, None),
        ([2.0] * (LEAST - 1) + [21.0] * PATIENCE, None),  # too early to know what is usual
        ([0.01] * LEAST + [0.9] * 50, None),  # below the floor
    ],
)
def test_an_exploding_loss_stops_after_several_steps(guard, values, stopped):
    assert losses(guard, values) == stopped


def test_a_gradient_that_is_no_number(guard):
    guard.check_gradient(1, 3.0, [0])
    with pytest.raises(TrainingError, match=r"the gradient is nan.*step 2"):
        guard.check_gradient(2, math.nan, [0])


def test_an_empty_batch(guard, data):
    with pytest.raises(TrainingError, match="step 4 of smar stage1 holds no pair"):
        guard.check_batch(4, [])
    nothing = replace(data, pairs=replace(data.pairs, weight=np.zeros(len(data.pairs), np.float32)))
    with pytest.raises(TrainingError, match=r"has pairs of weight 0 only.*queries"):
        LossGuard(nothing, "smar stage1", "").check_batch(4, [0, 1])
    guard.check_batch(4, [0, 1])


def test_a_rate_far_too_high_ends_the_command_with_advice(line, tmp_path):
    words = ["--set", "train.stage1.learning_rate=1e30", "--set", "train.stage1.warmup=0"]
    failed = smar("train", line.dataset, "--out", tmp_path / "run", "--config", line.config, *words)
    assert failed.code == 1, failed.err
    assert failed.says("of smar stage1", "items", "queries", "Lower train.stage1.learning_rate (1e+30 now)")
