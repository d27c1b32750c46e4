"""Every failure leaves the service as ``{"error": {"code", "message"}}``."""

import logging
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from smar.errors import InputError
from smar.serving.engine import RequestError
from smar.serving.schemas import ErrorBody, ErrorResponse

logger = logging.getLogger("smar.serving")


class NotFound(Exception):
    """An item or picture that does not exist; `code` says which."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class NotReady(Exception):
    """A probe query failed."""


def _json(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse(ErrorResponse(error=ErrorBody(code=code, message=message)).model_dump(), status)


def add_error_handlers(app: FastAPI) -> None:
    """Answer each kind of failure with its status, code and message."""

    @app.exception_handler(InputError)
    async def wrong_input(_: Request, error: InputError) -> JSONResponse:
        return _json(422, error.code if isinstance(error, RequestError) else "invalid_request", str(error))

    @app.exception_handler(RequestValidationError)
    async def wrong_shape(_: Request, error: RequestValidationError) -> JSONResponse:
        return _json(422, "invalid_request", "; ".join(_explain(entry) for entry in error.errors()[:5]))

    @app.exception_handler(NotFound)
    async def not_found(_: Request, error: NotFound) -> JSONResponse:
        return _json(404, error.code, str(error))

    @app.exception_handler(NotReady)
    async def not_ready(_: Request, error: NotReady) -> JSONResponse:
        logger.warning("not ready", exc_info=error.__cause__)
        return _json(503, "not_ready", str(error))

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> JSONResponse:
        code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
        response = _json(error.status_code, code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def failure(_: Request, error: Exception) -> JSONResponse:
        # Starlette raises the error again after this answer, so the server logs its traceback
        return _json(500, "internal", f"the service failed on this request ({type(error).__name__}); see its log.")


def _explain(entry: dict[str, object]) -> str:
    place = entry["loc"]
    parts = [str(part) for part in place] if isinstance(place, tuple) else []
    name = ".".join(parts[1:]) or "body"  # the first part says where it was: body, query or path
    if entry["type"] == "json_invalid":
        return f"the body is not JSON, from character {name} on"
    seen = repr(entry.get("input"))
    return f"{name}: {entry['msg']} (got {seen if len(seen) <= 80 else seen[:77] + '...'})"
