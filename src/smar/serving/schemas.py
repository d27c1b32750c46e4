"""Answers of the HTTP API, and items that it is sent; they are also its OpenAPI documentation."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from smar.search.protocol import Mode
from smar.serving.search_schemas import SearchResponse

ColumnKind = Literal["text", "number", "boolean", "date", "list", "empty"]


class Written(BaseModel):
    """An item that was written; it survives a crash from now on, and every worker finds it within a second."""

    item_id: str
    image_status: str = Field(description="what became of its picture")
    created: bool = Field(description="false where it replaced an item of the same id")


class Deleted(BaseModel):
    """An item that is gone."""

    item_id: str
    deleted: bool


class Updated(BaseModel):
    """Columns of an item were changed; that survives a crash from now on, and every worker finds it within a second."""

    item_id: str
    updated: bool


class ItemChanges(BaseModel):
    """Columns of an item to change, as the index has them; null takes a value away."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [{"price": 29.9, "in_stock": True}]})


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


class ItemsResponse(BaseModel):
    """A page of all items; each is as `GET /v1/items/{item_id}` shows it, and can be PUT back."""

    total: int = Field(description="items on all pages")
    next: str | None = Field(description="give it as `after` to get the next page; null on the last one")
    items: list[ItemOut]


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


class FacetsOut(BaseModel):
    """What the page offers to filter by; a column that the shop does not have is empty or null."""

    items: int
    pictures: int = Field(description="items that have a picture")
    category: list[FacetValue]
    brand: list[FacetValue]
    price: PriceRange | None
    prices: list[PriceCount] = Field(description="counts by price; the borders are the same whatever the filter")


class CollapseOut(BaseModel):
    """What the items of one card have in common, and in what they differ."""

    column: str
    noun: str = Field(description="what the page calls the others, such as colours")


class IndexOut(BaseModel):
    """An index of this service."""

    name: str
    address: str = Field(description="what its routes begin with, in place of `/v1`")
    items: int | None = Field(description="null while it cannot be read")
    fingerprint: str | None = Field(description="of its model")
    problem: str | None = Field(description="why it cannot be read now")


class IndexesOut(BaseModel):
    """The indexes of this service; the first one answers what names none, unless some are compared."""

    indexes: list[IndexOut]
    compared: list[str] = Field(description="those that answer in its place: `smar serve --split`, `--interleave`")


class About(BaseModel):
    """What this service is and can do."""

    version: str = Field(description="of smar")
    index: str = Field(description="version of the index that this worker serves")
    fingerprint: str = Field(description="of the model")
    items: int
    modes: list[Mode]
    facets: list[str] = Field(description="columns that the shop offers to filter by")
    sorts: list[str] = Field(description="columns that the shop offers to sort by, a minus before those downwards")
    collapse: CollapseOut | None = Field(description="of what the shop shows one card for each value")
    cutoffs: list[Mode] = Field(description="modes whose searches know a cut-off, below which nothing is relevant")
    kinds: dict[str, ColumnKind] = Field(description="what the columns of `facets` and `sorts` hold")
    picture_search: bool = Field(description="whether a model worker can encode pictures and items")
    compared: list[str] = Field(description="indexes that an experiment compares; searches then give their `session`")
    events: bool = Field(description="whether impressions and clicks can be reported")
    events_sessions: bool = Field(description="whether events keep the session's id, as a hash")
    writable: bool = Field(description="whether items can be changed over HTTP, with an API key")


class Health(BaseModel):
    """The process is up, or the service answers."""

    status: str


class Readiness(BaseModel):
    """A real query works."""

    status: str
    writes: str | None = Field(None, description="why nothing can be written now; left out when that works")
    rules: str | None = Field(
        None, description="why the file of rules as it is now does not hold; left out when it does"
    )
    store: str | None = Field(
        None, description="why new versions in the store of the index are not taken in; left out when they are"
    )


class ErrorBody(BaseModel):
    """What went wrong, for programs (`code`) and people (`message`)."""

    code: str
    message: str
    image_status: str | None = Field(None, description="why a picture cannot be used, in the words of `smar prepare`")


class ErrorResponse(BaseModel):
    """Every answer that is not a success."""

    error: ErrorBody


class BatchResponse(BaseModel):
    """Each search's answer, or why it has none, in the order of the searches."""

    answers: list[SearchResponse | ErrorResponse]


class BulkResult(BaseModel):
    """What became of one line; `status` and `error` are those that a request of its own would have had."""

    line: int = Field(description="from 1; blank lines count, and have no result")
    item_id: str | None = Field(description="null where the line names none")
    status: int = Field(description="200 when the change is durable")
    created: bool | None = Field(None, description="put: false where it replaced an item of the same id")
    image_status: str | None = Field(None, description="put: what became of its picture")
    updated: bool | None = Field(None, description="patch")
    deleted: bool | None = Field(None, description="delete")
    error: ErrorBody | None = None


class RejectedEvent(BaseModel):
    """An event that was not taken."""

    number: int = Field(description="of the event in the body, from 1")
    error: ErrorBody


class EventsResponse(BaseModel):
    """What became of the events of one request."""

    accepted: int = Field(description="events that survive a crash from now on")
    rejected: int
    errors: list[RejectedEvent] = Field(description="the first 20 that were rejected")
