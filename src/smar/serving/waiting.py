"""A worker whose index cannot be read any more: it says so with 503, and works again once the index is whole."""

import asyncio
import contextlib
import gc
import logging
from collections.abc import Callable
from pathlib import Path

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from smar.search.local import Attempts
from smar.serving import metrics
from smar.serving.app import create_app
from smar.serving.engine import Engine
from smar.serving.errors import unreadable_response
from smar.serving.follow import INTERVAL, following
from smar.serving.guard import Guard
from smar.serving.options import ServiceOptions

logger = logging.getLogger("smar.serving")


class Waiting:
    """An ASGI application that answers 503 for what was `said` until the index `folder` can be opened.

    From then on it is the application of `create_app`; `crowded` is as there.
    """

    def __init__(self, folder: Path, said: str, options: ServiceOptions) -> None:
        self._folder, self._said, self._options = folder, said, options
        self._app: ASGIApp = Guard(self._refuse, options, {})
        self.crowded: Callable[[], bool] = lambda: False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with whatever there is."""
        await (self._live if scope["type"] == "lifespan" else self._app)(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Health and figures are told, everything else has to wait."""
        answer: Response = unreadable_response(self._said)
        if scope["path"] == "/healthz":
            answer = JSONResponse({"status": "up"})
        elif scope["path"] == "/metrics":
            answer = Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE_LATEST)
        await answer(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        metrics.UNREADABLE.set(1)
        task = asyncio.create_task(self._work())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await send({"type": "lifespan.shutdown.complete"})

    async def _work(self) -> None:
        engine = await self._opened()
        async with following(engine):
            app = create_app(engine, self._options)
            app.crowded = lambda: self.crowded()
            self._app = app
            gc.collect()
            gc.freeze()  # as at a usual start
            await asyncio.Event().wait()

    async def _opened(self) -> Engine:
        attempts = Attempts(self._folder)
        while True:
            if not attempts.due():
                await asyncio.sleep(INTERVAL)
                continue
            logger.error("the index cannot be read, all requests are answered with 503: %s", self._said)
            try:
                rules = self._options.rules, self._options.kept_rules
                engine = await asyncio.to_thread(Engine.open, self._folder, True, *rules)
                engine.check()
                return engine
            except Exception as error:  # whatever it is, it may be mended
                self._said = str(error)
