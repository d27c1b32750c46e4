"""What stops a run that has gone wrong: a loss that is no number, a loss that explodes, a batch without weight."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median
from typing import SupportsFloat

from smar.core.errors import TrainingError
from smar.training.setup import TrainingData

WINDOW, LEAST, FACTOR, PATIENCE, FLOOR = 100, 20, 10.0, 5, 1.0
"""Losses remembered; fewest that a median is taken of; times the median that is too much; steps in a row; and a loss
below which nothing has exploded: at 1 nat a pair's own item still has more than a third of the probability."""


class LossGuard:
    """Watches the loss of a stage and stops the run, naming step and batch.

    Args:
        data: whose queries and items are named.
        stage: such as `smar stage1`, for the message.
        advice: what to do, such as the setting to lower.
    """

    def __init__(self, data: TrainingData, stage: str, advice: str) -> None:
        self.data, self.stage, self.advice = data, stage, advice
        self.recent: deque[float] = deque(maxlen=WINDOW)
        self.high = 0

    def check_batch(self, step: int, pairs: Sequence[int]) -> None:
        """Raise TrainingError where a batch has no pair, or only pairs of weight 0."""
        if not len(pairs) or not self.data.pairs.weight[list(pairs)].any():
            what = "holds no pair" if not len(pairs) else f"has pairs of weight 0 only ({self._names(pairs)})"
            raise TrainingError(
                f"the batch of step {step} of {self.stage} {what}: there is nothing to learn from. Look at the weights "
                f"in {self.data.dataset.path}/pairs/train.parquet, or raise the batch_size."
            )

    def check_loss(self, step: int, loss: float, parts: Mapping[str, SupportsFloat], pairs: Sequence[int]) -> None:
        """Raise TrainingError where the loss of this step is no number, or has exploded for `PATIENCE` steps."""
        if not math.isfinite(loss):
            raise self._error(step, f"the loss is {loss} ({_parts(parts)})", pairs)
        usual = median(self.recent) if len(self.recent) >= LEAST else math.inf
        if loss <= max(FLOOR, FACTOR * usual):
            self.high = 0
            self.recent.append(loss)
            return
        self.high += 1
        if self.high >= PATIENCE:
            what = f"the loss is {loss:.3g} ({_parts(parts)}), for {PATIENCE} steps above {FACTOR:g} times its median"
            raise self._error(step, f"{what} of {usual:.3g}", pairs)

    def check_gradient(self, step: int, norm: float, pairs: Sequence[int]) -> None:
        """Raise TrainingError where the gradient is no number: after the update no weight would be one."""
        if not math.isfinite(norm):
            raise self._error(step, f"the gradient is {norm}, though the loss is finite,", pairs)

    def _error(self, step: int, what: str, pairs: Sequence[int]) -> TrainingError:
        return TrainingError(f"{what} at step {step} of {self.stage}. The batch: {self._names(pairs)}. {self.advice}")

    def _names(self, pairs: Sequence[int], shown: int = 5) -> str:
        ids = self.data.dataset.items["item_id"]
        rows = list(dict.fromkeys(self.data.pairs.item[list(pairs)].tolist()))
        words = list(dict.fromkeys(self.data.pairs.query[list(pairs)].tolist()))
        items = ", ".join(str(ids[row].as_py()) for row in rows[:shown])
        queries = ", ".join(repr(self.data.queries[row]) for row in words[:shown])
        return f"items {items}{_more(rows, shown)}; queries {queries}{_more(words, shown)}"


def _parts(parts: Mapping[str, SupportsFloat]) -> str:
    return ", ".join(f"{name} {float(value):.3g}" for name, value in parts.items())


def _more(values: Sequence[int], shown: int) -> str:
    return f" and {len(values) - shown} more" if len(values) > shown else ""
