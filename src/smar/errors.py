"""Errors that the user can mend: the command line prints them as one message and exits with 2."""

from collections.abc import Iterable


class InputError(ValueError):
    """The user's input is wrong. The message says what was seen, what is allowed and what to do."""


class TrainingError(RuntimeError):
    """Training cannot go on. The message names the step, the batch and what to do."""


def one_of(seen: str, allowed: Iterable[str], what: str, advice: str = "") -> InputError:
    """Build the error for a name that is not among the allowed ones."""
    names = ", ".join(sorted(allowed))
    return InputError(f"{what} is {seen!r}; allowed: {names}.{' ' + advice if advice else ''}")
