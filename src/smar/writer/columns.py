"""An item's columns as JSON gives them, checked against the columns of the index."""

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from smar.data.markup import plain_text
from smar.errors import InputError
from smar.index.columns import Kind, kind_of

SET_BY_US = frozenset({"item_id", "image_status"})
"""Columns that follow from the address and the picture."""
_SHOWN = 60


class RefusedItem(InputError):
    """An item or picture that cannot be taken; `code` names the reason for programs."""

    def __init__(self, code: str, message: str, image_status: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.image_status = image_status


def check_columns(
    item_id: str, values: Mapping[str, Any], schema: pa.Schema, html: Sequence[str] = ()
) -> dict[str, Any]:
    """The item as a row of `schema` without `image_status`; columns that are not given are None.

    The texts of the columns `html` lose their entities and tags, as in `smar prepare`.

    Raises:
        RefusedItem: no title, an unknown column, a value of another type, or an `item_id` that is not the address's.
    """
    if not item_id.split():
        raise RefusedItem("invalid_item", "the item id is blank; give one as in PUT /v1/items/ID.")
    if values.get("item_id", item_id) != item_id:
        raise RefusedItem(
            "invalid_item", f"item_id is {_show(values['item_id'])}, the address says {_show(item_id)}; leave it out."
        )
    known = [name for name in schema.names if name not in SET_BY_US]
    if unknown := sorted(set(values) - set(known) - {"item_id"}):
        raise RefusedItem(
            "unknown_column", f"unknown column {', '.join(map(_show, unknown))}; known: {', '.join(known)}."
        )
    row = {name: _checked(name, values.get(name), schema.field(name).type) for name in known}
    row |= {name: plain_text(row[name]) for name in html if isinstance(row.get(name), str)}
    if not (row.get("title") or "").split():
        raise RefusedItem("invalid_item", "title is missing or blank; every item needs one.")
    return {"item_id": item_id, **row}


def _checked(name: str, value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    try:
        return pa.array([_fit(value, kind)], kind)[0].as_py()
    except (pa.ArrowException, ValueError, TypeError, OverflowError, ArithmeticError) as error:
        raise RefusedItem(
            "wrong_type", f"column {name} is {_show(value)}; wanted: {_wanted(kind)}. {str(error)[:100]}".strip()
        ) from None


def _fit(value: Any, kind: pa.DataType) -> Any:
    """A JSON value as Arrow takes it for `kind`; raises ValueError where Arrow would guess."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if not isinstance(value, list):
            raise ValueError("")
        return [None if inner is None else _fit(inner, kind.value_type) for inner in value]
    wanted = kind_of(kind)
    if wanted is Kind.TEXT and isinstance(value, str):
        return value
    if wanted is Kind.FLAG and isinstance(value, bool):
        return value
    if wanted is Kind.NUMBER and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError("It is not finite.")
        if pa.types.is_integer(kind):
            if value != int(value):  # Arrow would cut it off
                raise ValueError("It is no whole number.")
            return int(value)
        return Decimal(str(value)) if pa.types.is_decimal(kind) else value
    if wanted is Kind.MOMENT and isinstance(value, str):
        return date.fromisoformat(value) if pa.types.is_date(kind) else datetime.fromisoformat(value)
    if pa.types.is_struct(kind) and isinstance(value, dict):
        fields = {field.name: field.type for field in kind}
        if unknown := sorted(value.keys() - fields.keys()):
            raise ValueError(f"It has no {', '.join(unknown)}.")
        return {name: None if inner is None else _fit(inner, fields[name]) for name, inner in value.items()}
    raise ValueError("")


def _wanted(kind: pa.DataType) -> str:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"a list ({_wanted(kind.value_type)} each)"
    wanted = kind_of(kind)
    return {Kind.MOMENT: "a date as ISO 8601 text", Kind.OTHER: str(kind)}.get(wanted, f"{wanted.value} ({kind})")


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
