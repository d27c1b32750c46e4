"""Answers of the HTTP API, and items that it is sent; they are also its OpenAPI documentation."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from smar.search.local import Relation
from smar.search.protocol import Mode

ColumnKind = Literal["text", "number", "boolean", "date", "list", "empty"]


class OthersOut(BaseModel):
    """Items that a card stands for beside the one that it shows."""

    count: int = Field(description="of all that match")
    ids: list[str] | None = Field(None, description="up to 100 of them, the best first, where they were asked for")


class MovedOut(BaseModel):
    """What has moved a hit."""

    by: Literal["rank", "boost", "bury", "pin", "synonyms"]
    rule: str | None = Field(None, description="its name; left out of what the request's own `rank` did")
    amount: float | None = Field(None, description="what it added to the score, before the next one of them")
    place: int | None = Field(None, description="of a pin")


class RuleOut(BaseModel):
    """A rule that held for a search."""

    rule: str
    effects: list[str] = Field(description="pin, hide, redirect, boost, bury, synonyms")


class HitOut(BaseModel):
    """One found item."""

    item_id: str
    rank: int = Field(description="from 1, over all pages")
    score: float = Field(description="what it is ranked by, before any sort; 0 where nothing was typed")
    text_score: float = Field(description="query against the item's words, -1 to 1")
    multimodal_score: float = Field(description="query against the item's words and picture, -1 to 1")
    rank_text: int | None = Field(description="rank had pictures been left out; null when not asked for or far down")
    words_score: float | None = Field(description="BM25 score where words take part in the ranking, else null")
    picture: str | None = Field(description="address of the picture; null when the item has none")
    item: dict[str, Any] = Field(description="the item's own columns")
    others: OthersOut | None = Field(None, description="left out where nothing was collapsed")
    team: str | None = Field(
        None,
        description="the index that put it here; null after the end of one ranking, left out where none interleave",
    )
    factors: dict[str, float] | None = Field(None, description="with `explain`, the values that its rank was made of")
    moved: list[MovedOut] | None = Field(None, description="with `explain`, what moved it, where anything could")
    highlight: dict[str, str | list[str] | None] | None = Field(
        None, description="columns that were asked for, as HTML with matched words in <em>"
    )


class ValueOut(BaseModel):
    """How often a value occurs."""

    value: str = Field(description="as a filter names it")
    count: int


class RangeOut(BaseModel):
    """Items with low <= value < high; null where the range is open. Dates are ISO 8601."""

    low: float | str | None
    high: float | str | None
    count: int


class FacetOut(BaseModel):
    """A column's values or ranges among what is counted."""

    missing: int = Field(description="items without a value")
    values: list[ValueOut] | None = Field(description="the most frequent ones; null of numbers with many values")
    ranges: list[RangeOut] | None = Field(description="of numbers and dates, else null; the borders are the index's")
    low: float | str | None = Field(description="lowest number or date")
    high: float | str | None


class TotalOut(BaseModel):
    """How many hits there are to page through."""

    value: int
    relation: Relation = Field(description="matches of a filter are counted; without one all items are ranked")


class RankedOut(BaseModel):
    """What was ranked by an expression."""

    by: str
    items: int = Field(description="how many: the best ones by score, or all that match where nothing was typed")
    undefined: int = Field(description="for how many of them it gives no number, such as 1 / 0; they come last, with 0")


class SortedOut(BaseModel):
    """What was sorted."""

    by: list[str]
    items: int = Field(description="how many: the best ones by score, or all that match where nothing was typed")
    all: bool = Field(description="whether these are all that match")


class CutoffOut(BaseModel):
    """Where hits were cut off."""

    score: float | None = Field(
        description="the lowest score that stays, of this query, before any `rank`; null where nothing here answers it"
    )
    precision: float = Field(
        description="of queries of which a hit stays, in an even mix of the log's and of made-up ones, the share that "
        "was the log's: measured when the index was built, on queries that the cut-off was not fitted to"
    )


class SearchResponse(BaseModel):
    """What was found."""

    query_id: str = Field(description="of this answer; events name it")
    variant: str | None = Field(None, description="the index that answered; left out where none are compared")
    interleaved: list[str] | None = Field(
        None, description="the indexes whose rankings are interleaved here; left out where none are"
    )
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
    note: str | None = Field(None, description="what an engine leaves out; left out itself where that is nothing")
    total: TotalOut
    redirect: str | None = Field(None, description="address that a rule sends the shopper to; left out where none does")
    rules: list[RuleOut] | None = Field(None, description="with `explain`, the rules that held, where there are any")
    cutoff: CutoffOut | None = Field(None, description="left out where it was not asked for")
    near: list[HitOut] | None = Field(
        None, description="where all hits were cut off, the best of them; left out otherwise, and on further pages"
    )
    ranked: RankedOut | None = Field(None, description="left out where no expression ranked")
    sorted: SortedOut | None = Field(None, description="left out where nothing was sorted")
    facets: dict[str, FacetOut] | None = Field(None, description="by column; left out where none were asked for")
    hits: list[HitOut]


class HitsResponse(BaseModel):
    """What looks alike."""

    query_id: str = Field(description="of this answer; events name it")
    total: TotalOut
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
