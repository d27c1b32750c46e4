"""Training batches: pairs of query and item, every distinct query, item and picture of a batch encoded once.

Popular queries and items repeat inside a batch. Encoding each once saves a fifth of the work or more, and makes
"same item" collisions impossible: an item is one column of the score matrix, however many pairs want it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from smar.model.tokens import Ints, TokenTable
from smar.training.made_queries import CatalogueQueries
from smar.training.negatives import NegativeSampler


@dataclass(frozen=True)
class Pairs:
    """Training pairs as arrays: row of the query, row of the item, weight; sorted in no particular order."""

    query: Ints
    item: Ints
    weight: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.query)


class KnownPositives:
    """Every query's items in training, as CSR: what must not serve as its negative."""

    def __init__(self, pairs: Pairs, queries: int) -> None:
        order = np.argsort(pairs.query, kind="stable")
        self.items = pairs.item[order]
        self.offsets = np.searchsorted(pairs.query[order], np.arange(queries + 1))

    def of(self, queries: Ints) -> tuple[Ints, Ints]:
        """All known positives of `queries` [m]: places in `queries` and items, both [entries], ordered by place."""
        start, count = self.offsets[queries], self.offsets[queries + 1] - self.offsets[queries]
        place = np.repeat(np.arange(len(queries)), count)
        return place, self.items[np.arange(len(place)) + np.repeat(start - count.cumsum() + count, count)]

    def blocked(self, queries: Ints, items: Ints, total_items: int) -> npt.NDArray[np.bool_]:
        """Bool [len(queries), len(items)]: is the item a known positive of the query? Both lists without repeats."""
        column = np.full(total_items, -1, np.int64)
        column[items] = np.arange(len(items))
        place, liked = self.of(queries)
        columns = column[liked]
        out = np.zeros((len(queries), len(items)), bool)
        out[place[columns >= 0], columns[columns >= 0]] = True
        return out


def first_picture(image_row: Ints) -> Ints:
    """Row of each item's first picture [items], -1 for none; `image_row` is [items] or [items, N]."""
    return image_row if image_row.ndim == 1 else image_row[:, 0]


@dataclass(frozen=True)
class Collator:
    """Turns indices of pairs into a batch of tensors.

    The batch: `pairs` [B], their indices; `query_ids`, `query_mask` [u, t]; `item_ids`, `item_mask` [n, t]; `pixels`
    uint8 [m, s, s, 3], or float16 patch states [m, p, h], of the items where `has_image` [n] holds; where items may
    have several pictures
    (`image_row` is [items, N]), how many each has: `pictures` int64 [n]; `query_of_pair`, `target` [B]: row and column
    of each pair; `blocked` bool [B, n]; `liked` bool [u, n]: known positives of the queries; `weight` [B];
    `query_rows` [u], `item_rows` [n]: rows in the training data and in the catalogue; `share` [u] where given. Queries
    made of the catalogue (`CatalogueQueries`) stand behind the typed ones, with a pair each, `query_rows` -1, the other
    pairs' mean weight and no need of pictures.
    """

    pairs: Pairs
    queries: TokenTable
    items: TokenTable
    images: npt.NDArray[np.uint8] | npt.NDArray[np.float16] | None
    image_row: Ints
    known: KnownPositives
    rows: Ints  # the pairs that are trained on; the others are held out, and still no one's negatives
    share: npt.NDArray[np.float32] | None = None  # p of each query, where the gate does not learn it in this stage
    negatives: NegativeSampler = field(default_factory=NegativeSampler)
    catalogue: CatalogueQueries | None = None

    def __call__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Batch of the pairs at `indices`."""
        rows = np.asarray(indices)
        queries, query_of_pair = np.unique(self.pairs.query[rows], return_inverse=True)
        drawn = self.negatives.draw(rows, len(self.items))
        made = None if self.catalogue is None else self.catalogue.draw(rows)
        wanted = self.pairs.item[rows] if made is None else np.concatenate([self.pairs.item[rows], made.items])
        items, place = np.unique(np.concatenate([wanted, drawn]), return_inverse=True)
        target = place[: len(rows)]
        liked = self.known.blocked(queries, items, len(self.items))
        blocked = liked[query_of_pair]
        blocked[np.arange(len(rows)), target] = False
        query_ids, query_mask = self.queries.rows(queries)
        item_ids, item_mask = self.items.rows(items)
        picture_rows = self.image_row[items]
        shown = (picture_rows >= 0) & (self.images is not None)
        has_image = shown if shown.ndim == 1 else shown.any(1)
        batch = {
            "pairs": torch.from_numpy(rows),
            "query_ids": query_ids,
            "query_mask": query_mask,
            "item_ids": item_ids,
            "item_mask": item_mask,
            "pixels": None,
            "has_image": torch.from_numpy(has_image),
            "query_of_pair": torch.from_numpy(query_of_pair),
            "target": torch.from_numpy(target),
            "blocked": torch.from_numpy(blocked),
            "liked": torch.from_numpy(liked),
            "weight": torch.from_numpy(self.pairs.weight[rows]),
            "query_rows": torch.from_numpy(queries),
            "item_rows": torch.from_numpy(items),
        }
        if self.share is not None:
            batch["share"] = torch.from_numpy(self.share[queries])
        if made is not None and len(made):
            assert self.catalogue is not None
            batch |= self.catalogue.behind(batch, made, items, place[len(rows) : len(wanted)])
        if self.images is not None and has_image.any():
            batch["pixels"] = torch.from_numpy(self.images[picture_rows[shown]])
        if shown.ndim > 1:
            batch["pictures"] = torch.from_numpy(shown.sum(1))
        return batch

    @property
    def first_picture(self) -> Ints:
        """See `first_picture`."""
        return first_picture(self.image_row)
