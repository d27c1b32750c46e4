"""Counts by category and brand, and the price range: what the page's filters offer."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.index.catalogue import Catalogue
from smar.index.filters import Kind, kind_of
from smar.serving.schemas import Facets, FacetValue, PriceRange
from smar.serving.wire import picture_url


def facets(catalogue: Catalogue, top: int) -> Facets:
    """The `top` most frequent categories and brands, and the range of prices."""
    return Facets(
        items=len(catalogue),
        pictures=int(catalogue.has_pictures.sum()),
        category=_values(catalogue, "category", top, with_picture=True),
        brand=_values(catalogue, "brand", top, with_picture=False),
        price=_range(catalogue, "price"),
    )


def _values(catalogue: Catalogue, name: str, top: int, with_picture: bool) -> list[FacetValue]:
    column = _column(catalogue, name, Kind.TEXT)
    if column is None:
        return []
    # the lowest of these numbers is the first item with a picture, or else `len(catalogue)` and more
    rows = np.where(catalogue.has_pictures, 0, len(catalogue)) + np.arange(len(catalogue))
    table = pa.table({"value": column.cast(pa.string()), "row": rows}).filter(pc.field("value").is_valid())
    counts = table.group_by("value").aggregate([("row", "count"), ("row", "min")])
    counts = counts.sort_by([("row_count", "descending"), ("value", "ascending")]).slice(0, top)
    return [
        FacetValue(
            value=entry["value"],
            count=entry["row_count"],
            picture=picture_url(catalogue.item_id(entry["row_min"]))
            if with_picture and entry["row_min"] < len(catalogue)
            else None,
        )
        for entry in counts.to_pylist()
    ]


def _range(catalogue: Catalogue, name: str) -> PriceRange | None:
    column = _column(catalogue, name, Kind.NUMBER)
    if column is None:
        return None
    finite = column.cast(pa.float64()).filter(pc.is_finite(column.cast(pa.float64())))
    if not len(finite):
        return None
    ends = pc.min_max(finite).as_py()
    return PriceRange(low=ends["min"], high=ends["max"])


def _column(catalogue: Catalogue, name: str, kind: Kind) -> pa.ChunkedArray | None:
    if name not in catalogue.table.column_names:
        return None
    column = catalogue.table[name]
    return column if kind_of(column.type) is kind else None
