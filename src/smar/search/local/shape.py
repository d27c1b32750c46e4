"""How a search's hits are arranged, as it was asked for and as it is told."""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Any

import pyarrow as pa

from smar.core.errors import InputError
from smar.search.counts import ColumnCounts
from smar.search.local.cards import Collapse, Diversify, Others, check_cards
from smar.search.local.counted import Facets, check_facets
from smar.search.local.cutoff import Cut
from smar.search.local.expression_parser import parse_expression
from smar.search.local.expressions import Expression
from smar.search.local.influence import FIRST, NO_INFLUENCE, Influence
from smar.search.local.sorting import SortKey, parse_sort
from smar.search.protocol import MAX_HITS
from smar.search.ranked import Ranked

CANDIDATES = 200
"""Best items that are arranged, unless more are asked for."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How what is found is arranged, as it was asked for.

    `sort` are columns (``-price`` for downwards), `rank` is an expression (see `expressions`), `candidates`
    (1..1000) how many of the best are arranged; with `cutoff` those of them that are not below the query's cut-off.

    >>> Shape(sort=("-price",), facets=Facets(("brand",))).candidates
    200
    """

    sort: tuple[str, ...] = ()
    rank: str | None = None
    collapse: Collapse | None = None
    diversify: Diversify | None = None
    facets: Facets | None = None
    candidates: int = CANDIDATES
    cutoff: bool = False


PLAIN = Shape()


class Relation(StrEnum):
    """What a total says.

    >>> Relation("at_least") is Total.bounded(10**6).relation
    True
    """

    EXACT = "exact"
    AT_LEAST = "at_least"


@dataclass(frozen=True, slots=True)
class Total:
    """How many there are to page through; without a filter a search ranks everything, and `MAX_HITS` are enough.

    >>> Total.bounded(5_000)
    Total(value=1000, relation=<Relation.AT_LEAST: 'at_least'>)
    """

    value: int
    relation: Relation = Relation.EXACT

    @classmethod
    def bounded(cls, value: int) -> "Total":
        """Exact up to `MAX_HITS`."""
        return cls(value) if value <= MAX_HITS else cls(MAX_HITS, Relation.AT_LEAST)


@dataclass(frozen=True, slots=True)
class Sorted:
    """What was sorted: by which columns, and how many items; `all` where these are all that match."""

    by: tuple[str, ...]
    items: int
    all: bool


@dataclass(frozen=True, slots=True)
class RankedBy:
    """Which expression ranked how many of the best items; of `undefined` ones it made no number, and they came last."""

    by: str
    items: int
    undefined: int


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Hits number `first` + 1 and on; `hits` are in the order that they are shown in.

    Where they are cards of several items, `total` counts cards, and `others` tells of each what it stands for.
    `factors` are the values that each hit's rank was made of, `moved` what has moved each hit, and `rules` those that
    held, where they were asked for. `redirect` is the address that a rule sends the shopper to. `cut` says where hits
    were cut off; where none stayed, `near` are the best ones below.

    >>> from smar.serving.engine import Engine
    >>> page = Engine.open("index").search("red dress", k=3, offset=3).page
    >>> len(page.hits), page.first, page.total.relation
    (3, 3, <Relation.EXACT: 'exact'>)
    """

    hits: Ranked
    first: int
    total: Total
    ranked: RankedBy | None = None
    sorted: Sorted | None = None
    others: list[Others] | None = None
    facets: dict[str, ColumnCounts] | None = None
    factors: list[dict[str, float]] | None = None
    redirect: str | None = None
    rules: list[dict[str, Any]] | None = None
    moved: list[list[dict[str, Any]]] | None = None
    cut: Cut | None = None
    near: Ranked | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A `Shape` read against the columns of an index, and the rules that hold.

    >>> Plan.of(Shape(sort=("price",)), pa.schema({"price": pa.float64()})).fixed
    True
    """

    shape: Shape
    rank: Expression | None = None
    sort: tuple[SortKey, ...] = ()
    influence: Influence = NO_INFLUENCE

    @classmethod
    def of(cls, shape: Shape, schema: pa.Schema, influence: Influence = NO_INFLUENCE) -> "Plan":
        """Raises InputError where a column is unknown or does not fit."""
        plan = NOTHING if shape == PLAIN else _plan(shape, schema)
        return plan if influence is NO_INFLUENCE else replace(plan, influence=influence)

    @property
    def fixed(self) -> bool:
        """Whether the same candidates are arranged on every page: else a page further on would know other ones."""
        return bool(self.sort or self.rank)

    def depth(self, wanted: int) -> int:
        """Hits that are searched for a page that ends with number `wanted`."""
        if self.fixed or self.shape.cutoff:
            return self.shape.candidates
        if self.shape == PLAIN and not self.influence.moves:
            return max(wanted, FIRST) if self.influence.conditional else wanted
        return max(self.shape.candidates, wanted)


NOTHING = Plan(PLAIN)


@lru_cache(maxsize=256)
def _plan(shape: Shape, schema: pa.Schema) -> Plan:
    if not 1 <= shape.candidates <= MAX_HITS:
        raise InputError(f"candidates is {shape.candidates}; allowed: 1 to {MAX_HITS}.")
    check_cards(shape.collapse, shape.diversify, schema)
    check_facets(shape.facets, schema)
    rank = None if shape.rank is None else parse_expression(shape.rank, schema)
    return Plan(shape, rank, parse_sort(shape.sort, schema))
