"""A search in an address: ``/v1/search?q=red+dress&sort=price&filter=in_stock=true``."""

import json
from collections.abc import Iterable
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from smar.serving.question import RequestError
from smar.serving.requests import SearchRequest

_NAMES = {name: "q" if name == "query" else name for name in SearchRequest.model_fields}
_FIELDS = {given: name for name, given in _NAMES.items()}
_SCHEMA = SearchRequest.model_json_schema()["properties"]
_WORDS = {"true": True, "false": False}


def read_address(parameters: Iterable[tuple[str, str]]) -> SearchRequest:
    """The search that the parameters of an address ask for, all known: the names of the body, `q` for the query.

    Raises:
        RequestError: a parameter comes twice.
        RequestValidationError: a value does not fit.
    """
    asked: dict[str, Any] = {}
    for given, text in parameters:
        name = _FIELDS[given]
        if name in asked:
            raise RequestError("invalid_request", f"{given} is given twice; put commas between several values.")
        asked[name] = _value(text, set(_types(_SCHEMA[name])))
    try:
        return SearchRequest.model_validate(asked)
    except ValidationError as error:
        renamed = [{**entry, "loc": ("query", _NAMES[str(entry["loc"][0])])} for entry in error.errors()]
        raise RequestValidationError(renamed) from None


def _types(schema: dict[str, Any]) -> Iterable[str]:
    """What JSON calls the values that fit."""
    yield schema.get("type", "object")
    for choice in schema.get("anyOf", ()):
        yield from _types(choice)


def _value(text: str, types: set[str]) -> object:
    """A text as the JSON value that it stands for; as it is where it is none, so that it is refused by what it says."""
    if "object" in types and text.startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise RequestError("invalid_request", f"{text[:100]!r} is not JSON: {error}.") from None
    if "array" in types:
        return [part for part in text.split(",") if part]
    if "integer" in types and text.removeprefix("-").isdecimal() and len(text) < 10:
        return int(text)
    return _WORDS.get(text.lower(), text) if "boolean" in types else text


def address_parameters() -> list[dict[str, Any]]:
    """The parameters as OpenAPI describes them."""
    return [
        {
            "name": given,
            "in": "query",
            "required": False,
            "description": _SCHEMA[name].get("description", ""),
            "schema": {key: value for key, value in _SCHEMA[name].items() if key in ("minimum", "maximum", "maxLength")}
            | {"type": "integer" if _SCHEMA[name].get("type") == "integer" else "string"},
        }
        for given, name in _FIELDS.items()
    ]
