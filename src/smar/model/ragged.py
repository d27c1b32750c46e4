"""Ragged pictures: the states of a batch's pictures, laid out item by item."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from smar.model.fusion.base import Modality
from smar.model.tokens import Ints


def rows_of(count: Ints) -> Ints:
    """Rows of pictures that lie one after the other, by each item's number of them: int64 [n] or [n, most], -1: none.

    >>> rows_of(np.array([2, 0, 1])).tolist()
    [[0, 1], [-1, -1], [2, -1]]
    """
    first, number = np.cumsum(count) - count, np.arange(max(1, count.max(initial=0)))
    rows = np.where(number < count[:, None], first[:, None] + number, -1)
    return rows[:, 0] if rows.shape[1] == 1 else rows


def place(states: Tensor, pooled: Tensor, pictures: Tensor) -> Modality:
    """Lay out the states of m pictures under their n items; the tokens of an item's pictures follow each other.

    Args:
        states: patch states [m, p, h], the pictures of an item one after the other, in the order of items.
        pooled: pooled states [m, h].
        pictures: how many pictures each item has, int64 or bool [n], with sum m.

    Returns:
        States and mask [n, p * most pictures of an item]; pooled: the mean over an item's pictures, [n, h]. Zeros and
        False where an item has fewer.
    """
    count, (m, patches, hidden) = pictures.long(), states.shape
    n, most = len(count), int(count.max())
    if most == 1 and m == n:
        return Modality(states, torch.ones_like(states[..., 0], dtype=torch.bool), pooled)
    item = torch.repeat_interleave(torch.arange(n, device=count.device), count)
    number = torch.arange(m, device=count.device) - (count.cumsum(0) - count)[item]
    tokens = states.new_zeros(n * most, patches, hidden).index_copy(0, item * most + number, states)
    mask = torch.arange(most, device=count.device) < count[:, None]
    total = pooled.new_zeros(n, hidden, dtype=torch.float32).index_add(0, item, pooled.float())
    mean = total / count.clamp_min(1)[:, None]
    return Modality(tokens.view(n, most * patches, hidden), mask.repeat_interleave(patches, 1), mean.to(pooled.dtype))


def pictures_of(batch: dict[str, Any], items: Tensor) -> Tensor | None:
    """Pixels [m, ...] of some items of a training batch, those of an item one after the other; None if they show none.

    Args:
        batch: see `smar.training.batches.Collator`.
        items: rows of the wanted items [n].
    """
    if batch["pixels"] is None:
        return None
    counts = batch.get("pictures", batch["has_image"]).long()
    wanted = counts[items]
    position = torch.arange(int(wanted.sum()), device=counts.device)
    rows = position + ((counts.cumsum(0) - counts)[items] - wanted.cumsum(0) + wanted).repeat_interleave(wanted)
    return batch["pixels"][rows] if len(rows) else None
