"""Routes that refuse parameters which they do not know: a misspelt one would be left out without a word."""

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.routing import Match

from smar.serving.question import RequestError
from smar.serving.schemas import ErrorResponse

Answers = dict[int | str, dict[str, Any]]
WRONG: Answers = {422: {"model": ErrorResponse, "description": "the request is wrong"}}


class StrictRoute(APIRoute):
    """A route of the API; its requests may have the parameters that it declares and no others."""

    def __init__(self, *arguments: Any, responses: Answers | None = None, **named: Any) -> None:
        super().__init__(*arguments, responses=WRONG | (responses or {}), **named)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI's, after a look at the names of the parameters."""
        handle, described = super().get_route_handler(), (self.openapi_extra or {}).get("parameters", ())
        known = [*_parameters(self.dependant), *(one["name"] for one in described if one["in"] == "query")]

        async def strict(request: Request) -> Response:
            refuse_unknown(request, known)
            return await handle(request)

        return strict


def _parameters(dependant: Dependant) -> list[str]:
    names = [name for inner in dependant.dependencies for name in _parameters(inner)]
    for field in dependant.query_params:
        kind = field.field_info.annotation
        fields = kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else {}
        names += [info.alias or name for name, info in fields.items()] or [field.alias]
    return names


def refuse_unknown(request: Request, known: Collection[str]) -> None:
    """Raise RequestError naming the parameters of the address that are not among `known`."""
    if request.scope["query_string"] and (strange := set(request.query_params) - set(known)):
        names = ", ".join(map(repr, sorted(strange)))[:200]
        raise RequestError("invalid_request", f"unknown parameter {names}; allowed: {', '.join(known) or 'none'}.")


def allowed_methods(app: Starlette, request: Request) -> str:
    """What may be done with a path, by any of its routes, as the header Allow has it."""
    # as it was before a mounted application took its part of the path
    scope = {**request.scope, "root_path": request.scope.get("app_root_path", request.scope.get("root_path", ""))}
    routes = [context.original_route for context in iter_route_contexts(app.routes)]
    matching = [route for route in routes if route.matches(scope)[0] is not Match.NONE]
    methods = {method for route in matching for method in getattr(route, "methods", None) or ("GET",)}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))  # files of a mount can be read
