"""The HTTP API.

Handlers run on the event loop itself: a search takes a few milliseconds, and a thread hop made it slower.
"""

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from smar.index.catalogue import content_type
from smar.index.embedded import EmbeddedIndex
from smar.serving.engine import Engine
from smar.serving.errors import NotFound, NotReady
from smar.serving.facets import facets_response
from smar.serving.schemas import (
    ErrorResponse,
    Facets,
    Health,
    ItemOut,
    SearchRequest,
    SearchResponse,
    search_response,
)
from smar.serving.wire import picture_url, plain

_JSON = "application/json"
_WRONG: dict[int | str, dict[str, Any]] = {422: {"model": ErrorResponse, "description": "the request is wrong"}}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": ErrorResponse, "description": "no such item or picture"}}
_UNREADY: dict[int | str, dict[str, Any]] = {503: {"model": ErrorResponse, "description": "a probe query failed"}}
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {"image/jpeg": {}, "image/png": {}, "image/webp": {}},
        "description": "the encoded picture",
    }
}


def build_router(engine: Engine) -> APIRouter:
    """All routes over one engine."""
    router = APIRouter()
    _add_search(router, engine)
    _add_items(router, engine)
    _add_health(router, engine)
    return router


def _add_search(router: APIRouter, engine: Engine) -> None:
    @router.post("/v1/search", response_model=SearchResponse, responses=_WRONG, summary="Search", tags=["search"])
    async def search(body: SearchRequest) -> Response:
        """Find the items that fit a query in words and, where the gate says that it helps, in looks."""
        result = engine.search(body.query, body.k, body.mode, body.filter, body.explain)
        timing = ", ".join(f"{stage};dur={spent:.3f}" for stage, spent in result.timings.items())
        return Response(search_response(result).model_dump_json(), media_type=_JSON, headers={"Server-Timing": timing})

    @router.get("/v1/facets", responses=_WRONG, summary="What can be filtered by", tags=["search"])
    async def get_facets(
        top: Annotated[int, Query(ge=1, le=200)] = 30,
        filter: Annotated[str | None, Query(description="count only the items that match")] = None,
    ) -> Facets:
        """The most frequent categories and brands, and prices, with their counts among the items that match."""
        return facets_response(engine.index, engine.facets(filter, top))


def _add_items(router: APIRouter, engine: Engine) -> None:
    def row_of(index: EmbeddedIndex, item_id: str) -> int:
        row = index.catalogue.row_of(item_id)
        if row is None:
            raise NotFound("unknown_item", f"there is no item {item_id[:100]!r} in this index.")
        return row

    # before the item's own route: an id may hold slashes, so `{item_id:path}` would take "/picture" along
    @router.get(
        "/v1/items/{item_id:path}/picture",
        response_class=Response,
        responses=_PICTURE | _UNKNOWN,
        summary="An item's picture",
        tags=["items"],
    )
    async def get_picture(item_id: str, request: Request) -> Response:
        """The picture as it was packed, for display."""
        index = engine.index
        row = row_of(index, item_id)
        picture = index.catalogue.picture(row)
        if picture is None:
            raise NotFound("no_picture", f"item {item_id[:100]!r} has no picture.")
        tag = f'"{hashlib.sha256(picture).hexdigest()[:16]}"'
        headers = {"Cache-Control": "public, max-age=3600", "ETag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(picture, media_type=content_type(picture), headers=headers)

    @router.get("/v1/items/{item_id:path}", responses=_UNKNOWN, summary="An item", tags=["items"])
    async def get_item(item_id: str) -> ItemOut:
        """The item's own columns."""
        index = engine.index
        row, catalogue = row_of(index, item_id), index.catalogue
        item = plain(catalogue.items([row])[0])
        return ItemOut(item_id=item_id, picture=picture_url(item_id) if catalogue.has_picture(row) else None, item=item)


def _add_health(router: APIRouter, engine: Engine) -> None:
    @router.get("/healthz", summary="Is the process up?", tags=["health"])
    async def healthz() -> Health:
        """Answers whenever the process does."""
        return Health(status="up")

    @router.get("/readyz", responses=_UNREADY, summary="Does a query work?", tags=["health"])
    async def readyz() -> Health:
        """Runs a real query; 503 with the reason when it fails."""
        try:
            engine.check()
        except Exception as error:  # whatever breaks a query makes the service unready, and is told to the caller
            raise NotReady(f"a probe query failed: {type(error).__name__}: {error}") from error
        return Health(status="ready")
