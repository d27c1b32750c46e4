"""The HTTP API over an engine behind a URL: the searches of the embedded one, awaited with a deadline.

An answer may wait for the network, so it is found by a thread while the event loop goes on; what takes longer than the
deadline is answered with 503 and Retry-After. What writes goes to the engine itself (`smar index URL`).
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Annotated, TypeVar

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import ValidationError

from smar import __version__
from smar.core.errors import InputError
from smar.search.local import content_type
from smar.search.protocol import EngineDown, Mode
from smar.search.remote_index import RemoteIndex
from smar.serving import prometheus
from smar.serving.address import address_parameters, read_address
from smar.serving.answered import identified
from smar.serving.answers import as_json, items_json, page_out, result_out, server_timing
from smar.serving.app import add_pages, new_app
from smar.serving.batcher import Busy
from smar.serving.bodies import JSON, read_body, tagged
from smar.serving.encode_route import EncodeRequest, encoded
from smar.serving.error_responses import NotFound, NotReady, told
from smar.serving.guard import Guard
from smar.serving.health import build_health_router
from smar.serving.many import ITEM
from smar.serving.offered import offered
from smar.serving.options import DEFAULT, ServiceOptions
from smar.serving.question import Question
from smar.serving.remote_engine import RemoteEngine, found_items, similar_page
from smar.serving.requests import BatchRequest, SearchRequest
from smar.serving.routes import BATCH, SEARCH, question_of, sent_path
from smar.serving.schemas import About, ErrorResponse, FacetsOut, FacetValue, PriceCount, PriceRange, Readiness
from smar.serving.several import alone
from smar.serving.strict import StrictRoute

T = TypeVar("T")
logger = logging.getLogger("smar.serving")
THREADS = 16


class Awaited:
    """Runs what waits for an engine in threads; no more than `queue` at a time, each for `deadline` seconds."""

    def __init__(self, engine: RemoteEngine, options: ServiceOptions) -> None:
        self.engine, self._deadline, self._bound = engine, options.deadline, options.queue
        self._pool = ThreadPoolExecutor(THREADS, "engine")
        self._waiting = 0

    async def __call__(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises; Busy, or EngineDown after the deadline."""
        if self._waiting >= self._bound:
            raise Busy
        self._waiting += 1
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, copy_context().run, work)
            return await asyncio.wait_for(future, self._deadline)
        except TimeoutError:
            raise EngineDown(f"{self.engine.name} gave no answer within {self._deadline:g} s") from None
        finally:
            self._waiting -= 1


def create_remote_app(engine: RemoteEngine, options: ServiceOptions | None = None, name: str = DEFAULT) -> Guard:
    """The ASGI application over an opened engine."""
    options = options or ServiceOptions()
    app = new_app()
    awaited = Awaited(engine, options)
    router = APIRouter(route_class=StrictRoute)
    _add_searches(router, awaited)
    _add_items(router, awaited)
    _add_about(router, awaited, options)
    app.include_router(router)
    app.include_router(build_health_router(lambda _: _readiness(awaited)))
    add_pages(app, [{"url": options.root_path}] if options.root_path else [])
    return Guard(alone(app, options, name), options)


def _add_searches(router: APIRouter, awaited: Awaited) -> None:
    async def found(question: Question) -> tuple[bytes, dict[str, str]]:
        def work() -> tuple[bytes, dict[str, float]]:
            result = awaited.engine.ask(question)
            return as_json(result_out(result, question.fields)), result.timings

        answer, timings = await awaited(work)
        prometheus.observe_stages(timings)
        return answer, server_timing(timings)

    @router.post(SEARCH, summary="Search", tags=["search"])
    async def search(request: Request) -> Response:
        """Find the items that fit a query in words and, where the gate says that it helps, in looks."""
        answer, timing = await found(question_of(await read_body(request, SearchRequest)))
        return Response(identified(answer)[1], media_type=JSON, headers=timing)

    @router.get(
        SEARCH, summary="Search by address", tags=["search"], openapi_extra={"parameters": address_parameters()}
    )
    async def search_by_address(request: Request) -> Response:
        """The same from parameters."""
        answer, timing = await found(question_of(read_address(request.query_params.multi_items())))
        response = tagged(request, answer, {"Cache-Control": "no-cache", **timing}, weak=True)
        if response.status_code == 200:  # else the client's copy keeps its query_id
            response.body = identified(answer)[1]
            response.headers["content-length"] = str(len(response.body))
        return response

    async def one(asked: object) -> msgspec.Raw:
        try:
            answer, _ = await found(question_of(SearchRequest.model_validate(asked)))
            answer = identified(answer)[1]
        except (InputError, ValidationError, Busy, EngineDown) as error:
            answer = as_json(ErrorResponse(error=told(error)).model_dump(exclude_none=True))
        return msgspec.Raw(answer)

    @router.post(BATCH, summary="Several searches at once", tags=["search"])
    async def search_batch(request: Request) -> Response:
        """Up to 32 searches; what is wrong with one of them is said in its place and harms no other."""
        asked = (await read_body(request, BatchRequest)).searches
        answers = await asyncio.gather(*map(one, asked))
        return Response(as_json({"answers": answers}), media_type=JSON)

    @router.post("/v1/encode", summary="A query's vector", tags=["search"])
    async def encode(request: Request) -> Response:
        """The wide vector that a mode ranks by, and what the gate says."""
        asked = await read_body(request, EncodeRequest)
        return Response(as_json(await awaited(lambda: encoded(awaited.engine.index.encoder, asked))), media_type=JSON)

    @router.get("/v1/facets", summary="What can be filtered by", tags=["search"])
    async def get_facets(
        top: Annotated[int, Query(ge=1, le=200)] = 30, filter: Annotated[str | None, Query()] = None
    ) -> FacetsOut:
        """The most frequent categories and brands, and prices, among the items that match."""
        return await awaited(lambda: _facets(awaited.engine, filter, top))


def _facets(engine: RemoteEngine, text: str | None, top: int) -> FacetsOut:
    index = engine.index
    filter = engine.filter(text, index)

    def values(name: str) -> list[FacetValue]:
        if name not in index.schema.names:
            return []
        counts = index.facet(name, filter, top).values or ()
        return [FacetValue(value=entry.value, count=entry.count, picture=None) for entry in counts]

    prices = index.facet("price", filter, top) if "price" in index.schema.names else None
    ranges, low, high = [], None, None
    if prices is not None and isinstance(prices.low, float) and isinstance(prices.high, float):
        low, high = prices.low, prices.high
        ranges = [
            PriceCount(
                low=min(low, float(part.high or low)) if part.low is None else float(part.low),
                high=max(high, float(part.low or high)) if part.high is None else float(part.high),
                count=part.count,
            )
            for part in prices.ranges or ()
        ]
    return FacetsOut(
        items=index.count(filter),
        pictures=index.pictured(filter),
        category=values("category"),
        brand=values("brand"),
        price=None if low is None or high is None else PriceRange(low=low, high=high),
        prices=ranges,
    )


def _add_items(router: APIRouter, awaited: Awaited) -> None:
    def there(index: RemoteIndex, item_id: str) -> Response:
        hits = index.of_ids([item_id])
        if not hits:
            raise NotFound("unknown_item", f"there is no item {item_id[:100]!r} in this index.")
        found = found_items(index, hits)
        (item,) = items_json(found.index, found.ranked.rows)
        return Response(item, media_type=JSON)

    @router.get(ITEM + "/picture", response_class=Response, summary="An item's picture", tags=["items"])
    async def get_picture(item_id: str, request: Request) -> Response:
        """The picture as it was packed, for display."""
        if not sent_path(request).endswith(b"/picture"):
            return await awaited(lambda: there(awaited.engine.index, f"{item_id}/picture"))
        picture = await awaited(lambda: awaited.engine.index.picture(item_id))
        if picture is None:
            raise NotFound("no_picture", f"item {item_id[:100]!r} is not there, or has no picture.")
        return tagged(request, picture, {"Cache-Control": "public, max-age=3600"}, content_type(picture))

    @router.get(ITEM + "/similar", summary="Items like an item", tags=["search"])
    async def get_similar(
        item_id: str,
        request: Request,
        k: Annotated[int, Query(ge=1, le=200)] = 24,
        offset: Annotated[int, Query(ge=0, lt=800)] = 0,
        filter: Annotated[str | None, Query()] = None,
    ) -> Response:
        """Items whose words and picture are most like this one's."""
        if not sent_path(request).endswith(b"/similar"):
            return await awaited(lambda: there(awaited.engine.index, f"{item_id}/similar"))

        def work() -> bytes:
            index = awaited.engine.index
            if index.item(item_id) is None:
                raise NotFound("unknown_item", f"there is no item {item_id[:100]!r} in this index.")
            page, found = similar_page(index, item_id, k, offset, awaited.engine.filter(filter, index))
            return identified(as_json(page_out(found.index, page)))[1]

        return Response(await awaited(work), media_type=JSON)

    @router.get(ITEM, summary="An item", tags=["items"])
    async def get_item(item_id: str) -> Response:
        """The item's own columns."""
        return await awaited(lambda: there(awaited.engine.index, item_id))


def _add_about(router: APIRouter, awaited: Awaited, options: ServiceOptions) -> None:
    @router.get("/v1/about", summary="What this service is", tags=["health"])
    async def get_about() -> About:
        """Versions, and what can be asked of it."""
        without_cards = options.model_copy(update={"collapse": ""})

        def work() -> About:
            index = awaited.engine.index
            return About(
                version=__version__,
                index=f"{awaited.engine.name} {index.version}",
                fingerprint=index.fingerprint,
                items=len(index),
                modes=[mode for mode in Mode if mode is not Mode.HYBRID],
                **offered(without_cards, found_items(index, []).index, logger.warning),
                picture_search=False,
                compared=[],
                events=False,
                events_sessions=False,
                writable=False,
            )

        return await awaited(work)


async def _readiness(awaited: Awaited) -> Readiness:
    """Asks the engine a real query; raises NotReady."""
    try:
        await awaited(lambda: awaited.engine.index.check())
    except Exception as error:
        raise NotReady(f"a probe query failed: {type(error).__name__}: {error}") from error
    return Readiness(status="ready")
