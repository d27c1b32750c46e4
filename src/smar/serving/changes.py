"""Routes that change items or search by what is there already: a picture, or another item.

Items and pictures are encoded by the model worker, a process of its own that may load torch (`smar.writer`).
"""

import asyncio
import contextlib
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Query, Request, Response
from starlette.exceptions import HTTPException

from smar.errors import InputError
from smar.index.base import Ranked
from smar.index.embedded import EmbeddedIndex
from smar.index.similar import by_vector, similar
from smar.serving.answers import as_json, hits_out, server_timing
from smar.serving.engine import Engine, RequestError, timed
from smar.serving.errors import NoWriter
from smar.serving.metrics import observe_stages
from smar.serving.options import ServiceOptions
from smar.serving.routes import (
    BUSY,
    CROWDED,
    ENCODED,
    JSON,
    LARGE,
    UNKNOWN,
    WRONG,
    Answers,
    item_response,
    refuse_encoded,
    row_of,
    sent_path,
)
from smar.serving.schemas import MAX_K, Deleted, ErrorResponse, HitsResponse, ItemIn, Written
from smar.serving.writer_client import PictureVector, WriterAnswer, WriterClient, WriterDown

ITEM = "/v1/items/{item_id:path}"
_LONGEST_ID = 1000
_NO_WRITER: Answers = {503: {"model": ErrorResponse, "description": "no model worker is up; Retry-After tells when"}}
_LOCKED: Answers = {
    401: {"model": ErrorResponse, "description": "an API key is needed"},
    403: {"model": ErrorResponse, "description": "the service was started without API keys"},
}
_LAST: Answers = {409: {"model": ErrorResponse, "description": "the last item of an index cannot be deleted"}}
_KIND: Answers = {
    415: {"model": ErrorResponse, "description": "the body is neither JSON nor multipart/form-data, or compressed"}
}
_NOT_WRITTEN: Answers = {
    507: {"model": ErrorResponse, "description": "the index cannot be written: a full disk, damage"}
}
_SECURITY: dict[str, Any] = {"security": [{"bearer": []}, {"key": []}]}
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
FilterText = Annotated[str | None, Query(description="which items may be found")]


def build_changes_router(engine: Engine, options: ServiceOptions) -> APIRouter:
    """The routes of one worker."""
    router = APIRouter()
    client = WriterClient(options.shared / "writer.sock") if options.writer and options.shared is not None else None
    _add_writes(router, engine, client)
    _add_searches(router, engine, client)
    return router


def _client(client: WriterClient | None) -> WriterClient:
    if client is None:
        raise NoWriter("this service has no model worker; start it with `smar serve --model RUN`.")
    return client


def _passed_on(answer: WriterAnswer) -> Response:
    headers = {"Retry-After": answer.retry_after} if answer.retry_after else None
    return Response(answer.body, answer.status, headers, media_type=JSON)


def _item_id(request: Request) -> str:
    """The id in the address; the decoded path has lost what was not UTF-8."""
    try:
        item_id = unquote_to_bytes(sent_path(request)).decode("utf-8").removeprefix("/v1/items/")
    except UnicodeDecodeError:
        raise RequestError("invalid_item", "the item id in the address is not percent-encoded UTF-8.") from None
    if len(item_id) > _LONGEST_ID:
        raise RequestError("invalid_item", f"the item id has {len(item_id):,} characters; allowed: {_LONGEST_ID:,}.")
    return item_id


def _hits(index: EmbeddedIndex, found: Ranked, timings: dict[str, float]) -> Response:
    with timed(timings, "fetch"):
        answer = as_json({"hits": hits_out(index, found)})
    observe_stages(timings)
    return Response(answer, media_type=JSON, headers=server_timing(timings))


def _add_writes(router: APIRouter, engine: Engine, client: WriterClient | None) -> None:
    async def told(answer: WriterAnswer) -> Response:
        if answer.status == 200:  # this worker finds it at once, the others within a second
            with contextlib.suppress(InputError, OSError):  # it is written; `follow` tells what is wrong here
                await asyncio.to_thread(engine.refresh)
        return _passed_on(answer)

    @router.put(
        ITEM,
        response_model=Written,
        responses=WRONG | BUSY | LARGE | _LOCKED | _KIND | _NO_WRITER | _NOT_WRITTEN,
        summary="Write an item",
        tags=["items"],
        openapi_extra={"requestBody": _ITEM_BODY, **_SECURITY},
    )
    async def put_item(item_id: str, request: Request) -> Response:
        """Add an item or replace the one of this id: its columns, and its picture(s) as base64 text or file parts."""
        refuse_encoded(request)
        body = await request.body()
        kind = request.headers.get("content-type", "")
        return await told(await _client(client).put(_item_id(request), kind, body))

    @router.delete(
        ITEM,
        response_model=Deleted,
        responses=WRONG | UNKNOWN | BUSY | _LOCKED | _LAST | _NO_WRITER | _NOT_WRITTEN,
        summary="Delete an item",
        tags=["items"],
        openapi_extra=_SECURITY,
    )
    async def delete_item(item_id: str, request: Request) -> Response:
        """Take an item out of the index."""
        return await told(await _client(client).delete(_item_id(request)))


def _add_searches(router: APIRouter, engine: Engine, client: WriterClient | None) -> None:
    @router.get(
        ITEM + "/similar",
        response_model=HitsResponse,
        responses=WRONG | UNKNOWN | BUSY | CROWDED,
        summary="Items like an item",
        tags=["search"],
    )
    async def get_similar(item_id: str, request: Request, k: K = 24, filter: FilterText = None) -> Response:
        """Items whose words and picture are most like this one's: half the text score, half the multimodal score."""
        if not sent_path(request).endswith(b"/similar"):
            return item_response(engine.index, f"{item_id}/similar")
        index, timings = engine.index, dict[str, float]()
        row_of(index, item_id)
        chosen = engine.prepared(filter, index, timings)
        with timed(timings, "search"):
            found = similar(index, item_id, k, chosen)
        return _hits(index, found, timings)

    body: dict[str, Any] = {"required": True, "content": {"image/*": {"schema": _PICTURE}}}

    @router.post(
        "/v1/search/picture",
        response_model=HitsResponse,
        responses=WRONG | BUSY | LARGE | ENCODED | _NO_WRITER,
        summary="Search by picture",
        tags=["search"],
        openapi_extra={"requestBody": body},
    )
    async def search_picture(request: Request, k: K = 24, filter: FilterText = None) -> Response:
        """Items whose words and picture fit an encoded picture (JPEG, PNG, WebP, GIF), given as the body."""
        refuse_encoded(request)
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            raise HTTPException(415, "the body is a form (multipart); send the picture's own bytes as the body.")
        timings = dict[str, float]()
        engine.filter(filter, engine.index)  # a wrong one is refused before a picture is encoded
        with timed(timings, "encode"):
            answer = await _client(client).encode_picture(await request.body())
        if answer.status != 200:
            return _passed_on(answer)
        vector, index = PictureVector.of(answer), engine.index  # which may be another one meanwhile
        if vector.fingerprint != index.fingerprint:
            raise WriterDown("the model worker is still of another model than the index")
        chosen = engine.prepared(filter, index, timings)
        with timed(timings, "search"):
            found = by_vector(index, vector.embedding, k, chosen)
        return _hits(index, found, timings)
