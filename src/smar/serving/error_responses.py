"""Every failure leaves the service as ``{"error": {"code", "message"}}``."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from smar.core.errors import InputError
from smar.search.local import UnreadableIndex
from smar.search.protocol import EngineDown
from smar.serving.batcher import Busy
from smar.serving.prometheus import REFUSED, count
from smar.serving.question import RequestError
from smar.serving.schemas import ErrorBody, ErrorResponse
from smar.serving.strict import allowed_methods
from smar.serving.writer_client import RETRY_SECONDS, WriterDown

logger = logging.getLogger("smar.serving")


class NotFound(Exception):
    """An item or picture that does not exist; `code` says which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotReady(Exception):
    """A probe query failed."""


class NoWriter(Exception):
    """What needs the model worker was asked of a service that has none."""


def error_response(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A failure as every client sees it."""
    return JSONResponse(
        ErrorResponse(error=ErrorBody(code=code, message=message)).model_dump(exclude_none=True), status, headers
    )


def unreadable_response(error: Exception | str) -> JSONResponse:
    """The answer while the index on disk is damaged or not whole yet."""
    return error_response(503, "index_unreadable", f"the index cannot be read now: {error}", _AGAIN)


_AGAIN = {"Retry-After": str(RETRY_SECONDS)}


def told(error: InputError | ValidationError | Busy | EngineDown) -> ErrorBody:
    """What is said of a search that cannot be answered."""
    if isinstance(error, EngineDown):
        return ErrorBody(code="engine_down", message=str(error))
    if isinstance(error, Busy):
        return ErrorBody(code="busy", message=_TOO_MANY)
    if isinstance(error, ValidationError):
        entries = [{**entry, "loc": ("search", *entry["loc"])} for entry in error.errors()[:5]]
        return ErrorBody(code="invalid_request", message="; ".join(map(_explain, entries)))
    return ErrorBody(code=error.code if isinstance(error, RequestError) else "invalid_request", message=str(error))


_TOO_MANY = "too many searches wait; try again shortly."
_CODES = {413: "body_too_large", 408: "body_too_slow"}


def http_error_response(error: HTTPException) -> JSONResponse:
    """An HTTP error as every client sees it."""
    code = _CODES.get(error.status_code) or HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return error_response(error.status_code, code, str(error.detail), error.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Answer each kind of failure with its status, code and message."""

    @app.exception_handler(InputError)
    async def wrong_input(_: Request, error: InputError) -> JSONResponse:
        seen = told(error)
        return error_response(422, seen.code, seen.message)

    @app.exception_handler(UnreadableIndex)
    async def unreadable(_: Request, error: UnreadableIndex) -> JSONResponse:
        return unreadable_response(error)

    @app.exception_handler(EngineDown)
    async def engine_down(_: Request, error: EngineDown) -> JSONResponse:
        return error_response(503, "engine_down", str(error), _AGAIN)

    @app.exception_handler(RequestValidationError)
    async def wrong_shape(_: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(422, "invalid_request", "; ".join(_explain(entry) for entry in error.errors()[:5]))

    @app.exception_handler(NotFound)
    async def not_found(_: Request, error: NotFound) -> JSONResponse:
        return error_response(404, error.code, str(error))

    @app.exception_handler(NotReady)
    async def not_ready(_: Request, error: NotReady) -> JSONResponse:
        logger.warning("not ready", exc_info=error.__cause__)
        return error_response(503, "not_ready", str(error))

    @app.exception_handler(NoWriter)
    async def no_writer(_: Request, error: NoWriter) -> JSONResponse:
        return error_response(503, "no_model_worker", str(error))

    @app.exception_handler(WriterDown)
    async def writer_down(_: Request, error: WriterDown) -> JSONResponse:
        return error_response(503, "model_worker_down", str(error), _AGAIN)

    @app.exception_handler(Busy)
    async def busy(_: Request, __: Busy) -> JSONResponse:
        count(REFUSED, "queue")
        return error_response(429, "busy", _TOO_MANY, {"Retry-After": "1"})

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> JSONResponse:
        # nobody reads it, but the figures must not call it a fault of the service
        return error_response(499, "client_gone", "the connection was closed before the request was complete.")

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == 405:  # Starlette names the methods of the first route of that path
            allowed = allowed_methods(app, request)
            error = HTTPException(405, f"{request.method} is not allowed here; allowed: {allowed}", {"Allow": allowed})
        return http_error_response(error)

    @app.exception_handler(Exception)
    async def failure(_: Request, error: Exception) -> JSONResponse:
        # Starlette raises the error again after this answer, and `Guard` logs it
        return error_response(
            500, "internal", f"the service failed on this request ({type(error).__name__}); see its log."
        )


def _explain(entry: dict[str, object]) -> str:
    place = entry["loc"]
    parts = [str(part) for part in place] if isinstance(place, tuple) else []
    name = ".".join(parts[1:]) or "body"  # the first part says where it was: body, query or path
    seen = repr(entry.get("input"))
    return f"{name}: {entry['msg']} (got {seen if len(seen) <= 80 else seen[:77] + '...'})"
