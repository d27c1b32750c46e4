"""A section of the configuration with some values changed, validated like the whole."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)
_LONGEST = 200
"""Letters of a wrong value in a message."""


def merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with the values of `changes`; where both hold a section, its keys are merged in turn."""
    out = dict(tree)
    for key, value in changes.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Full names of the settings that differ, each with a text that says how."""
    out: dict[str, str] = {}
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            out |= differences(old, value, f"{prefix}{key}.")
        elif value != old:
            out[f"{prefix}{key}"] = f"{prefix}{key}: {old!r} then, {value!r} now"
    return out


def faults(error: ValidationError) -> list[str]:
    """Each wrong key with what was said of it and what was seen; a whole section is too long to be printed."""
    lines = []
    for fault in error.errors():
        key = ".".join(map(str, fault["loc"]))
        text = repr(fault["input"])
        seen = "" if len(text) > _LONGEST else f" (got {text})"
        lines.append(f"{f'{key}: ' if key else ''}{fault['msg']}{seen}")
    return lines


def overridden(section: Model, changes: Mapping[str, Any]) -> Model:
    """Copy of `section` with `changes`, a tree of values.

    Raises:
        ValueError: a key is unknown or a value not allowed; the message names each on a line.
    """
    try:
        return type(section).model_validate(merged(section.model_dump(), changes))
    except ValidationError as error:
        raise ValueError("; ".join(faults(error))) from None
