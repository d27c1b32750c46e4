"""Several indexes in one service: which of them a request is for, and each one's application.

``/v1/indexes/NAME/search`` is ``/v1/search`` of that index, and ``/indexes/NAME/`` its page. What names none is for the
first one. An index that cannot be read answers 503 and takes no other one with it.
"""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeAlias
from urllib.parse import unquote

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from smar.search.local import Attempts
from smar.serving import prometheus
from smar.serving.answers import BASE
from smar.serving.bodies import BUSY
from smar.serving.engine import Engine
from smar.serving.error_responses import NotReady, error_response, unreadable_response
from smar.serving.events import Events
from smar.serving.follow import INTERVAL, following
from smar.serving.health import readiness
from smar.serving.options import ServiceOptions
from smar.serving.routes import Searches
from smar.serving.schemas import IndexesOut, IndexOut, Readiness
from smar.serving.strict import StrictRoute
from smar.serving.writer_client import writer_client

INDEX = "smar.index"
"""In a request's scope, the index that it names."""
_API, _PAGE = b"/v1/indexes/", b"/indexes/"
_HEALTH = (b"healthz", b"readyz", b"metrics")
logger = logging.getLogger("smar.serving")


def addressed(scope: Scope) -> Scope:
    """The request as the index that it names knows it: without the name in its path."""
    raw = bytes(scope["raw_path"])
    if raw.startswith(_API):
        name, _, rest = raw.removeprefix(_API).partition(b"/")
        raw = b"/" + rest if rest in _HEALTH else b"/v1/" + (rest or b"about")
    elif raw.startswith(_PAGE):
        name, slash, rest = raw.removeprefix(_PAGE).partition(b"/")
        raw = slash + rest
    else:
        return scope
    return {**scope, "path": unquote(raw.decode("latin-1")), "raw_path": raw, INDEX: unquote(name.decode("latin-1"))}


class Opening(NamedTuple):
    """An index at the start of a worker: its folder, opened or with what is wrong with it, and its own options."""

    folder: Path
    engine: Engine | str
    options: ServiceOptions


class Applications(NamedTuple):
    """What answers for an index: requests that name it, and those that name none when it is the first one."""

    named: ASGIApp
    front: ASGIApp


class Served:
    """One index of a service: its applications, or while it cannot be read a refusal.

    `make` makes the applications once there is an engine; `engine` and `searches` are None before.
    """

    def __init__(self, name: str, opening: Opening, alone: bool, events: "Events | None", make: "Make") -> None:
        self._events = events
        self.name, self.folder, self.options, self._make = name, opening.folder, opening.options, make
        self.prefix = "" if alone else f"/indexes/{name}"
        self.base = f"{self.options.root_path}/v1{self.prefix}"
        self.engine: Engine | None = None
        self.searches: Searches | None = None
        self.applications = Applications(self._refuse, self._refuse)
        self._said = opening.engine if isinstance(opening.engine, str) else ""

    def take(self, engine: Engine) -> None:
        """Answer from it from now on."""
        self.engine, self.searches = engine, Searches(engine, self.options, self._events, self.name)
        self._client = writer_client(self.options)
        self.applications = self._make(self, engine, self.searches)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Health and figures are told, everything else has to wait."""
        answer: Response = unreadable_response(self._said)
        if scope["path"] == "/healthz":
            answer = JSONResponse({"status": "up"})
        elif scope["path"] == "/metrics":
            answer = Response(prometheus.exposition(), media_type=prometheus.CONTENT_TYPE_LATEST)
        await answer(scope, receive, send)

    async def ready(self) -> Readiness:
        """Whether a query works; raises NotReady."""
        if self.engine is None:
            raise NotReady(f"the index cannot be read now: {self._said}")
        return await readiness(self.engine, self._client)

    def told(self) -> IndexOut:
        """How the list of indexes shows it."""
        problem = self._said if self.engine is None else self.engine.live.unsafe or self.engine.live.problem
        index = None if self.engine is None else self.engine.live.snapshot
        items, fingerprint = (None, None) if index is None else (len(index), index.fingerprint)
        address = f"{self.options.root_path}/v1/indexes/{self.name}"
        return IndexOut(name=self.name, address=address, items=items, fingerprint=fingerprint, problem=problem or None)

    async def work(self) -> None:
        """Follow the index, for ever; one that cannot be read from the moment on when it can."""
        if self.engine is None:
            prometheus.UNREADABLE.labels(self.name).set(1)
            engine = await self._opened()
            self.take(engine)
            gc.collect()
            gc.freeze()  # as at a usual start
        assert self.engine is not None
        async with following(self.engine, self.name):
            await asyncio.Event().wait()

    async def _opened(self) -> Engine:
        attempts = Attempts(self.folder)
        while True:
            if not attempts.due():
                await asyncio.sleep(INTERVAL)
                continue
            logger.error("the index cannot be read, all requests are answered with 503: %s", self._said)
            try:
                rules = self.options.rules, self.options.kept_rules
                engine = await asyncio.to_thread(Engine.open, self.folder, True, *rules)
                engine.check()
                return engine
            except Exception as error:  # whatever it is, it may be mended
                self._said = str(error)


def _unknown(name: str, served: Iterable[str]) -> Response:
    names = ", ".join(served)
    return error_response(404, "unknown_index", f"there is no index {name[:100]!r} here; indexes: {names}.")


def alone(app: ASGIApp, options: ServiceOptions, name: str) -> ASGIApp:
    """An application that answers for its one index, and refuses what is for another one."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        BASE.set(f"{options.root_path}/v1")
        asked = scope.get(INDEX, name)
        await (app if asked == name else _unknown(asked, [name]))(scope, receive, send)

    return answered


Make: TypeAlias = Callable[[Served, Engine, Searches], Applications]


class Several:
    """ASGI: passes a request on to the application of its index, and follows all of them while it runs.

    `served` are the indexes by name, the first one first; whoever makes the service puts them there.
    `events` takes those of all of them.
    """

    def __init__(self, events: "Events | None") -> None:
        self.events = events
        self.served: dict[str, Served] = {}
        self._lifespan = Router(lifespan=lambda _: self._running())

    @property
    def first(self) -> Served:
        """Answers what names no index."""
        return next(iter(self.served.values()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or 404 where there is no such index."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
            return
        name: str | None = scope.get(INDEX)
        chosen = self.first if name is None else self.served.get(name)
        if chosen is None:
            await _unknown(str(name), self.served)(scope, receive, send)
            return
        BASE.set(chosen.base)
        await (chosen.applications.front if name is None else chosen.applications.named)(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(one.work()) for one in self.served.values()]
        try:
            async with contextlib.nullcontext() if self.events is None else self.events.collecting():
                yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def ready(self, name: str | None) -> Readiness:
        """Whether an index answers, or all of them; raises NotReady."""
        writes, rules, stores = list[str](), list[str](), list[str]()
        for one in self.served.values() if name is None else [self.served[name]]:
            said = f"index {one.name}: " if len(self.served) > 1 else ""
            try:
                ready = await one.ready()
            except NotReady as error:
                raise NotReady(f"{said}{error}") from error.__cause__
            writes += [said + ready.writes] if ready.writes else []
            rules += [said + ready.rules] if ready.rules else []
            stores += [said + ready.store] if ready.store else []
        joined = ("; ".join(each) or None for each in (writes, rules, stores))
        return Readiness(status="ready", **dict(zip(("writes", "rules", "store"), joined, strict=True)))


def build_indexes_router(several: Several, options: ServiceOptions) -> APIRouter:
    """``GET /v1/indexes``."""
    router = APIRouter(route_class=StrictRoute)

    @router.get("/v1/indexes", responses=BUSY, summary="The indexes of this service", tags=["health"])
    async def list_indexes() -> IndexesOut:
        """All that is under `/v1/` is there for each of them, at its address: `/v1/indexes/NAME/search`."""
        told = [one.told() for one in several.served.values()]
        return IndexesOut(indexes=told, compared=list(options.variants))

    return router
