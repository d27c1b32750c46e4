"""The model worker's HTTP API; the query workers are its only clients, over a UNIX domain socket."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, TypeAlias, get_args
from urllib.parse import unquote_to_bytes

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from smar.core.errors import InputError
from smar.search.items import OtherModel
from smar.search.local import LastItem, UnreadableIndex
from smar.serving.writer.change_many import Action, UnknownItem, change_all
from smar.serving.writer.item_check import RefusedItem
from smar.serving.writer.service import ModelWorker
from smar.serving.writer.upload import RETRY_SECONDS, Admission, parse_upload

logger = logging.getLogger("smar.serving.writer")
ITEMS = "/v1/items/"
MakeWorker: TypeAlias = Callable[[], ModelWorker]
encode_lines = msgspec.json.Encoder().encode_lines


def _described(error: Exception) -> tuple[int, dict[str, Any]]:
    """Status and body of a failure."""
    if isinstance(error, OtherModel):
        logger.error("a change could not be written: %s", error)
        told = "the index is of another model now; the service must be started with its run."
        return 503, {"error": {"code": "other_model", "message": told}}
    if isinstance(error, UnreadableIndex):
        told = f"nothing was written, the index cannot be read now: {error}"
        return 503, {"error": {"code": "index_unreadable", "message": told}}
    if isinstance(error, LastItem):
        return 409, {"error": {"code": "last_item", "message": str(error)}}
    if isinstance(error, InputError):
        code = error.code if isinstance(error, RefusedItem) else "invalid_item"
        status = {"image_status": error.image_status} if isinstance(error, RefusedItem) and error.image_status else {}
        wrong = 404 if isinstance(error, UnknownItem) else 422
        return wrong, {"error": {"code": code, "message": str(error)} | status}
    if isinstance(error, OSError):
        logger.error("a change could not be written: %s", error)
        told = f"the change could not be written, the index is as it was: {error}"
        return 507, {"error": {"code": "not_written", "message": told}}
    told = f"the model worker failed on this request ({type(error).__name__}); see its log."
    return 500, {"error": {"code": "internal", "message": told}}


async def _failure(_: Request, error: Exception) -> Response:
    # where the status is 500 Starlette raises the error again after this answer, so the server logs its traceback
    status, body = _described(error)
    seconds = RETRY_SECONDS if isinstance(error, UnreadableIndex) else 30
    return JSONResponse(body, status, {"Retry-After": str(seconds)} if status == 503 else None)


class Routes:
    """The handlers of one worker, which is there while the application runs."""

    worker: ModelWorker

    def __init__(self, make: MakeWorker, admission: Admission) -> None:
        self._make, self.admission = make, admission

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Make the worker and let it work."""
        self.worker = self._make()
        async with self.worker.running():
            yield

    async def put_item(self, request: Request) -> Response:
        """``PUT /v1/items/{item_id}``."""
        item_id = _item_id(request)
        with self.admission.changes.one():
            with self.admission.body(request, self.admission.changes):
                body = await self.admission.read(request)
                upload = await parse_upload(request, body, self.worker.pictures)
                del body
                item = await self.worker.check(item_id, upload)
                del upload
            return JSONResponse(asdict(await self.worker.write(item_id, item)))

    async def delete_item(self, request: Request) -> Response:
        """``DELETE /v1/items/{item_id}``."""
        item_id = _item_id(request)
        with self.admission.changes.one():
            if not await self.worker.delete(item_id):
                raise UnknownItem(item_id)
        return JSONResponse({"item_id": item_id, "deleted": True})

    async def bulk(self, request: Request) -> Response:
        """``POST /v1/items/bulk?action=put|patch|delete&first=1``: JSON lines; see `change_all`."""
        action: Any = request.query_params.get("action", "put")
        if action not in get_args(Action):
            raise HTTPException(422, f"action is {action[:100]!r}; allowed: {', '.join(get_args(Action))}.")
        first = int(request.query_params.get("first", "1"))
        with self.admission.changes.one():
            with self.admission.body(request, self.admission.changes):
                lines = (await self.admission.read(request)).split(b"\n")
            results = await change_all(self.worker, action, lines, first, _described)
        return Response(encode_lines(results), media_type="application/x-ndjson")

    async def encode_picture(self, request: Request) -> Response:
        """``POST /v1/encode/picture``."""
        with self.admission.searches.one(), self.admission.body(request, self.admission.searches):
            vector = await self.worker.encode_picture(await self.admission.read(request))
        return JSONResponse({"embedding": vector.tolist(), "fingerprint": self.worker.encoder.fingerprint})

    async def health(self, _: Request) -> Response:
        """``GET /healthz``."""
        writes = await self.worker.unwritable()
        return JSONResponse({"status": "up", "fingerprint": self.worker.encoder.fingerprint, "writes": writes})

    async def stats(self, _: Request) -> Response:
        """``GET /stats``."""
        changes, searches = self.admission.changes, self.admission.searches
        waiting = {"waiting": changes.taken, "max_waiting": changes.most, "searches_waiting": searches.taken}
        return JSONResponse(self.worker.stats() | waiting | {"held_bytes": changes.held + searches.held})


def _item_id(request: Request) -> str:
    """The id in the address, from its raw bytes: the decoded path has lost what was not UTF-8."""
    raw = bytes(request.scope["raw_path"]).partition(b"?")[0]
    try:
        return unquote_to_bytes(raw)[len(ITEMS) :].decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedItem("invalid_item", "the item id in the address is not percent-encoded UTF-8.") from None


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    code = "body_too_large" if error.status_code == 413 else phrase  # its phrase depends on Python's version
    return JSONResponse({"error": {"code": code, "message": str(error.detail)}}, error.status_code, error.headers)


def create_app(make: MakeWorker, admission: Admission) -> Starlette:
    """The ASGI application of a worker that `make` makes when the application starts."""
    routes = Routes(make, admission)
    return Starlette(
        routes=[
            Route(ITEMS + "{item_id:path}", routes.put_item, methods=["PUT"]),
            Route(ITEMS + "{item_id:path}", routes.delete_item, methods=["DELETE"]),
            Route("/v1/items/bulk", routes.bulk, methods=["POST"]),
            Route("/v1/encode/picture", routes.encode_picture, methods=["POST"]),
            Route("/healthz", routes.health),
            Route("/stats", routes.stats),
        ],
        lifespan=routes.lifespan,
        exception_handlers={
            InputError: _failure,
            HTTPException: _http,
            OSError: _failure,
            Exception: _failure,
        },
    )
