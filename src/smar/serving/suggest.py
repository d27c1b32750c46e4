"""``GET /v1/suggest``: what to search for, while somebody types."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, Field

from smar.data.text import normalise
from smar.search.local import EmbeddedIndex, Suggestions
from smar.serving.answers import as_json
from smar.serving.bodies import BUSY, CROWDED, JSON
from smar.serving.engine import Engine
from smar.serving.options import ServiceOptions
from smar.serving.requests import MAX_QUERY

MOST = 20


class FilterOut(BaseModel):
    """A filter that goes with a query."""

    column: str
    value: str
    share: float = Field(description="of the clicks after the query that went to items with this value")


class QuerySuggestion(BaseModel):
    """A frequent query."""

    text: str
    count: int = Field(description="shoppers that asked it")
    filters: list[FilterOut]


class ValueSuggestion(BaseModel):
    """A value of the catalogue."""

    text: str
    count: int = Field(description="items that have it")
    column: str


class SuggestResponse(BaseModel):
    """What goes on from what was typed, the most frequent first, what takes one typo last."""

    query: str = Field(description="what was typed, in its normal form")
    queries: list[QuerySuggestion]
    values: list[ValueSuggestion]


class _Kept:
    """The suggestions of the version that is served; made in a thread when one is first asked."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        self._made: tuple[object, Suggestions] | None = None
        self._making = asyncio.Lock()

    async def of(self, index: EmbeddedIndex) -> Suggestions:
        """Those of an index."""
        async with self._making:
            if self._made is None or self._made[0] != index.path:
                self._made = index.path, await asyncio.to_thread(Suggestions.open, index, self._columns)
            return self._made[1]


def add_suggest(router: APIRouter, engine: Engine, options: ServiceOptions) -> None:
    """The route over an engine's index."""
    kept = _Kept(options.facets)

    @router.get(
        "/v1/suggest",
        response_model=SuggestResponse,
        responses=BUSY | CROWDED,
        summary="Suggestions",
        tags=["search"],
    )
    async def suggest(
        q: Annotated[str, Query(max_length=MAX_QUERY, description="what was typed so far")] = "",
        k: Annotated[int, Query(ge=1, le=MOST, description="queries, and as many values, at most")] = 8,
    ) -> Response:
        """Frequent queries and values of the catalogue that begin with what was typed, one typo allowed."""
        typed = normalise(q.encode("utf-8", "replace").decode("utf-8"))
        found = (await kept.of(engine.index)).find(typed, k)
        answer = as_json({"query": typed, "queries": found.queries, "values": found.values})
        return Response(answer, media_type=JSON, headers={"Cache-Control": "private, max-age=60"})
