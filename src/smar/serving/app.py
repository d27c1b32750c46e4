"""The ASGI application: API, page and documentation; the page may load nothing from elsewhere."""

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import request_response
from starlette.types import ASGIApp, Receive, Scope, Send

from smar import __version__
from smar.serving.change_routes import build_changes_router
from smar.serving.engine import Engine
from smar.serving.error_responses import add_error_handlers
from smar.serving.events import PATH as EVENTS
from smar.serving.events import Events, build_events_router
from smar.serving.guard import Guard
from smar.serving.health import build_health_router
from smar.serving.items_route import add_listing
from smar.serving.options import DEFAULT, ServiceOptions
from smar.serving.routes import SEARCH, Searches, build_router
from smar.serving.several import INDEX, Applications, Opening, Served, Several, build_indexes_router
from smar.serving.split import compared
from smar.serving.strict import refuse_unknown
from smar.serving.suggest import add_suggest

WEB = Path(__file__).parent / "web"


def create_app(engine: Engine, options: ServiceOptions | None = None) -> Guard:
    """The ASGI application over an opened engine, which follows changes of its index."""
    options = options or ServiceOptions()
    return create_service({DEFAULT: Opening(Path(), engine, options)}, options)


def create_service(openings: Mapping[str, Opening], options: ServiceOptions) -> Guard:
    """The ASGI application over indexes by their names; the first one answers what names none."""
    several = Several(None if options.events is None else Events(options))

    def make(served: Served, engine: Engine, searches: Searches) -> Applications:
        named = _index_app(several, served, engine, searches)
        if not options.variants or served is not several.first:
            return Applications(named, named)
        front = compared(several.served, options, several.events)
        return Applications(named, _index_app(several, served, engine, front))

    for name, opening in openings.items():
        several.served[name] = Served(name, opening, len(openings) == 1, several.events, make)
    for served, opening in zip(several.served.values(), openings.values(), strict=True):
        if not isinstance(opening.engine, str):
            served.take(opening.engine)
    return Guard(several, options)


def _index_app(several: Several, served: Served, engine: Engine, searches: Searches) -> ASGIApp:
    """The application of one index, whose searches `searches` answers."""
    options = served.options
    app = new_app()
    # before the item's own routes: an id may hold slashes, so `{item_id:path}` would take "/similar" along
    app.include_router(build_changes_router(engine, options))
    router = build_router(engine, options, searches)
    add_listing(router, engine)
    add_suggest(router, engine, options)
    app.include_router(router)
    app.include_router(build_indexes_router(several, options))
    app.include_router(build_health_router(lambda request: several.ready(request.scope.get(INDEX))))
    app.include_router(reports := build_events_router(several.events))
    add_pages(app, _servers(several, served))
    direct = {path: _direct(app, one, path) for path, one in ((SEARCH, router), (EVENTS, reports))}

    async def dispatched(scope: Scope, receive: Receive, send: Send) -> None:
        route = direct.get(scope["path"], app) if scope["method"] == "POST" else app
        await route(scope, receive, send)

    return dispatched


def new_app() -> FastAPI:
    """An application of an index or an engine, without routes."""
    app = FastAPI(
        title="smar",
        version=__version__,
        summary="Product search that reads words and looks at pictures.",
        docs_url=None,  # FastAPI's own page loads its script from another host
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their functions
        redirect_slashes=False,  # to an address made of the client's own Host header
    )
    add_error_handlers(app)
    return app


def add_pages(app: FastAPI, servers: list[dict[str, str]]) -> None:
    """The page, the documentation, and the description of the API, which is at `servers`."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> FileResponse:
        return FileResponse(WEB / "docs.html", headers={"Cache-Control": "no-cache"})

    @app.get("/instantsearch.js", include_in_schema=False)
    async def instantsearch() -> FileResponse:
        return FileResponse(WEB / "instantsearch.js", headers={"Cache-Control": "no-cache"})

    app.openapi = lambda: _openapi(app, servers)  # type: ignore[method-assign]
    app.mount("/static", StaticFiles(directory=WEB))
    # the package is used only for the Swagger UI files that it carries
    app.mount("/swagger", StaticFiles(directory=str(importlib.resources.files("fastapi_offline") / "static")))


def _servers(several: Several, served: Served) -> list[dict[str, str]]:
    """Where OpenAPI says that the API is: what an address begins with, the index's own first."""
    root = served.options.root_path
    others = [one.prefix for one in several.served.values() if one is not served and one.prefix]
    own = ["", served.prefix] if served is several.first else [served.prefix]
    prefixes = [root + prefix for prefix in dict.fromkeys([*own, *others])]
    return [{"url": prefix or "/"} for prefix in prefixes] if len(prefixes) > 1 or root else []


def _direct(app: FastAPI, router: APIRouter, path: str) -> ASGIApp:
    """The POST route of a path without what finds it, its arguments and its errors, a quarter of a search's time in
    Python.

    What it raises is raised once more where the handlers of errors are.
    """
    routes = (route for route in router.routes if isinstance(route, APIRoute))
    route = next(route for route in routes if route.path == path and "POST" in (route.methods or ()))
    handlers = dict(app.exception_handlers)
    last = handlers.pop(Exception)  # it answers, and the error goes on to who logs it

    async def raised(request: Request) -> Response:
        raise request.scope["raised"]

    failed = ServerErrorMiddleware(ExceptionMiddleware(request_response(raised), handlers), last)

    async def directly(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = route
        try:
            refuse_unknown(request := Request(scope, receive), ())
            answer: Response = await route.endpoint(request)
        except Exception as error:
            scope["raised"] = error
            await failed(scope, receive, send)
        else:
            await answer(scope, receive, send)

    return directly


def _openapi(app: FastAPI, servers: list[dict[str, str]]) -> dict[str, Any]:
    """The description of the API, with the key that writing needs."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        schemes = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        schema["components"]["securitySchemes"] = schemes
        _name_bodies(schema)
        if servers:
            schema["servers"] = servers
        _errors_are_json(schema)
        app.openapi_schema = schema
    return app.openapi_schema


def _errors_are_json(schema: dict[str, Any]) -> None:
    """FastAPI describes all answers of a route by the type of its success."""
    for operation in (one for path in schema["paths"].values() for one in path.values()):
        for status, answer in operation["responses"].items():
            if status >= "400" and (content := answer.get("content")):
                answer["content"] = {"application/json": next(iter(content.values()))}


def _name_bodies(schema: dict[str, Any]) -> None:
    """Move the models of bodies that handlers read by themselves to the others: generated clients name them so."""
    components = schema["components"]["schemas"]
    for path in schema["paths"].values():
        for operation in path.values():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                if (name := content["schema"].get("title")) is not None:
                    components |= content["schema"].pop("$defs", {}) | {name: content["schema"]}
                    content["schema"] = {"$ref": f"#/components/schemas/{name}"}
