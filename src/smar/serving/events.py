"""``POST /v1/events``: what shoppers saw and did is durable before it is answered."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from smar.data.journals import make_folder
from smar.serving.batcher import Busy
from smar.serving.bodies import BUSY, JSON, LARGE, refuse_encoded
from smar.serving.error_responses import error_response
from smar.serving.events_hash import Hasher
from smar.serving.grouped_writes import LINES
from smar.serving.journal import Journal
from smar.serving.limits import RateLimiter
from smar.serving.options import ServiceOptions
from smar.serving.prometheus import EVENTS, count
from smar.serving.question import RequestError
from smar.serving.reported import Taken
from smar.serving.schemas import ErrorBody, ErrorResponse, EventsResponse, RejectedEvent
from smar.serving.strict import Answers, StrictRoute

PATH = "/v1/events"
MOST_TOLD = 20
NO_EVENTS: Answers = {
    404: {"model": ErrorResponse, "description": "the service was started without --events"},
    507: {"model": ErrorResponse, "description": "the events cannot be written: a full disk"},
}
_BODY: dict[str, Any] = {
    "required": True,
    "content": {JSON: {"schema": {}}} | {kind: {"schema": {"type": "string"}} for kind in ("text/plain", LINES)},
}


class Events:
    """Takes the events of one worker."""

    def __init__(self, options: ServiceOptions) -> None:
        assert options.events is not None
        make_folder(options.events)
        self.journal = Journal(options.events, options.events_part_bytes, options.events_part_seconds)
        self.hasher = Hasher.of(options.events) if options.events_sessions else None
        self._burst, self._limiter = options.events_burst, None
        if options.events_rate and options.shared is not None:
            file = options.shared / "event-clients"
            self._limiter = RateLimiter(options.events_rate, options.events_burst, file)

    @contextlib.asynccontextmanager
    async def collecting(self) -> AsyncIterator[None]:
        """While the application runs: what was left before becomes parts, and at its end the rest."""
        recovering = asyncio.create_task(self.journal.recover())
        try:
            yield
        finally:
            await recovering
            await self.journal.close()

    async def take(self, request: Request) -> Response:
        """Answer once all that was accepted is durable."""
        taken = Taken(await request.body(), self.hasher)
        if not taken.accepted + len(taken.rejected):
            raise RequestError("no_events", "the body holds no event; send JSON objects, an array of them or lines.")
        self._count(request, taken.accepted + len(taken.rejected))
        for result, number in (("rejected", len(taken.rejected)), ("accepted", taken.accepted)):
            if number:
                count(EVENTS, result, by=number)
        if not taken.accepted:
            raise RequestError("invalid_events", _told(taken))
        try:
            await self.journal.append(taken.lines)
        except Busy:
            raise _later(1, "the disk does not keep up with the events") from None
        except OSError as error:
            count(EVENTS, "lost", by=taken.accepted)
            return error_response(507, "events_not_written", f"the events cannot be written: {error}.")
        errors = [
            RejectedEvent(number=number, error=ErrorBody(code="invalid_event", message=str(wrong)))
            for number, wrong in taken.rejected[:MOST_TOLD]
        ]
        answer = EventsResponse(accepted=taken.accepted, rejected=len(taken.rejected), errors=errors)
        return JSONResponse(answer.model_dump(exclude_none=True))

    def _count(self, request: Request, events: int) -> None:
        if self._limiter is None or request.client is None:
            return
        if wait := self._limiter.wait(request.client.host, min(events, self._burst)):
            raise _later(int(wait) + 1, f"more than {self._limiter.rate:g} events a second; none of these was taken")


def _later(seconds: int, why: str) -> HTTPException:
    return HTTPException(429, f"{why}; try again later.", {"Retry-After": str(seconds)})


def _told(taken: Taken) -> str:
    said = "; ".join(f"event {number}: {wrong}" for number, wrong in taken.rejected[:3])
    more = f"; and {len(taken.rejected) - 3:,} more" if len(taken.rejected) > 3 else ""
    return f"none of the events can be taken: {said}{more}"


def build_events_router(events: Events | None) -> APIRouter:
    """The route, which says what to do where the service takes no events."""
    router = APIRouter(route_class=StrictRoute)

    @router.post(
        PATH,
        response_model=EventsResponse,
        responses=BUSY | LARGE | NO_EVENTS,
        summary="Report events",
        tags=["events"],
        openapi_extra={"requestBody": _BODY},
    )
    async def post_events(request: Request) -> Response:
        """Impressions, clicks, carts and orders of items that a search found, named by the answer's `query_id`.

        A JSON object, an array of them, or lines; durable when this answers. What is wrong with one harms no other.
        """
        refuse_encoded(request)
        if events is None:
            return error_response(404, "no_events", "no events are taken; start with `smar serve --events DIR`.")
        return await events.take(request)

    return router
