"""The HTTP API.

Handlers run on the event loop itself: a search takes a few milliseconds, and a thread hop made it slower.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from smar import __version__
from smar.core.errors import InputError
from smar.search.local import EmbeddedIndex, content_type
from smar.search.protocol import Mode
from smar.serving import prometheus
from smar.serving.address import address_parameters, read_address
from smar.serving.answered import SESSION, identified, note_search
from smar.serving.answers import Cache, as_json, items_json, result_out, server_timing
from smar.serving.batcher import Batcher, Busy
from smar.serving.bodies import BUSY, BYTES, CROWDED, ENCODED, JSON, LARGE, UNKNOWN, read_body, tagged
from smar.serving.engine import Engine, SearchResult, timed
from smar.serving.error_responses import NotFound, told
from smar.serving.facet_answers import facets_response
from smar.serving.offered import Offer
from smar.serving.options import DEFAULT, ServiceOptions
from smar.serving.question import Question, RequestError
from smar.serving.requests import BATCH_SCHEMA, BatchRequest, SearchRequest
from smar.serving.schemas import About, BatchResponse, ErrorResponse, FacetsOut, ItemOut
from smar.serving.search_schemas import SearchResponse
from smar.serving.strict import Answers, StrictRoute

if TYPE_CHECKING:
    from smar.serving.events import Events

SEARCH, BATCH = "/v1/search", "/v1/search/batch"
RATE = "smar.rate"
"""In a request's scope, where there is a limit: counts one more request of its client, as `RateLimiter.wait` does."""
_PICTURE: Answers = {
    200: {
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("image/jpeg", "image/png", "image/webp", BYTES)
        },
        "description": "the encoded picture",
    }
}


def build_router(engine: Engine, options: ServiceOptions, searches: "Searches") -> APIRouter:
    """All routes that need the index alone."""
    router = APIRouter(route_class=StrictRoute)
    _add_search(router, searches)
    _add_facets(router, engine)
    _add_items(router, engine)
    _add_about(router, engine, options)
    return router


class Searches:
    """Answers searches: cache, batcher, figures."""

    def __init__(
        self, engine: Engine, options: ServiceOptions, events: "Events | None" = None, name: str = DEFAULT
    ) -> None:
        self._engine, self._events, self._name = engine, events, name
        self._log_query = options.log == "queries"
        self._cache = Cache(options.cache_bytes)
        self._batcher: Batcher[Question, SearchResult] = Batcher(engine.answer, options.batch, options.queue)

    async def answer(self, request: Request) -> Response:
        """``POST /v1/search``."""
        asked = await read_body(request, SearchRequest)
        question = question_of(asked, _said(request))
        answer, timing = await self._found(question, lambda **more: self._note(request, question, **more))
        return Response(self._identified(question, answer), media_type=JSON, headers=timing)

    async def linked(self, request: Request) -> Response:
        """``GET /v1/search``: the same from the address; whoever has the answer is told when it is still right."""
        question = question_of(read_address(request.query_params.multi_items()), _said(request))
        answer, headers = await self._found(question, lambda **more: self._note(request, question, **more))
        found = tagged(request, answer, {"Cache-Control": "no-cache", **headers}, weak=True)
        if found.status_code == 200:  # else the client's copy keeps its query_id
            found.body = self._identified(question, answer)
            found.headers["content-length"] = str(len(found.body))
        return found

    async def batch(self, request: Request) -> Response:
        """``POST /v1/search/batch``: each search has its answer or its error, in their order."""
        asked = (await read_body(request, BatchRequest)).searches
        count_further = request.scope.get(RATE, lambda: 0.0)
        answers = await asyncio.gather(
            *(self._one(request, each, at > 0 and count_further() > 0) for at, each in enumerate(asked))
        )
        request.state.log = {"searches": len(asked)}
        return Response(as_json({"answers": answers}), media_type=JSON)

    async def _one(self, request: Request, asked: object, too_many: bool) -> msgspec.Raw:
        try:
            if too_many:
                raise RequestError("too_many_requests", "more requests a second than are allowed; try again shortly.")
            question = question_of(SearchRequest.model_validate(asked), _said(request))
            answer, _ = await self._found(question, lambda **_: None)
            answer = self._identified(question, answer)
        except (InputError, ValidationError, Busy) as error:
            answer = as_json(ErrorResponse(error=told(error)).model_dump(exclude_none=True))
        return msgspec.Raw(answer)

    def _identified(self, question: Question, answer: bytes) -> bytes:
        """The answer with an id of its own, noted where events are taken."""
        query_id, whole = identified(answer)
        note_search(self._events, query_id, question, answer)
        return whole

    async def _found(self, question: Question, note: Callable[..., None]) -> tuple[bytes, dict[str, str]]:
        """The answer as bytes, and the header with its times; `note` takes what the log tells of it."""
        started = time.perf_counter()
        index = self._engine.index
        prometheus.count(prometheus.SEARCHES, self._name)
        kept = self._cache.get(index, question, self._engine.active(index))
        prometheus.count(prometheus.CACHE, "miss" if kept is None else "hit")
        if kept is not None:
            note(cached=True)
            return kept, server_timing({"cache": 1000 * (time.perf_counter() - started)})
        result = await self.result(question)
        with timed(result.timings, "fetch"):
            answer = as_json(result_out(result, question.fields, question.highlight))
        self._cache.keep(result.index, question, answer, result.rules)
        prometheus.observe_stages(result.timings)
        note(cached=False, hits=len(result.found))
        return answer, server_timing(result.timings)

    async def result(self, question: Question) -> SearchResult:
        """What is found; never a kept answer."""
        result = await self._batcher.ask(question)
        if not question.browses:
            prometheus.count(prometheus.GATE, "pictures" if result.routed else "words")
        return result

    def _note(self, request: Request, question: Question, **more: Any) -> None:
        """What the access log tells of this search; what the shopper typed only when it was asked for."""
        note = {"mode": question.mode, "k": question.k, "filtered": question.filter is not None, **more}
        if question.offset:
            note["offset"] = question.offset
        request.state.log = note | ({"query": question.query} if self._log_query else {})


def _said(request: Request) -> str | None:
    """The session that the request's head names."""
    return request.headers.get(SESSION, "")[:200] or None


def question_of(asked: SearchRequest, session: str | None = None) -> Question:
    """Checked, of `session` where it names none itself; raises RequestError."""
    further = asked.offset, asked.shape, asked.fields, asked.highlight, asked.session or session
    return Question.of(asked.query, asked.k, asked.mode, asked.filter, asked.explain, *further)


def _add_search(router: APIRouter, searches: Searches) -> None:
    # The handler reads the body and writes the answer itself, as pydantic objects for 50 hits cost more than the
    # search; FastAPI only documents them.
    schema = SearchRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    body = {"required": True, "content": {JSON: {"schema": schema}}}

    @router.post(
        SEARCH,
        response_model=SearchResponse,
        responses=BUSY | LARGE | CROWDED | ENCODED,
        summary="Search",
        tags=["search"],
        openapi_extra={"requestBody": body},
    )
    async def search(request: Request) -> Response:
        """Find the items that fit a query in words and, where the gate says that it helps, in looks."""
        return await searches.answer(request)

    @router.get(
        SEARCH,
        response_model=SearchResponse,
        responses=BUSY | CROWDED,
        summary="Search by address",
        tags=["search"],
        openapi_extra={"parameters": address_parameters()},
    )
    async def search_by_address(request: Request) -> Response:
        """The same from parameters, for links and caches; lists have commas, and the answer an ETag."""
        return await searches.linked(request)

    @router.post(
        BATCH,
        response_model=BatchResponse,
        responses=BUSY | LARGE | CROWDED | ENCODED,
        summary="Several searches at once",
        tags=["search"],
        openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": BATCH_SCHEMA}}}},
    )
    async def search_batch(request: Request) -> Response:
        """Up to 32 searches; what is wrong with one of them is said in its place and harms no other."""
        return await searches.batch(request)


def _add_facets(router: APIRouter, engine: Engine) -> None:
    @router.get("/v1/facets", responses=BUSY | CROWDED, summary="What can be filtered by", tags=["search"])
    async def get_facets(
        top: Annotated[int, Query(ge=1, le=200)] = 30,
        filter: Annotated[str | None, Query(description="count only the items that match")] = None,
    ) -> FacetsOut:
        """The most frequent categories and brands, and prices, with their counts among the items that match."""
        return facets_response(engine.index, engine.facets(filter, top))


def _add_about(router: APIRouter, engine: Engine, options: ServiceOptions) -> None:
    offer = Offer(options)

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
            **offer.of(index),
            picture_search=options.writer,
            compared=list(options.variants),
            events=options.events is not None,
            events_sessions=options.events is not None and options.events_sessions,
            writable=options.writer and bool(options.keys),
        )


def row_of(index: EmbeddedIndex, item_id: str) -> int:
    """Row of an item; raises NotFound."""
    row = index.catalogue.row_of(item_id)
    if row is None:
        raise NotFound("unknown_item", f"there is no item {item_id[:100]!r} in this index.")
    return row


def item_response(index: EmbeddedIndex, item_id: str) -> Response:
    """An item as JSON; raises NotFound."""
    (item,) = items_json(index, np.array([row_of(index, item_id)]))
    return Response(item, media_type=JSON)


def sent_path(request: Request) -> bytes:
    """The path as it was sent, percent-encoded: in an item's id a slash is %2F, and anything but UTF-8 is kept."""
    return bytes(request.scope["raw_path"]).partition(b"?")[0]


def _add_items(router: APIRouter, engine: Engine) -> None:
    # before the item's own route: an id may hold slashes, so `{item_id:path}` would take "/picture" along
    @router.get(
        "/v1/items/{item_id:path}/picture",
        response_class=Response,
        responses=_PICTURE | UNKNOWN | BUSY | CROWDED,
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
        return tagged(request, picture, {"Cache-Control": "public, max-age=3600"}, content_type(picture))

    @router.get(
        "/v1/items/{item_id:path}",
        response_model=ItemOut,
        responses=UNKNOWN | BUSY | CROWDED,
        summary="An item",
        tags=["items"],
    )
    async def get_item(item_id: str) -> Response:
        """The item's own columns."""
        return item_response(engine.index, item_id)
