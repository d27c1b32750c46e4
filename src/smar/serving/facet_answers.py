"""Facet counts of the index as the API gives them."""

from smar.search.local import EmbeddedIndex, FacetCounts, picture_url
from smar.serving.answers import address_of
from smar.serving.schemas import FacetsOut, FacetValue, PriceCount, PriceRange


def facets_response(index: EmbeddedIndex, counts: FacetCounts) -> FacetsOut:
    """Counts with addresses of pictures for the categories."""
    low, high = counts.price_low, counts.price_high
    return FacetsOut(
        items=counts.items,
        pictures=counts.pictures,
        category=_values(index, counts, "category", with_picture=True),
        brand=_values(index, counts, "brand", with_picture=False),
        price=None if low is None or high is None else PriceRange(low=low, high=high),
        prices=[PriceCount(low=part.low, high=part.high, count=part.count) for part in counts.prices],
    )


def _values(index: EmbeddedIndex, counts: FacetCounts, name: str, with_picture: bool) -> list[FacetValue]:
    return [
        FacetValue(
            value=value,
            count=count,
            picture=address_of(picture_url(index.catalogue.item_id(row))) if with_picture and row is not None else None,
        )
        for value, (count, row) in counts.values[name].items()
    ]
