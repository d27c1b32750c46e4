"""The outermost layer: request ids, keys, limits, security headers, metrics and the access log, for every answer."""

import logging
import os
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smar.core.logs import ACCESS
from smar.serving.error_responses import error_response, http_error_response
from smar.serving.events import PATH as EVENTS
from smar.serving.limits import Body, Keys, RateLimiter, Room, too_large
from smar.serving.options import ServiceOptions
from smar.serving.prometheus import LATENCY, REFUSED, REQUESTS, count, observe
from smar.serving.routes import RATE
from smar.serving.several import INDEX, addressed

SECURITY_HEADERS = {
    # no inline script or style, no other origin; data: is for the icons of the documentation page,
    # blob: for the picture that a shopper is about to search by
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_WRITES = ("PUT", "PATCH", "DELETE")
_BULK = ("POST", "/v1/items/bulk")
_KINDS = ("changes", "events", "pictures", "words")
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_CORS: dict[str, Any] = {
    "allow_methods": _METHODS,
    "allow_headers": ("Authorization", "Content-Type", "If-None-Match", "X-API-Key", "X-Request-ID", "X-Session-ID"),
    "expose_headers": ("ETag", "Retry-After", "Server-Timing", "X-Request-ID"),
}
_UPLOADS = ("/v1/items/", "/v1/search/picture")
_OPEN = ("/healthz", "/readyz", "/metrics")  # a balancer that is told "too many requests" would take the service out
_UPLOADS_AT_ONCE = 4  # of full size and one kind that a worker holds; smaller bodies as many as fit the same bytes

access, failures = logging.getLogger(ACCESS), logging.getLogger("smar.serving")


class Guard:
    """ASGI middleware around the whole application.

    `crowded` tells whether more connections are open than may be; the server that knows sets it.
    """

    def __init__(self, app: ASGIApp, options: ServiceOptions) -> None:
        self.app, self.options = app, options
        self.crowded: Callable[[], bool] = lambda: False
        self.keys = Keys(options.keys)
        # one each, so that nobody's pictures keep out who writes, or who searches by words
        self.rooms = {kind: Room(_UPLOADS_AT_ONCE * options.upload_bytes) for kind in _KINDS}
        self.limiter: RateLimiter | None = None
        if options.rate and options.shared is not None:
            self.limiter = RateLimiter(options.rate, options.burst, options.shared / "clients")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on; observe either way."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method: str = scope["method"]
        scope = addressed(self._without_prefix(scope))
        if method == "HEAD":  # whatever can be read; the server leaves the body out
            scope = {**scope, "method": "GET"}
        app = self.app
        started, headers = time.perf_counter(), Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else os.urandom(16).hex()
        room = self.rooms[_kind(scope)]
        limit, streamed = self._limit(scope), (scope["method"], scope["path"]) == _BULK
        body = Body(receive, limit, self.options.patience, room, streamed)
        status, begun = 500, False

        async def observed(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                _add_headers(message, request_id)
            await send(message)

        try:
            refusal = self._refuse(scope, headers) or self._without_space(limit, headers)
            if refusal is not None:
                count(REFUSED, str(refusal.status_code))
                app = refusal
            if self.options.cors:  # a page of another origin may read refusals, too
                app = CORSMiddleware(app, self.options.cors, **_CORS)
            await app(scope, body, observed)
        except Exception:
            # the client has its 500; the server would log this once more, and not say of which request
            failures.exception("a request failed", extra={"fields": {"request_id": request_id, "route": _route(scope)}})
            if not begun:
                raise
        finally:
            room.give(body.taken)
            self._observe(scope, method, status, time.perf_counter() - started, request_id)

    def _without_prefix(self, scope: Scope) -> Scope:
        """The request as the application knows it; a proxy may have taken its prefix away or not."""
        root, path = self.options.root_path, scope["path"]
        if not root or not (path + "/").startswith(root + "/"):
            return scope
        raw = bytes(scope["raw_path"])
        return {**scope, "path": path[len(root) :], "raw_path": raw.removeprefix(root.encode())}

    def _limit(self, scope: Scope) -> int:
        if (scope["method"], scope["path"]) == _BULK:
            return sys.maxsize
        upload = scope["path"].startswith(_UPLOADS)
        return self.options.upload_bytes if upload else self.options.body_bytes

    def _without_space(self, limit: int, headers: Headers) -> Response | None:
        """Refuse what says beforehand that it is too large; `Body` finds the others."""
        size = headers.get("content-length", "")
        return http_error_response(too_large(limit)) if size.isdecimal() and int(size[:20]) > limit else None

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        path: str = scope["path"]
        if path in _OPEN:
            return None
        if not path:  # the page's own addresses are relative to its folder
            index = f"/indexes/{quote(scope[INDEX], safe='')}" if INDEX in scope else ""
            return RedirectResponse(f"{self.options.root_path}{index}/", 308)
        if self.crowded():
            return error_response(503, "too_many_connections", "too many connections are open; try again shortly.",
                                  {"Retry-After": "1", "Connection": "close"})  # fmt: skip
        client = scope["client"][0] if scope.get("client") else ""
        if self.limiter is not None and not _apart(scope) and (wait := self.limiter.wait(client)):
            after = {"Retry-After": str(int(wait) + 1)}
            return error_response(429, "too_many_requests", f"more than {self.options.rate:g} requests a second", after)
        if self.limiter is not None:
            scope[RATE] = partial(self.limiter.wait, client)
        writes = scope["method"] in _WRITES or (scope["method"], path) == _BULK
        if writes or (self.options.protect_reads and path.startswith("/v1/")):
            return self._without_key(headers)
        return None

    def _without_key(self, headers: Headers) -> Response | None:
        if not self.keys:
            return error_response(403, "writes_are_off", "this service was started without API keys, so nothing can be "
                                  "changed; start it with `smar serve --keys FILE --model RUN`.")  # fmt: skip
        kind, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        if self.keys.holds(key.encode("utf-8", "replace")):
            return None
        return error_response(
            401, "unauthorised", "an API key is needed: Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"}
        )

    def _observe(self, scope: Scope, method: str, status: int, spent: float, request_id: str) -> None:
        route = _route(scope)
        label = method if method in _METHODS else "other"
        count(REQUESTS, label, route, str(status))
        observe(LATENCY, spent, label, route)
        if access.isEnabledFor(logging.INFO):
            fields = {
                "request_id": request_id,
                "method": method,
                "route": route,
                "status": status,
                "ms": round(1000 * spent, 3),
                **({"index": scope[INDEX]} if INDEX in scope else {}),
                **scope.get("state", {}).get("log", {}),
            }
            access.info("request", extra={"fields": fields})


def _kind(scope: Scope) -> str:
    """Whose memory a request's body takes."""
    if scope["path"] == "/v1/search/picture":
        return "pictures"
    if scope["path"] == EVENTS:
        return "events"
    return "changes" if scope["path"].startswith(_UPLOADS) else "words"


def _apart(scope: Scope) -> bool:
    """Whether `--rate` does not count it: events have a rate of their own, and a page of results is made of
    some 50 pictures and files at once, each read from memory.
    """
    path: str = scope["path"]
    return path == EVENTS or (scope["method"] == "GET" and (path.endswith("/picture") or path.startswith("/static/")))


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", None) or "other"


def _add_headers(message: Message, request_id: str) -> None:
    message["headers"] = [*message["headers"], *_RAW_HEADERS, (b"x-request-id", request_id.encode())]
