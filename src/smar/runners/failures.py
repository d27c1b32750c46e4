"""What fails is named with its part."""

from collections.abc import Callable
from typing import TypeVar

from smar.core.errors import InputError

P = TypeVar("P")
R = TypeVar("R")
TRIES = 3
"""How often a part is given to a process, before a part whose process died counts as failed."""


def called(task: Callable[[P], R], part: P) -> R:
    """The result of a task in this process."""
    try:
        return task(part)
    except Exception as error:
        raise told(part, error) from error.__cause__


def told(part: object, error: BaseException) -> BaseException:
    """The error of a part, with the part's name."""
    if isinstance(error, InputError):
        return InputError(f"{part}: {error}")
    error.add_note(f"in {part}")
    return error


def died(part: object, reason: str) -> InputError:
    """The error of a part whose process died time after time."""
    return InputError(
        f"{part}: the process that worked on it died {TRIES} times, perhaps for lack of memory ({reason}). "
        "The same command goes on where it stopped."
    )
