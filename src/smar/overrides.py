"""A section of the configuration with some values changed, validated like the whole."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

Model = TypeVar("Model", bound=BaseModel)


def merged(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with the values of `changes`; where both hold a section, its keys are merged in turn."""
    out = dict(tree)
    for key, value in changes.items():
        old = out.get(key)
        out[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def overridden(section: Model, changes: Mapping[str, Any]) -> Model:
    """Copy of `section` with `changes`, a tree of values.

    Raises:
        ValueError: a key is unknown or a value not allowed; the message names each on a line.
    """
    try:
        return type(section).model_validate(merged(section.model_dump(), changes))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise ValueError("; ".join(lines)) from None
