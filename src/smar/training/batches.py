"""Training batches: pairs of query and item, every distinct query, item and picture of a batch encoded once.

Popular queries and items repeat inside a batch. Encoding each once saves a fifth of the work or more, and makes
"same item" collisions impossible: an item is one column of the score matrix, however many pairs want it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from smar.model.tokens import Ints, TokenTable


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

    def blocked(self, queries: Ints, items: Ints, total_items: int) -> npt.NDArray[np.bool_]:
        """Bool [len(queries), len(items)]: is the item a known positive of the query? Both lists without repeats."""
        column = np.full(total_items, -1, np.int64)
        column[items] = np.arange(len(items))
        out = np.zeros((len(queries), len(items)), bool)
        for row, query in enumerate(queries):
            columns = column[self.items[self.offsets[query] : self.offsets[query + 1]]]
            out[row, columns[columns >= 0]] = True
        return out


@dataclass(frozen=True)
class Collator:
    """Turns indices of pairs into a batch of tensors.

    The batch: `query_ids`, `query_mask` [u, t]; `item_ids`, `item_mask` [n, t]; `pixels` uint8 [m, s, s, 3] of the
    items where `has_image` [n] holds; `query_of_pair`, `target` [B]: row and column of each pair; `blocked` bool
    [B, n]; `weight` [B]; `item_rows` [n]: the items' rows in the dataset, for messages; `share` [u] where given.
    """

    pairs: Pairs
    queries: TokenTable
    items: TokenTable
    images: npt.NDArray[np.uint8] | None
    image_row: Ints
    known: KnownPositives
    rows: Ints  # the pairs that are trained on; the others are held out, and still no one's negatives
    share: npt.NDArray[np.float32] | None = None  # p of each query, where the gate does not learn it in this stage

    def __call__(self, indices: Sequence[int]) -> dict[str, Any]:
        """Batch of the pairs at `indices`."""
        rows = np.asarray(indices)
        queries, query_of_pair = np.unique(self.pairs.query[rows], return_inverse=True)
        items, target = np.unique(self.pairs.item[rows], return_inverse=True)
        blocked = self.known.blocked(queries, items, len(self.items))[query_of_pair]
        blocked[np.arange(len(rows)), target] = False
        query_ids, query_mask = self.queries.rows(queries)
        item_ids, item_mask = self.items.rows(items)
        has_image = (self.image_row[items] >= 0) & (self.images is not None)
        batch = {
            "query_ids": query_ids,
            "query_mask": query_mask,
            "item_ids": item_ids,
            "item_mask": item_mask,
            "pixels": None,
            "has_image": torch.from_numpy(has_image),
            "query_of_pair": torch.from_numpy(query_of_pair),
            "target": torch.from_numpy(target),
            "blocked": torch.from_numpy(blocked),
            "weight": torch.from_numpy(self.pairs.weight[rows]),
            "item_rows": torch.from_numpy(items),
        }
        if self.share is not None:
            batch["share"] = torch.from_numpy(self.share[queries])
        if self.images is not None and has_image.any():
            batch["pixels"] = torch.from_numpy(self.images[self.image_row[items[has_image]]])
        return batch
