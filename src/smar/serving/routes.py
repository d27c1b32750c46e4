"""The HTTP API.

Handlers run on the event loop itself: a search takes a few milliseconds, and a thread hop made it slower.
"""

import hashlib
import time
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from smar import __version__
from smar.errors import not_json
from smar.index.base import Mode
from smar.index.catalogue import content_type
from smar.index.embedded import EmbeddedIndex
from smar.serving import metrics
from smar.serving.answers import Cache, as_json, result_out, server_timing
from smar.serving.batcher import Batcher
from smar.serving.engine import Engine, Question, RequestError, SearchResult, timed
from smar.serving.errors import NotFound, NotReady
from smar.serving.facets import facets_response
from smar.serving.options import ServiceOptions
from smar.serving.schemas import About, ErrorResponse, Facets, Health, ItemOut, SearchRequest, SearchResponse

JSON = "application/json"
SEARCH = "/v1/search"
Answers = dict[int | str, dict[str, Any]]
WRONG: Answers = {422: {"model": ErrorResponse, "description": "the request is wrong"}}
UNKNOWN: Answers = {404: {"model": ErrorResponse, "description": "no such item or picture"}}
BUSY: Answers = {429: {"model": ErrorResponse, "description": "too many requests; Retry-After tells when to come back"}}
LARGE: Answers = {413: {"model": ErrorResponse, "description": "the body is too large"}}
ENCODED: Answers = {415: {"model": ErrorResponse, "description": "the body is compressed"}}
CROWDED: Answers = {503: {"model": ErrorResponse, "description": "too many connections are open"}}
UNREADY: Answers = {503: {"model": ErrorResponse, "description": "a probe query failed"}}
_PICTURE: Answers = {
    200: {
        "content": {"image/jpeg": {}, "image/png": {}, "image/webp": {}},
        "description": "the encoded picture",
    }
}


def build_router(engine: Engine, options: ServiceOptions) -> APIRouter:
    """All routes that need the index alone."""
    router = APIRouter()
    _add_search(router, Searches(engine, options))
    _add_facets(router, engine)
    _add_items(router, engine)
    _add_health(router, engine)
    _add_about(router, engine, options)
    return router


class Searches:
    """Answers searches: cache, batcher, figures."""

    def __init__(self, engine: Engine, options: ServiceOptions) -> None:
        self._engine = engine
        self._log_query = options.log == "queries"
        self._cache = Cache(options.cache_bytes)
        self._batcher: Batcher[Question, SearchResult] = Batcher(engine.answer, options.batch, options.queue)

    async def answer(self, request: Request) -> Response:
        """``POST /v1/search``."""
        body = await request.body()
        try:
            asked = SearchRequest.model_validate_json(body)
        except ValidationError as error:
            if (first := error.errors()[0])["type"] == "json_invalid":
                refuse_encoded(request)
                problem, kind = str(first["ctx"]["error"]), request.headers.get("content-type", "")
                raise RequestError("invalid_request", f"{not_json(body, problem, kind)}.") from None
            raise RequestValidationError(
                [{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors()]
            ) from None
        question = Question.of(asked.query, asked.k, asked.mode, asked.filter, asked.explain)
        started = time.perf_counter()
        kept = self._cache.get(self._engine.index, question)
        metrics.count(metrics.CACHE, "miss" if kept is None else "hit")
        if kept is not None:
            self._note(request, question, cached=True)
            timing = server_timing({"cache": 1000 * (time.perf_counter() - started)})
            return Response(kept, media_type=JSON, headers=timing)
        result = await self._batcher.ask(question)
        with timed(result.timings, "fetch"):
            answer = as_json(result_out(result))
        self._cache.keep(result.index, question, answer)
        metrics.observe_stages(result.timings)
        metrics.count(metrics.GATE, "pictures" if result.routed else "words")
        self._note(request, question, cached=False, hits=len(result.found))
        return Response(answer, media_type=JSON, headers=server_timing(result.timings))

    def _note(self, request: Request, question: Question, **more: Any) -> None:
        """What the access log tells of this search; what the shopper typed only when it was asked for."""
        note = {"mode": question.mode, "k": question.k, "filtered": question.filter is not None, **more}
        request.state.log = note | ({"query": question.query} if self._log_query else {})


def _add_search(router: APIRouter, searches: Searches) -> None:
    # The handler reads the body and writes the answer itself, as pydantic objects for 50 hits cost more than the
    # search; FastAPI only documents them.
    schema = SearchRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs")  # `Mode` is among the components, as the answer has it, too
    body = {"required": True, "content": {JSON: {"schema": schema}}}

    @router.post(
        SEARCH,
        response_model=SearchResponse,
        responses=WRONG | BUSY | LARGE | CROWDED | ENCODED,
        summary="Search",
        tags=["search"],
        openapi_extra={"requestBody": body},
    )
    async def search(request: Request) -> Response:
        """Find the items that fit a query in words and, where the gate says that it helps, in looks."""
        return await searches.answer(request)


def _add_facets(router: APIRouter, engine: Engine) -> None:
    @router.get("/v1/facets", responses=WRONG | BUSY | CROWDED, summary="What can be filtered by", tags=["search"])
    async def get_facets(
        top: Annotated[int, Query(ge=1, le=200)] = 30,
        filter: Annotated[str | None, Query(description="count only the items that match")] = None,
    ) -> Facets:
        """The most frequent categories and brands, and prices, with their counts among the items that match."""
        return facets_response(engine.index, engine.facets(filter, top))


def _add_about(router: APIRouter, engine: Engine, options: ServiceOptions) -> None:
    @router.get("/v1/about", responses=BUSY | CROWDED, summary="What this service is", tags=["health"])
    async def get_about() -> About:
        """Versions, and what can be asked of it."""
        index = engine.index
        return About(
            version=__version__,
            index=index.path.name,
            fingerprint=index.fingerprint,
            items=len(index),
            modes=list(Mode),
            picture_search=options.writer,
            writable=options.writer and bool(options.keys),
        )


def refuse_encoded(request: Request) -> None:
    """Raise HTTPException 415 where the body is compressed: it would be taken for what it is not."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        message = f"the body has Content-Encoding: {coding[:100]}, which is not read; send it as it is."
        raise HTTPException(415, message, {"Accept-Encoding": "identity"})


def row_of(index: EmbeddedIndex, item_id: str) -> int:
    """Row of an item; raises NotFound."""
    row = index.catalogue.row_of(item_id)
    if row is None:
        raise NotFound("unknown_item", f"there is no item {item_id[:100]!r} in this index.")
    return row


def item_response(index: EmbeddedIndex, item_id: str) -> Response:
    """An item as JSON; raises NotFound."""
    (item,) = index.catalogue.json(np.array([row_of(index, item_id)]))
    return Response(item, media_type=JSON)


def sent_path(request: Request) -> bytes:
    """The path as it was sent, percent-encoded: in an item's id a slash is %2F, and anything but UTF-8 is kept."""
    return bytes(request.scope["raw_path"]).partition(b"?")[0]


def _add_items(router: APIRouter, engine: Engine) -> None:
    # before the item's own route: an id may hold slashes, so `{item_id:path}` would take "/picture" along
    @router.get(
        "/v1/items/{item_id:path}/picture",
        response_class=Response,
        responses=_PICTURE | UNKNOWN | WRONG | BUSY | CROWDED,
        summary="An item's picture",
        tags=["items"],
    )
    async def get_picture(item_id: str, request: Request) -> Response:
        """The picture as it was packed, for display."""
        if not sent_path(request).endswith(b"/picture"):
            return item_response(engine.index, f"{item_id}/picture")
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

    @router.get(
        "/v1/items/{item_id:path}",
        response_model=ItemOut,
        responses=UNKNOWN | WRONG | BUSY | CROWDED,
        summary="An item",
        tags=["items"],
    )
    async def get_item(item_id: str) -> Response:
        """The item's own columns."""
        return item_response(engine.index, item_id)


def _add_health(router: APIRouter, engine: Engine) -> None:
    @router.get("/healthz", summary="Is the process up?", tags=["health"])
    async def healthz() -> Health:
        """Answers whenever the process does."""
        return Health(status="up")

    @router.get("/readyz", responses=UNREADY, summary="Does a query work?", tags=["health"])
    async def readyz() -> Health:
        """Runs a real query; 503 with the reason when it fails."""
        try:
            engine.check()
        except Exception as error:  # whatever breaks a query makes the service unready, and is told to the caller
            raise NotReady(f"a probe query failed: {type(error).__name__}: {error}") from error
        return Health(status="ready")

    @router.get("/metrics", response_class=Response, summary="Figures for Prometheus", tags=["health"])
    async def get_metrics() -> Response:
        """Counters and histograms of all workers in the Prometheus text format."""
        return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE_LATEST)
