"""The model worker's HTTP API; the query workers are its only clients, over a UNIX domain socket."""

import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from smar.errors import InputError
from smar.index.delta import OtherModel
from smar.index.live import LastItem
from smar.writer.columns import RefusedItem
from smar.writer.service import ModelWorker
from smar.writer.upload import Admission, parse_upload

logger = logging.getLogger("smar.writer")
ITEMS = "/v1/items/"
MakeWorker: TypeAlias = Callable[[], ModelWorker]


def _error(status: int, code: str, message: str, image_status: str | None = None) -> JSONResponse:
    body = {"code": code, "message": message} | ({"image_status": image_status} if image_status else {})
    return JSONResponse({"error": body}, status)


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
            with self.admission.body(request):
                body = await self.admission.read(request)
                upload = await parse_upload(request, body, self.worker.pictures)
                del body
                item = await self.worker.check(item_id, upload)
                del upload
            return JSONResponse(asdict(await self.worker.write(item)))

    async def delete_item(self, request: Request) -> Response:
        """``DELETE /v1/items/{item_id}``."""
        item_id = _item_id(request)
        with self.admission.changes.one():
            try:
                found = await self.worker.delete(item_id)
            except LastItem as error:
                return _error(409, "last_item", str(error))
        if not found:
            return _error(404, "unknown_item", f"there is no item {item_id[:100]!r} in this index.")
        return JSONResponse({"item_id": item_id, "deleted": True})

    async def encode_picture(self, request: Request) -> Response:
        """``POST /v1/encode/picture``."""
        with self.admission.searches.one(), self.admission.body(request):
            vector = await self.worker.encode_picture(await self.admission.read(request))
        return JSONResponse({"embedding": vector.tolist(), "fingerprint": self.worker.encoder.fingerprint})

    async def health(self, _: Request) -> Response:
        """``GET /healthz``."""
        return JSONResponse({"status": "up", "fingerprint": self.worker.encoder.fingerprint})

    async def stats(self, _: Request) -> Response:
        """``GET /stats``."""
        changes, searches = self.admission.changes, self.admission.searches
        waiting = {"waiting": changes.taken, "max_waiting": changes.most, "searches_waiting": searches.taken}
        return JSONResponse(self.worker.stats() | waiting | {"held_bytes": self.admission.held})


def _item_id(request: Request) -> str:
    """The id in the address, from its raw bytes: the decoded path has lost what was not UTF-8."""
    raw = bytes(request.scope["raw_path"]).partition(b"?")[0]
    try:
        return unquote_to_bytes(raw)[len(ITEMS) :].decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedItem("invalid_item", "the item id in the address is not percent-encoded UTF-8.") from None


async def _refused(_: Request, error: Exception) -> Response:
    if isinstance(error, RefusedItem):
        return _error(422, error.code, str(error), error.image_status)
    return _error(422, "invalid_item", str(error))


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    phrase = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    code = "body_too_large" if error.status_code == 413 else phrase  # its phrase depends on Python's version
    response = _error(error.status_code, code, str(error.detail))
    response.headers.update(error.headers or {})
    return response


async def _not_written(_: Request, error: Exception) -> Response:
    logger.error("a change could not be written: %s", error)
    return _error(507, "not_written", f"the change could not be written, the index is as it was: {error}")


async def _other_model(_: Request, error: Exception) -> Response:
    logger.error("a change could not be written: %s", error)
    response = _error(
        503, "other_model", "the index is of another model now; the service must be started with its run."
    )
    response.headers["Retry-After"] = "30"
    return response


async def _failed(_: Request, error: Exception) -> Response:
    # Starlette raises the error again after this answer, so the server logs its traceback
    return _error(500, "internal", f"the model worker failed on this request ({type(error).__name__}); see its log.")


def create_app(make: MakeWorker, admission: Admission) -> Starlette:
    """The ASGI application of a worker that `make` makes when the application starts."""
    routes = Routes(make, admission)
    return Starlette(
        routes=[
            Route(ITEMS + "{item_id:path}", routes.put_item, methods=["PUT"]),
            Route(ITEMS + "{item_id:path}", routes.delete_item, methods=["DELETE"]),
            Route("/v1/encode/picture", routes.encode_picture, methods=["POST"]),
            Route("/healthz", routes.health),
            Route("/stats", routes.stats),
        ],
        lifespan=routes.lifespan,
        exception_handlers={
            InputError: _refused,
            HTTPException: _http,
            OSError: _not_written,
            OtherModel: _other_model,
            Exception: _failed,
        },
    )
