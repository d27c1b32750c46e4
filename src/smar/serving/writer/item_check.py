"""An item's columns as JSON gives them, checked against the columns of the index."""

import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from smar.core.errors import InputError
from smar.data.markup import plain_text
from smar.search.column_values import Kind, kind_of
from smar.search.local import CatalogueView, picture_url, plain

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
    row = check_changes(item_id, values, schema, html)
    if "title" not in row:
        raise RefusedItem("invalid_item", "title is missing or blank; every item needs one.")
    return {name: row.get(name) for name in schema.names if name != "image_status"}


def check_changes(
    item_id: str, values: Mapping[str, Any], schema: pa.Schema, html: Sequence[str] = ()
) -> dict[str, Any]:
    """As `check_columns` for an item that is there: `item_id` and the columns that are given."""
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
    row = {name: _checked(name, values[name], schema.field(name).type) for name in known if name in values}
    row |= {name: plain_text(row[name]) for name in html if isinstance(row.get(name), str)}
    if "title" in row and not (row["title"] or "").split():
        raise RefusedItem("invalid_item", "title is missing or blank; every item needs one.")
    return {"item_id": item_id, **row}


def check_shown(
    item_id: str,
    values: Mapping[str, Any],
    picture: str | None,
    catalogue: CatalogueView,
    schema: pa.Schema,
    html: Sequence[str] = (),
) -> dict[str, Any]:
    """The item that GET has shown and somebody may have changed since, as a row of `schema`.

    A value that is still the one shown is the one stored, so that nothing is rounded or lost on the way through JSON.
    Where `picture` is given it is the address of the item's own, which stays, and `image_status` with it.

    Raises:
        RefusedItem: as `check_columns` does; or `picture` or `image_status` are not the item's.
    """
    place = catalogue.row_of(item_id)
    now = catalogue.items([place])[0] if place is not None else {}
    same = {name: value for name, value in now.items() if name in values and plain(value) == values[name]}
    if picture is not None and (place is None or not picture.endswith(picture_url(item_id).removeprefix("/v1"))):
        raise RefusedItem("invalid_item", "picture is the address of no picture of this item; send the picture itself.")
    status = now.get("image_status")
    if now and values.get("image_status", status) != status:
        raise RefusedItem("invalid_item", "image_status follows from the picture; leave it as it is.")
    others = {name: value for name, value in values.items() if name not in same and name != "image_status"}
    row = check_columns(item_id, {"title": "as before"} | others if "title" in same else others, schema, html)
    return row | same | {"image_status": status}


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
    if pa.types.is_decimal(kind) and isinstance(value, str):  # so GET shows it, as JSON's numbers would round it
        return Decimal(value)
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
