"""Routes that change columns of an item, or many items at once."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import JSONResponse

from smar.core.errors import not_json
from smar.serving.bodies import BUSY, BYTES, JSON, LARGE, UNKNOWN, refuse_encoded
from smar.serving.error_responses import NoWriter, error_response
from smar.serving.grouped_writes import LINES, Bulk, LinesResponse, Together, Written, lines_of
from smar.serving.question import RequestError
from smar.serving.routes import sent_path
from smar.serving.schemas import BulkResult, ErrorResponse, ItemChanges, Updated
from smar.serving.strict import Answers
from smar.serving.writer_client import WriterClient

ITEM = "/v1/items/{item_id:path}"
BULK = "/v1/items/bulk"
LONGEST_ID = 1000
NO_WRITER: Answers = {503: {"model": ErrorResponse, "description": "no model worker is up; Retry-After tells when"}}
LOCKED: Answers = {
    401: {"model": ErrorResponse, "description": "an API key is needed"},
    403: {"model": ErrorResponse, "description": "the service was started without API keys"},
}
KIND: Answers = {
    415: {"model": ErrorResponse, "description": "the body is neither JSON nor multipart/form-data, or compressed"}
}
NOT_WRITTEN: Answers = {
    507: {"model": ErrorResponse, "description": "the index cannot be written: a full disk, damage"}
}
SECURITY: dict[str, Any] = {"security": [{"bearer": []}, {"key": []}]}


def there(client: WriterClient | None) -> WriterClient:
    """The model worker's client; raises NoWriter where there is none."""
    if client is None:
        raise NoWriter("this service has no model worker; start it with `smar serve --model RUN`.")
    return client


def sent_id(request: Request) -> str:
    """The id in the address; the decoded path has lost what was not UTF-8."""
    try:
        item_id = unquote_to_bytes(sent_path(request)).decode("utf-8").removeprefix("/v1/items/")
    except UnicodeDecodeError:
        raise RequestError("invalid_item", "the item id in the address is not percent-encoded UTF-8.") from None
    if len(item_id) > LONGEST_ID:
        raise RequestError("invalid_item", f"the item id has {len(item_id):,} characters; allowed: {LONGEST_ID:,}.")
    return item_id


def add_many(router: APIRouter, client: WriterClient | None, written: Written, line_bytes: int) -> None:
    """``PATCH /v1/items/{item_id}`` and ``POST /v1/items/bulk``, whose lines have at most `line_bytes` bytes."""
    together = None if client is None else Together(client, written)

    @router.patch(
        ITEM,
        response_model=Updated,
        responses=UNKNOWN | BUSY | LARGE | LOCKED | KIND | NO_WRITER | NOT_WRITTEN,
        summary="Change columns of an item",
        tags=["items"],
        openapi_extra={"requestBody": _json_body(ItemChanges), **SECURITY},
    )
    async def patch_item(item_id: str, request: Request) -> Response:
        """Set columns (null takes a value away); the others and the picture stay.

        Nothing is encoded, unless words that are searched become others.
        """
        refuse_encoded(request)
        there(client)
        assert together is not None
        result = await together.patch(_patch_line(sent_id(request), await request.body(), request))
        return _as_answer(result)

    @router.post(
        BULK,
        response_class=LinesResponse,
        response_model=BulkResult,
        responses=BUSY | LOCKED | KIND | NO_WRITER,
        summary="Write many items",
        tags=["items"],
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    LINES: {"schema": {"type": "string"}},
                    BYTES: {"schema": {"type": "string", "format": "binary"}},
                },
            },
            **SECURITY,
        },
    )
    async def bulk_items(
        request: Request,
        action: Annotated[Literal["put", "patch", "delete"], Query(description="of every line")] = "put",
    ) -> Response:
        """Change the item of every line of the body, a JSON object with its `item_id`; answers with a result a line.

        Lines of one item count in their order. Results come while lines are still sent, each once its change is
        durable; what is wrong with one harms no other.
        """
        refuse_encoded(request)
        lines = lines_of(_parts(request), line_bytes)
        return LinesResponse(Bulk(there(client), action, lines, written).results())


def _json_body(model: Any) -> dict[str, Any]:
    return {"required": True, "content": {JSON: {"schema": model.model_json_schema()}}}


async def _parts(request: Request) -> AsyncIterator[bytes]:
    async for part in request.stream():
        yield part


def _patch_line(item_id: str, body: bytes, request: Request) -> bytes:
    """The body as one line that names the item."""
    try:
        changes = json.loads(body)
    except (ValueError, RecursionError) as error:
        kind = request.headers.get("content-type", "")
        raise RequestError("invalid_item", f"{not_json(body, str(error), kind)}.") from None
    if not isinstance(changes, dict):
        raise RequestError("invalid_item", 'the body is not an object such as {"price": 29.9}.')
    if changes.setdefault("item_id", item_id) != item_id:
        raise RequestError("invalid_item", "item_id is another one in the body than in the address; leave it out.")
    try:
        return json.dumps(changes, ensure_ascii=False).encode()  # NaN as it is, which msgspec would make null
    except (UnicodeEncodeError, RecursionError) as error:
        raise RequestError("wrong_type", f"the body holds what is no text: {error}.") from None


def _as_answer(result: dict[str, Any]) -> Response:
    """The result of one line as an answer of its own."""
    if result["status"] == 200:
        return JSONResponse({"item_id": result["item_id"], "updated": True})
    error = result["error"]
    retry = result.get("retry_after")
    return error_response(result["status"], error["code"], error["message"], {"Retry-After": retry} if retry else None)
