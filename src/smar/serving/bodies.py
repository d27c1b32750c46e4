"""What routes have in common: media types, failures as they are described, and bodies, read and written."""

import hashlib
from typing import TypeVar

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from smar.core.errors import not_json
from smar.serving.question import RequestError
from smar.serving.schemas import ErrorResponse
from smar.serving.strict import Answers

M = TypeVar("M", bound=BaseModel)
JSON = "application/json"
BYTES = "application/octet-stream"
"""Beside a more telling type, for generated clients that know no other."""
UNKNOWN: Answers = {404: {"model": ErrorResponse, "description": "no such item or picture"}}
BUSY: Answers = {429: {"model": ErrorResponse, "description": "too many requests; Retry-After tells when to come back"}}
LARGE: Answers = {413: {"model": ErrorResponse, "description": "the body is too large"}}
ENCODED: Answers = {415: {"model": ErrorResponse, "description": "the body is compressed"}}
CROWDED: Answers = {
    503: {"model": ErrorResponse, "description": "too many connections are open, or the index cannot be read now"}
}


async def read_body(request: Request, kind: type[M]) -> M:
    """A JSON body as what is wanted; raises RequestError, RequestValidationError or HTTPException 415."""
    body = await request.body()
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        if (first := error.errors()[0])["type"] == "json_invalid":
            refuse_encoded(request)
            problem, sent = str(first["ctx"]["error"]), request.headers.get("content-type", "")
            raise RequestError("invalid_request", f"{not_json(body, problem, sent)}.") from None
        raise RequestValidationError([{**entry, "loc": ("body", *entry["loc"])} for entry in error.errors()]) from None


def refuse_encoded(request: Request) -> None:
    """Raise HTTPException 415 where the body is compressed: it would be taken for what it is not."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", ""):
        message = f"the body has Content-Encoding: {coding[:100]}, which is not read; send it as it is."
        raise HTTPException(415, message, {"Accept-Encoding": "identity"})


def tagged(
    request: Request, content: bytes, headers: dict[str, str], media_type: str = JSON, weak: bool = False
) -> Response:
    """An answer with an ETag, a weak one where it is not the same byte for byte; 304 where the client has just that."""
    tag = f'{"W/" * weak}"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {**headers, "ETag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
