"""Answers to searches; they are also their OpenAPI documentation."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from smar.search.local import Relation
from smar.search.protocol import Mode


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
