"""What a shop offers on its page: columns to filter by and to sort by, and one card for several items."""

import logging
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from smar.core.errors import InputError
from smar.search.column_values import Kind, kind_of
from smar.search.local import Collapse, EmbeddedIndex, Facets, Plan, Shape
from smar.serving.options import USUAL, ServiceOptions
from smar.serving.schemas import CollapseOut, ColumnKind

_KINDS: dict[Kind, ColumnKind] = {
    Kind.TEXT: "text",
    Kind.NUMBER: "number",
    Kind.FLAG: "boolean",
    Kind.MOMENT: "date",
    Kind.LIST: "list",
    Kind.EMPTY: "empty",
}
logger = logging.getLogger("smar.serving")


def offered(
    options: ServiceOptions, index: EmbeddedIndex, refuse: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """The fields of `schemas.About` that tell what the page offers.

        offered(ServiceOptions(facets=("brand",), sort=("-price",)), index)["sorts"]  # ["-price"]

    Raises:
        InputError: the index has no such column, or it cannot be used so; with `refuse`, which is told instead, it is
            left out.
    """
    schema = index.schema

    def usable(name: str, shape: Shape) -> bool:
        try:
            Plan.of(shape, schema)
            if shape.facets:
                index.counts(name, None, 1, None)  # it may have too many different texts
        except InputError as error:
            if refuse is None:
                raise InputError(f"the page cannot offer {name}: {error}") from None
            refuse(f"the page does not offer {name}: {error}")
            return False
        return True

    wanted = options.facets if options.facets != USUAL else [name for name in USUAL if name in schema.names]
    facets = [name for name in wanted if usable(name, Shape(facets=Facets((name,))))]
    Plan.of(Shape(facets=Facets(tuple(facets))), schema)  # not too many
    sorts = [name for name in options.sort if usable(name, Shape(sort=(name,)))]
    column, _, noun = options.collapse.partition(":")
    cards = column and usable(column, Shape(collapse=Collapse(column)))
    named = dict.fromkeys([*facets, *(name.removeprefix("-") for name in sorts)])
    fitted = index.manifest.cutoff
    return {
        "cutoffs": [] if fitted is None else list(fitted.modes),
        "facets": facets,
        "sorts": sorts,
        "collapse": CollapseOut(column=column, noun=noun or "versions") if cards else None,
        "kinds": {name: _KINDS[kind_of(schema.field(name).type)] for name in named},
    }


class Offer:
    """What is offered of an index that changes; a column that a new version lacks is told in the log, once."""

    def __init__(self, options: ServiceOptions) -> None:
        self._options = options
        self._schema: pa.Schema | None = None
        self._told: dict[str, Any] = {}

    def of(self, index: EmbeddedIndex) -> dict[str, Any]:
        """The fields as `offered` gives them."""
        if self._schema is None or not index.schema.equals(self._schema):
            self._told = offered(self._options, index, logger.warning)
            self._schema = index.schema
        return self._told
