"""Bodies of requests: how much is read, and the item and pictures in them."""

import base64
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from smar.core.errors import not_json
from smar.serving.writer.item_check import RefusedItem

MAX_BODY = 20_000_000
MAX_WAITING = 256
MAX_SEARCHES = 8
"""Searches by picture that may wait. Changes do not wait for them."""
_CHANGED_BODIES, _SEARCHED_BODIES = 8, 4
"""Bodies of full size that may lie in memory at once; smaller ones as many as fit the same bytes."""
RETRY_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Upload:
    """An item as it came: columns and encoded pictures, not checked yet.

    `shown`: the columns are as GET shows them. `picture` is then the address of the item's own picture, which stays;
    None where the item is to have none, or the one in `pictures`.
    """

    columns: dict[str, Any]
    pictures: tuple[bytes, ...] = ()
    shown: bool = False
    picture: str | None = None


@dataclass(slots=True)
class Places:
    """Requests of one kind that may wait, and memory for their bodies until they are decoded."""

    most: int
    what: str
    room: int
    """Bytes of bodies that may lie in memory at once."""
    taken: int = 0
    held: int = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Take one until the request is answered; HTTPException 429 when there is none."""
        if self.taken >= self.most:
            raise _busy(f"{self.taken} {self.what} wait already")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Reserve memory for a body; HTTPException 429 when it is taken."""
        if self.held + size > self.room:
            raise _busy(f"{self.held:,} bytes of other {self.what} are being read")
        self.held += size
        try:
            yield
        finally:
            self.held -= size


class Admission:
    """Bounds what waits: requests until they are answered, and bytes of bodies until they are decoded."""

    def __init__(self, max_body: int = MAX_BODY, max_waiting: int = MAX_WAITING) -> None:
        self.max_body = max_body
        self.changes = Places(max_waiting, "changes", _CHANGED_BODIES * max_body)
        self.searches = Places(MAX_SEARCHES, "searches by picture", _SEARCHED_BODIES * max_body)

    def body(self, request: Request, places: Places) -> AbstractContextManager[None]:
        """Reserve memory for a body; HTTPException 413 when it says that it is too large, 429 when memory is taken."""
        size = self._announced(request)
        if size > self.max_body:
            raise self.too_large(f"{size:,} bytes")
        return places.hold(size)

    def _announced(self, request: Request) -> int:
        length = request.headers.get("content-length", "")
        return int(length) if length.isdecimal() else self.max_body

    def too_large(self, seen: str) -> HTTPException:
        """The refusal of a body."""
        return HTTPException(413, f"the body has {seen}; at most {self.max_body:,} bytes are allowed.")

    async def read(self, request: Request) -> bytes:
        """The whole body; HTTPException 413 as soon as it is too large."""
        parts, size = [], 0
        try:
            async for part in request.stream():
                size += len(part)
                if size > self.max_body:
                    raise self.too_large(f"more than {self.max_body:,} bytes")
                parts.append(part)
        except ClientDisconnect:
            raise HTTPException(400, "the connection was closed before the body was complete.") from None
        return b"".join(parts)


def _busy(why: str) -> HTTPException:
    return HTTPException(429, f"{why}; try again later.", {"Retry-After": str(RETRY_SECONDS)})


async def parse_upload(request: Request, body: bytes, pictures: int) -> Upload:
    """The item in a JSON or multipart body, with at most `pictures` pictures.

    Raises:
        RefusedItem: the body is neither, or not an item; HTTPException 415 for another content type.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        upload = await _multipart(request, body, pictures)
    elif kind == "application/json":
        upload = _json_upload(body)
    else:
        raise HTTPException(415, f"content type {kind[:100]!r}; allowed: application/json, multipart/form-data.")
    return not_too_many(upload, pictures)


def not_too_many(upload: Upload, pictures: int) -> Upload:
    """The upload; raises RefusedItem when it has more than `pictures` pictures."""
    if len(upload.pictures) <= pictures:
        return upload
    raise RefusedItem(
        "too_many_pictures", f"at most {pictures} of an item's pictures are encoded (data.pictures_per_item)."
    )


def _json_upload(body: bytes) -> Upload:
    return upload_of(json_object(body, "the body"))


def upload_of(columns: dict[str, Any]) -> Upload:
    """The item in a JSON object: columns and `picture`, or what GET returns for an item; raises RefusedItem."""
    if isinstance(columns.get("item"), dict) and columns.keys() <= {"item_id", "picture", "item"}:
        item, given = columns["item"], columns.get("picture")
        if "item_id" in columns and item.setdefault("item_id", columns["item_id"]) != columns["item_id"]:
            raise RefusedItem("invalid_item", "item_id is another one in the item than beside it.")
        if isinstance(given, str) and "/items/" in given and given.endswith("/picture"):
            return Upload(item, (), True, given)
        return Upload(item, _pictures(given), True)
    return Upload(columns, _pictures(columns.pop("picture", None)))


def _pictures(given: object) -> tuple[bytes, ...]:
    return tuple(map(_decoded, [] if given is None else given if isinstance(given, list) else [given]))


def _decoded(text: object) -> bytes:
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    raise RefusedItem("wrong_type", "picture is not base64 text (or a list of such texts).")


def json_object(text: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object in a text; raises RefusedItem that says what `what` is instead."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        body = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        raise RefusedItem("invalid_item", f"{not_json(body, str(error), what=what)}.") from None
    if not isinstance(found, dict):
        raise RefusedItem("invalid_item", f'{what} is not an object such as {{"title": "Red dress"}}.')
    return found


async def _multipart(request: Request, body: bytes, pictures: int) -> Upload:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    again = Request(request.scope, receive)
    async with again.form(max_files=pictures + 2, max_fields=2, max_part_size=len(body) + 1) as form:
        if strange := sorted({name for name, _ in form.multi_items()} - {"item", "picture"}):
            raise RefusedItem("invalid_item", f"unknown part {', '.join(strange)[:100]}; allowed: item, picture.")
        parts = [await _content(part) for part in form.getlist("item")]
        files = [await _content(part) for part in form.getlist("picture")]
    if len(parts) != 1:
        raise RefusedItem("invalid_item", f"{len(parts)} parts named item; one is needed, with the columns as JSON.")
    return Upload(json_object(parts[0], "part item"), tuple(files))


async def _content(part: UploadFile | str) -> bytes:
    return part.encode("utf-8", "surrogateescape") if isinstance(part, str) else await part.read()
