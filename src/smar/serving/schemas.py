"""Requests and answers of the HTTP API; they are also its OpenAPI documentation."""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from smar.index.base import Mode
from smar.index.filter_parser import EXAMPLE
from smar.serving.wire import picture_url, plain

if TYPE_CHECKING:
    from smar.serving.engine import SearchResult

MAX_K = 200
MAX_QUERY = 1000


class SearchRequest(BaseModel):
    """What to search for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str = Field(
        description="what the shopper typed",
        examples=["red summer dress"],
        json_schema_extra={
            "minLength": 1,
            "maxLength": MAX_QUERY,
        },  # checked by the engine, which says it better
    )
    k: int = Field(24, ge=1, le=MAX_K, strict=True, description="most hits to return")
    mode: Mode = Field(
        Mode.ADAPTIVE, description="words only, adaptive (blend), route (one or the other), or always pictures"
    )
    filter: str | None = Field(None, description=f"which items may be found, such as `{EXAMPLE}`", examples=[None])
    explain: bool = Field(False, strict=True, description="also tell each hit's rank without pictures")


class HitOut(BaseModel):
    """One found item."""

    item_id: str
    rank: int = Field(description="from 1")
    score: float
    text_score: float = Field(description="query against the item's words, -1 to 1")
    multimodal_score: float = Field(description="query against the item's words and picture, -1 to 1")
    rank_text: int | None = Field(description="rank had pictures been left out; null when not asked for or far down")
    words_score: float | None = Field(None, description="BM25 score of a hybrid search, else null")
    picture: str | None = Field(description="address of the picture; null when the item has none")
    item: dict[str, Any] = Field(description="the item's own columns")


class SearchResponse(BaseModel):
    """What was found."""

    query: str = Field(description="the query as it was understood")
    mode: Mode
    image_probability: float = Field(description="the gate: how likely pictures help this query, 0 to 1")
    routed: bool = Field(description="whether the gate, asked for a yes or no, would bring pictures in")
    hits: list[HitOut]


class ItemOut(BaseModel):
    """One item."""

    item_id: str
    picture: str | None
    item: dict[str, Any]


class FacetValue(BaseModel):
    """One value of a column."""

    value: str
    count: int
    picture: str | None = Field(None, description="picture of one item with this value")


class PriceRange(BaseModel):
    """Lowest and highest price."""

    low: float
    high: float


class PriceCount(PriceRange):
    """Items with low <= price < high; the last range includes its high."""

    count: int


class Facets(BaseModel):
    """What the page offers to filter by; a column that the shop does not have is empty or null."""

    items: int
    pictures: int = Field(description="items that have a picture")
    category: list[FacetValue]
    brand: list[FacetValue]
    price: PriceRange | None
    prices: list[PriceCount] = Field(description="counts by price; the borders are the same whatever the filter")


class Health(BaseModel):
    """The process is up, or the service answers."""

    status: str


class ErrorBody(BaseModel):
    """What went wrong, for programs (`code`) and people (`message`)."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """Every answer that is not a success."""

    error: ErrorBody


def search_response(result: "SearchResult") -> SearchResponse:
    """An engine's answer as the API and `smar search --json` give it."""
    return SearchResponse(
        query=result.query,
        mode=result.mode,
        image_probability=result.image_probability,
        routed=result.routed,
        hits=[
            HitOut(
                item_id=hit.item_id,
                rank=rank,
                score=hit.score,
                text_score=hit.text_score,
                multimodal_score=hit.multimodal_score,
                rank_text=hit.rank_text,
                words_score=hit.words_score,
                picture=picture_url(hit.item_id) if hit.has_picture else None,
                item=plain(hit.payload),
            )
            for rank, hit in enumerate(result.hits, start=1)
        ],
    )
