"""What a Python program hears of its training: transformers' callbacks, and plain functions."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from transformers import TrainerCallback

from smar.core.errors import InputError

Tell = Callable[[dict[str, Any]], object]
Callback: TypeAlias = TrainerCallback | type[TrainerCallback] | Tell
"""transformers' own, or a function that is given each log as a dict: model, stage, step, and the figures by name."""


class Told(TrainerCallback):  # type: ignore[misc]
    """Gives a function every log of a stage.

    >>> from transformers import TrainerState
    >>> Told(print, "smar", "stage1").on_log(None, TrainerState(global_step=20), None, {"loss": 2.5})
    {'model': 'smar', 'stage': 'stage1', 'step': 20, 'loss': 2.5}
    """

    def __init__(self, tell: Tell, model: str, stage: str) -> None:
        self._tell, self._where = tell, {"model": model, "stage": stage}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
        """Called by the trainer."""
        self._tell({**self._where, "step": state.global_step, **logs})


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Raise InputError for what is neither a callback nor a function."""
    for callback in callbacks:
        if not isinstance(callback, TrainerCallback) and not callable(callback):
            raise InputError(
                f"a callback is {callback!r}; give a transformers.TrainerCallback, or a function that takes a dict."
            )


def of_stage(callbacks: Sequence[Callback], model: str, stage: str) -> list[TrainerCallback | type[TrainerCallback]]:
    """The callbacks as the trainer of a stage takes them."""

    def own(callback: Any) -> bool:
        return isinstance(callback, TrainerCallback) or (
            isinstance(callback, type) and issubclass(callback, TrainerCallback)
        )

    return [callback if own(callback) else Told(callback, model, stage) for callback in callbacks]
