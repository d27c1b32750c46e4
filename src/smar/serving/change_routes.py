"""Routes that change items or search by what is there already: a picture, or another item.

Items and pictures are encoded by the model worker, a process of its own that may load torch (`smar.serving.writer`).
"""

import asyncio
import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.exceptions import HTTPException

from smar.core.errors import InputError
from smar.search.local import EmbeddedIndex, Page, by_vector, check_place, page_of, similar
from smar.search.protocol import MAX_HITS
from smar.serving.answered import identified
from smar.serving.answers import as_json, page_out, server_timing
from smar.serving.bodies import BUSY, BYTES, CROWDED, ENCODED, JSON, LARGE, UNKNOWN, refuse_encoded
from smar.serving.engine import Engine, timed
from smar.serving.grouped_writes import Written as Refresh
from smar.serving.many import (
    ITEM,
    KIND,
    LOCKED,
    NO_WRITER,
    NOT_WRITTEN,
    SECURITY,
    add_many,
    sent_id,
    there,
)
from smar.serving.options import ServiceOptions
from smar.serving.prometheus import observe_stages
from smar.serving.requests import MAX_K
from smar.serving.routes import item_response, row_of, sent_path
from smar.serving.schemas import Deleted, ErrorResponse, ItemIn, Written
from smar.serving.search_schemas import HitsResponse
from smar.serving.strict import Answers, StrictRoute
from smar.serving.writer_client import PictureVector, WriterAnswer, WriterClient, WriterDown, writer_client

_LAST: Answers = {409: {"model": ErrorResponse, "description": "the last item of an index cannot be deleted"}}
_PICTURE = {"type": "string", "format": "binary"}
_ITEM_BODY = {
    "required": True,
    "content": {
        JSON: {"schema": ItemIn.model_json_schema()},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["item"],
                "properties": {
                    "item": {"type": "string", "description": "the columns as a JSON object"},
                    "picture": {"type": "array", "items": _PICTURE},
                },
            }
        },
    },
}
K = Annotated[int, Query(ge=1, le=MAX_K, description="most hits to return")]
Offset = Annotated[int, Query(ge=0, lt=MAX_HITS, description=f"hits to leave out; with k less than {MAX_HITS}")]
FilterText = Annotated[str | None, Query(description="which items may be found")]


def build_changes_router(engine: Engine, options: ServiceOptions) -> APIRouter:
    """The routes of one worker."""
    router = APIRouter(route_class=StrictRoute)
    client, written = writer_client(options), _refreshing(engine)
    _add_writes(router, client, written)
    add_many(router, client, written, options.upload_bytes)
    _add_searches(router, engine, client)
    return router


def _passed_on(answer: WriterAnswer) -> Response:
    headers = {"Retry-After": answer.retry_after} if answer.retry_after else None
    return Response(answer.body, answer.status, headers, media_type=JSON)


def _hits(index: EmbeddedIndex, page: Page, timings: dict[str, float]) -> Response:
    with timed(timings, "fetch"):
        _, answer = identified(as_json(page_out(index, page)))
    observe_stages(timings)
    return Response(answer, media_type=JSON, headers=server_timing(timings))


def _refreshing(engine: Engine) -> Refresh:
    async def written() -> None:
        """What was written is found by this worker at once, by the others within a second."""
        with contextlib.suppress(InputError, OSError):  # it is written; `follow` tells what is wrong here
            await asyncio.to_thread(engine.refresh)

    return written


def _add_writes(router: APIRouter, client: WriterClient | None, written: Refresh) -> None:
    async def told(answer: WriterAnswer) -> Response:
        if answer.status == 200:
            await written()
        return _passed_on(answer)

    @router.put(
        ITEM,
        response_model=Written,
        responses=BUSY | LARGE | LOCKED | KIND | NO_WRITER | NOT_WRITTEN,
        summary="Write an item",
        tags=["items"],
        openapi_extra={"requestBody": _ITEM_BODY, **SECURITY},
    )
    async def put_item(item_id: str, request: Request) -> Response:
        """Add an item or replace the one of this id: its columns, and its picture(s) as base64 text or file parts."""
        refuse_encoded(request)
        body = await request.body()
        kind = request.headers.get("content-type", "")
        return await told(await there(client).put(sent_id(request), kind, body))

    @router.delete(
        ITEM,
        response_model=Deleted,
        responses=UNKNOWN | BUSY | LOCKED | _LAST | NO_WRITER | NOT_WRITTEN,
        summary="Delete an item",
        tags=["items"],
        openapi_extra=SECURITY,
    )
    async def delete_item(item_id: str, request: Request) -> Response:
        """Take an item out of the index."""
        return await told(await there(client).delete(sent_id(request)))


def _add_searches(router: APIRouter, engine: Engine, client: WriterClient | None) -> None:
    @router.get(
        ITEM + "/similar",
        response_model=HitsResponse,
        responses=UNKNOWN | BUSY | CROWDED,
        summary="Items like an item",
        tags=["search"],
    )
    async def get_similar(
        item_id: str, request: Request, k: K = 24, offset: Offset = 0, filter: FilterText = None
    ) -> Response:
        """Items whose words and picture are most like this one's: half the text score, half the multimodal score."""
        if not sent_path(request).endswith(b"/similar"):
            return item_response(engine.index, f"{item_id}/similar")
        index, timings = engine.index, dict[str, float]()
        row = row_of(index, item_id)
        chosen = engine.shown(engine.prepared(filter, index, timings), index)
        with timed(timings, "search"):
            page = page_of(index, similar(index, item_id, offset + k, chosen), chosen, offset, row)
        return _hits(index, page, timings)

    body: dict[str, Any] = {"required": True, "content": {kind: {"schema": _PICTURE} for kind in ("image/*", BYTES)}}

    @router.post(
        "/v1/search/picture",
        response_model=HitsResponse,
        responses=BUSY | LARGE | ENCODED | NO_WRITER,
        summary="Search by picture",
        tags=["search"],
        openapi_extra={"requestBody": body},
    )
    async def search_picture(request: Request, k: K = 24, offset: Offset = 0, filter: FilterText = None) -> Response:
        """Items whose words and picture fit an encoded picture (JPEG, PNG, WebP, GIF, AVIF), given as the body."""
        refuse_encoded(request)
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise HTTPException(415, "the body is a form (multipart); send the picture's own bytes as the body.")
        timings = dict[str, float]()
        check_place(offset, k)
        engine.filter(filter, engine.index)  # a wrong one is refused before a picture is encoded
        with timed(timings, "encode"):
            answer = await there(client).encode_picture(await request.body())
        if answer.status != 200:
            return _passed_on(answer)
        vector, index = PictureVector.of(answer), engine.index  # which may be another one meanwhile
        if vector.fingerprint != index.fingerprint:
            raise WriterDown("the model worker is still of another model than the index")
        chosen = engine.shown(engine.prepared(filter, index, timings), index)
        with timed(timings, "search"):
            page = page_of(index, by_vector(index, vector.embedding, offset + k, chosen), chosen, offset)
        return _hits(index, page, timings)
