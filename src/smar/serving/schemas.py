"""Requests and answers of the HTTP API; they are also its OpenAPI documentation."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from smar.index.base import Mode
from smar.index.filter_parser import EXAMPLE

MAX_K = 200
MAX_QUERY = 1000


def _whole(value: object) -> object:
    """JSON has one kind of number: 24.0 is an integer there. Text and true are none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


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
    k: Annotated[int, BeforeValidator(_whole)] = Field(
        24, ge=1, le=MAX_K, strict=True, description="most hits to return"
    )
    mode: Mode = Field(
        Mode.ADAPTIVE,
        description="words only, adaptive (blend), route (one or the other), always pictures, or hybrid (with BM25)",
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
    words_score: float | None = Field(description="BM25 score of a hybrid search, else null")
    picture: str | None = Field(description="address of the picture; null when the item has none")
    item: dict[str, Any] = Field(description="the item's own columns")


class SearchResponse(BaseModel):
    """What was found."""

    query: str = Field(description="the query as it was understood")
    mode: Mode
    image_probability: float = Field(description="the gate: how likely pictures help this query, 0 to 1")
    routed: bool = Field(description="whether the gate, asked for a yes or no, would bring pictures in")
    corrected: dict[str, list[str]] = Field(
        description="what a hybrid search read the query's words as that no item holds, the likeliest first"
    )
    unknown: float = Field(
        description="share of the query that neither the model's vocabulary nor the items' words hold, 0 to 1; above "
        "0.5 the hits have little to do with it"
    )
    hits: list[HitOut]


class HitsResponse(BaseModel):
    """What looks alike."""

    hits: list[HitOut]


class Written(BaseModel):
    """An item that was written; it survives a crash from now on, and every worker finds it within a second."""

    item_id: str
    image_status: str = Field(description="what became of its picture")
    created: bool = Field(description="false where it replaced an item of the same id")


class Deleted(BaseModel):
    """An item that is gone."""

    item_id: str
    deleted: bool


class ItemIn(BaseModel):
    """An item's columns, as the index has them, and its picture."""

    model_config = ConfigDict(extra="allow")

    title: str
    picture: str | list[str] | None = Field(None, description="encoded picture(s) in base64; JPEG, PNG, WebP or GIF")


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


class About(BaseModel):
    """What this service is and can do."""

    version: str = Field(description="of smar")
    index: str = Field(description="version of the index that this worker serves")
    fingerprint: str = Field(description="of the model")
    items: int
    modes: list[Mode]
    picture_search: bool = Field(description="whether a model worker can encode pictures and items")
    writable: bool = Field(description="whether items can be changed over HTTP, with an API key")


class Health(BaseModel):
    """The process is up, or the service answers."""

    status: str


class ErrorBody(BaseModel):
    """What went wrong, for programs (`code`) and people (`message`)."""

    code: str
    message: str
    image_status: str | None = Field(None, description="why a picture cannot be used, in the words of `smar prepare`")


class ErrorResponse(BaseModel):
    """Every answer that is not a success."""

    error: ErrorBody
