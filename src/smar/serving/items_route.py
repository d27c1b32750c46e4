"""``GET /v1/items``: all items, page by page."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query, Response

from smar.serving.answers import as_json, items_json
from smar.serving.bodies import BUSY, CROWDED, JSON
from smar.serving.engine import Engine
from smar.serving.schemas import ItemsResponse

MOST = 1000


def add_listing(router: APIRouter, engine: Engine) -> None:
    """The route over an engine's index."""

    @router.get(
        "/v1/items",
        response_model=ItemsResponse,
        responses=BUSY | CROWDED,
        summary="All items",
        tags=["items"],
    )
    async def list_items(
        limit: Annotated[int, Query(ge=1, le=MOST, description="items of a page")] = 100,
        after: Annotated[str, Query(description="`next` of the page before; nothing for the first one")] = "",
        filter: Annotated[str | None, Query(description="only the items that match")] = None,
    ) -> Response:
        """Items by ascending id. An item that is there all the while is on one page, whatever changes beside it."""
        index = engine.index
        chosen = engine.prepared(filter, index, {})
        rows = index.catalogue.following(after, limit + 1, chosen)
        items = [msgspec.Raw(item) for item in items_json(index, rows[:limit])]
        last = index.catalogue.item_id(int(rows[limit - 1])) if len(rows) > limit else None
        return Response(as_json({"total": index.count(chosen), "next": last, "items": items}), media_type=JSON)
