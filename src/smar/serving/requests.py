"""Searches as they are asked for over HTTP; they are also its OpenAPI documentation."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from smar.search.filter_parser import EXAMPLE
from smar.search.local import (
    CANDIDATES,
    MOST_COLUMNS,
    MOST_VALUES,
    PLAIN,
    RANK_EXAMPLE,
    Collapse,
    Diversify,
    Facets,
    Of,
    Shape,
)
from smar.search.local import MAX_RANK_LENGTH as MAX_LENGTH
from smar.search.protocol import MAX_HITS, Mode

MAX_K = 200
MAX_QUERY = 1000


def _whole(value: object) -> object:
    """JSON has one kind of number: 24.0 is an integer there. Text and true are none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_several)]


class CollapseIn(BaseModel):
    """One card for several items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str = Field(description="what the items have in common, such as `product_id`")
    ids: bool = Field(False, strict=True, description="also tell the ids of the other items")


class DiversifyIn(BaseModel):
    """How many hits with the same value of a column may be among the first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    most: Whole = Field(ge=1, le=MAX_HITS, strict=True, description="hits with one value")
    among: Whole = Field(24, ge=1, le=MAX_HITS, strict=True, description="of the first hits")


class FacetsIn(BaseModel):
    """What is counted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: Names = Field(max_length=MOST_COLUMNS)
    of: Of = Field("hits", description="count among the best `candidates` hits, or among all that matches the filter")
    top: Whole = Field(30, ge=1, le=MOST_VALUES, strict=True, description="values of a column")
    within: bool = Field(
        False, strict=True, description="count within what was chosen of a facet, too; else as if nothing had been"
    )
    contains: str = Field(
        "", max_length=200, description="list only values that hold these letters, whatever their case and accents"
    )


class SearchRequest(BaseModel):
    """What to search for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    query: str = Field(
        "",
        description="what the shopper typed; where it is empty, all that the filter leaves is browsed, sorted",
        examples=["red summer dress"],
        json_schema_extra={"maxLength": MAX_QUERY},  # checked by the engine, which says it better
    )
    k: Whole = Field(24, ge=1, le=MAX_K, strict=True, description="most hits to return")
    offset: Whole = Field(
        0, ge=0, lt=MAX_HITS, strict=True, description=f"hits to leave out; with k at most {MAX_HITS}", examples=[0]
    )
    mode: Mode = Field(
        Mode.ADAPTIVE,
        description="words only, adaptive (blend), route (one or the other), always pictures, or hybrid (with BM25)",
    )
    filter: str | None = Field(None, description=f"which items may be found, such as `{EXAMPLE}`", examples=[None])
    explain: bool = Field(False, strict=True, description="also tell each hit's rank without pictures")
    rank: str | None = Field(
        None,
        max_length=MAX_LENGTH,
        description="an expression that ranks the best hits anew, over score, text_score, multimodal_score, "
        f"words_score and columns, such as `{RANK_EXAMPLE}`",
        examples=[None],
    )
    sort: Names = Field(
        (),
        description="columns to sort the best hits by, such as `price` or `-created_at` (downwards), one or a list; "
        "equal ones stay in order of relevance, a missing value comes last",
        examples=[[]],
    )
    candidates: Whole = Field(
        CANDIDATES,
        ge=1,
        le=MAX_HITS,
        strict=True,
        description="how many of the best hits are sorted, ranked anew by `rank` or rules, or made cards of (more of "
        f"these where a page needs them); with `cutoff` {MAX_HITS} where nothing is said",
    )
    cutoff: bool = Field(
        False,
        strict=True,
        description="leave out hits below the score from which on they are relevant to this query; `total` then counts "
        "the others, and where there are none, `near` has the best ones below",
    )
    collapse: str | CollapseIn | None = Field(
        None, description="one card for all items with the same value of this column, the best one's", examples=[None]
    )
    diversify: DiversifyIn | None = Field(
        None, description="not too many hits with the same value of a column among the first", examples=[None]
    )
    facets: Names | FacetsIn | None = Field(
        None, description="columns whose values are counted, a list or with how to count", examples=[None]
    )
    fields: Names | None = Field(
        None, max_length=100, description="columns of the items to show; all when not given", examples=[None]
    )
    highlight: Names = Field(
        (),
        max_length=20,
        description="columns of texts to show as HTML in which the words that match the query are in <em>",
        examples=[[]],
    )

    session: str | None = Field(
        None,
        max_length=200,
        description="whose search it is, any text: where indexes are compared, each session is answered by one of "
        "them. The header `X-Session-ID` says the same. It is kept only with `--events-sessions`, as a hash",
        examples=[None],
    )

    @property
    def shape(self) -> Shape:
        """How the hits are arranged."""
        facets = FacetsIn(columns=self.facets) if isinstance(self.facets, tuple) else self.facets
        arranged = self.rank or self.sort or self.collapse or self.diversify or facets or self.cutoff
        if not arranged and self.candidates == CANDIDATES:
            return PLAIN
        cards, wish = self.collapse, self.diversify
        if isinstance(cards, str):
            cards = CollapseIn(column=cards)
        return Shape(
            rank=self.rank or None,
            sort=self.sort,
            collapse=None if cards is None else Collapse(cards.column, cards.ids),
            diversify=None if wish is None else Diversify(wish.column, wish.most, wish.among),
            facets=None if facets is None else Facets(**dict(facets)),
            candidates=self.candidates if "candidates" in self.model_fields_set or not self.cutoff else MAX_HITS,
            cutoff=self.cutoff,
        )


class BatchRequest(BaseModel):
    """Several searches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    searches: list[Any] = Field(min_length=1, max_length=32)  # each one is read, and refused, by itself


BATCH_SCHEMA = {
    "title": "BatchRequest",
    "type": "object",
    "required": ["searches"],
    "properties": {
        "searches": {
            "type": "array",
            "minItems": 1,
            "maxItems": 32,
            "items": {"$ref": "#/components/schemas/SearchRequest"},
        }
    },
}
"""How the API describes a `BatchRequest`, which has searches."""
