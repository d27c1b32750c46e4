"""Filters to ask with: some leave a share of the items wherever they lie, others only items far from the query."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa


@dataclass(frozen=True)
class Case:
    """A kind of filter: one for each query, and for the first queries what it leaves, bool [items]."""

    name: str
    queries: list[str]
    filters: list[str]
    masks: list[np.ndarray]

    def bodies(self, k: int) -> list[dict[str, object]]:
        """Requests."""
        return [{"query": q, "k": k, "filter": f} for q, f in zip(self.queries, self.filters, strict=True)]


def filter_cases(
    table: pa.Table, near: np.ndarray, categories: list[str], load: list[str], held_out: list[str], checked: int
) -> Iterator[Case]:
    """Every kind; the first `checked` queries of each are held-out ones, and have masks.

    Args:
        table: the items' columns.
        near: inner product of each query, held-out ones first, with the mean item of each category.
        categories: their names.
        load, held_out: queries.
        checked: how many answers shall be compared with an exact search.
    """
    price, queries = table["price"].to_numpy(), held_out[:checked] + load
    for share in (0.001, 0.01, 0.1, 0.5):
        filters = [f"price<{1000 * share:g}"] * len(queries)
        yield Case(f"{100 * share:g} % of the items", queries, filters, [price < 1000 * share] * checked)
    limits = np.round(np.random.default_rng(3).uniform(90, 110, len(queries)), 6)
    filters, masks = [f"price<{limit}" for limit in limits], [price < limit for limit in limits[:checked]]
    yield Case("10 %, another filter each time", queries, filters, masks)
    column = table["category"].combine_chunks().dictionary_encode()
    names, code = np.array(column.dictionary.to_pylist()), column.indices.to_numpy()
    asked = np.r_[:checked, len(held_out) : len(held_out) + len(load)]
    order = np.array(categories)[np.argsort(near[asked], axis=1)]
    for name, far in (("the farthest category", order[:, :1]), ("the far half", order[:, : len(categories) // 2])):
        filters = [f"category in ({', '.join(row)})" for row in far]
        yield Case(name, queries, filters, [np.isin(names, row)[code] for row in far[:checked]])
