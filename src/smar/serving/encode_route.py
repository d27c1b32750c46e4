"""``POST /v1/encode``: a query's wide vector and the gate, for a shop that asks its own engine with it."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from smar import __version__
from smar.search.embeddings import QUERY_FOLDER
from smar.search.protocol import Mode, weigh, widen
from smar.search.query import QueryEncoder
from smar.serving.answers import as_json
from smar.serving.bodies import JSON, read_body
from smar.serving.error_responses import add_error_handlers
from smar.serving.guard import Guard
from smar.serving.health import build_health_router
from smar.serving.options import DEFAULT, ServiceOptions
from smar.serving.question import RequestError, check_query
from smar.serving.requests import MAX_QUERY
from smar.serving.schemas import Readiness
from smar.serving.several import alone


class EncodeRequest(BaseModel):
    """What to encode."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str = Field(description="what the shopper typed", json_schema_extra={"maxLength": MAX_QUERY})
    mode: Mode = Field(Mode.ADAPTIVE, description="adaptive, route, text or multimodal")


def encoded(encoder: QueryEncoder, asked: EncodeRequest) -> dict[str, Any]:
    """The answer: `vector` [2k] ranks items of ``[S_m ; S_t]`` by inner product; `share` is that of the pictures.

    Raises:
        RequestError: the query is empty or too long, or the mode needs words.
    """
    if asked.mode is Mode.HYBRID:
        raise RequestError("invalid_request", "mode hybrid ranks by words, too, which are in no vector; take adaptive.")
    vectors = encoder.encode([check_query(asked.query)])
    share = float(weigh(vectors, asked.mode)[0])
    return {
        "query": check_query(asked.query),
        "mode": asked.mode,
        "fingerprint": encoder.manifest.fingerprint,
        "image_probability": float(vectors.image_probability[0]),
        "routed": bool(vectors.image_probability[0] > vectors.threshold),
        "share": share,
        "vector": widen(vectors, asked.mode)[0].tolist(),
    }


def encoder_in(folder: Path) -> QueryEncoder:
    """The query encoder of an embeddings folder, of an index's current version, or the folder itself."""
    if (folder / "current").exists():
        from smar.search.local import EmbeddedIndex

        return EmbeddedIndex.open(folder, check=False).encoder
    inner = folder / QUERY_FOLDER
    return QueryEncoder.load(inner if inner.exists() else folder)


def create_encode_app(folder: Path, options: ServiceOptions | None = None) -> Guard:
    """The ASGI application that encodes queries and holds no items; raises InputError where there is no encoder."""
    encoder, options = encoder_in(folder), options or ServiceOptions()
    app = FastAPI(title="smar encode-service", version=__version__, redirect_slashes=False)
    add_error_handlers(app)

    @app.post("/v1/encode", summary="A query's vector", tags=["search"])
    async def encode(request: Request) -> Response:
        """The wide vector that a mode ranks by, and what the gate says."""
        return Response(as_json(encoded(encoder, await read_body(request, EncodeRequest))), media_type=JSON)

    async def ready(_: Request) -> Readiness:
        encoded(encoder, EncodeRequest(query="ready"))
        return Readiness(status="ready")

    app.include_router(build_health_router(ready))
    return Guard(alone(app, options, DEFAULT), options)
