"""Is the process up, can everything be read and written, and the figures."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response

from smar.serving import prometheus
from smar.serving.engine import Engine
from smar.serving.error_responses import NotReady
from smar.serving.schemas import ErrorResponse, Health, Readiness
from smar.serving.strict import StrictRoute
from smar.serving.writer_client import WriterClient, WriterDown
from smar.storage.following import problem


def build_health_router(ready: Callable[[Request], Awaitable[Readiness]]) -> APIRouter:
    """The routes for whoever watches the service; `ready` says whether what is asked for answers."""
    router = APIRouter(route_class=StrictRoute)

    @router.get("/healthz", summary="Is the process up?", tags=["health"])
    async def healthz() -> Health:
        """Answers whenever the process does."""
        return Health(status="up")

    @router.get(
        "/readyz",
        responses={503: {"model": ErrorResponse, "description": "a probe query failed, or the index cannot be read"}},
        response_model_exclude_none=True,
        summary="Does a query work, and what cannot be written?",
        tags=["health"],
    )
    async def readyz(request: Request) -> Readiness:
        """Runs a real query; 503 with the reason when it fails or what lies on disk now cannot be read.

        Where only writing is impossible, the answer is 200 and `writes` says why: searches go on.
        """
        return await ready(request)

    @router.get("/metrics", response_class=Response, summary="Figures for Prometheus", tags=["health"])
    async def get_metrics() -> Response:
        """Counters and histograms of all workers in the Prometheus text format."""
        return Response(prometheus.exposition(), media_type=prometheus.CONTENT_TYPE_LATEST)

    return router


async def readiness(engine: Engine, client: WriterClient | None) -> Readiness:
    """Whether a query works, and why nothing can be written; raises NotReady."""
    try:
        engine.check()
    except Exception as error:  # whatever breaks a query makes the service unready, and is told to the caller
        raise NotReady(f"a probe query failed: {type(error).__name__}: {error}") from error
    if engine.live.problem is not None:
        raise NotReady(f"the index on disk cannot be read, an older state answers: {engine.live.problem}")
    rules = None if engine.rules is None else engine.rules.problem
    writes, store = None if client is None else await _unwritable(client), problem(engine.live.folder)
    return Readiness(status="ready", writes=writes, rules=rules, store=store)


async def _unwritable(client: WriterClient) -> str | None:
    try:
        answer = await client.health()
    except WriterDown as error:
        return str(error)
    return str(answer.json().get("writes") or "") or None
