"""Pictures against their own texts over the whole catalogue: items that nobody clicked take part."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smar.data.dataset import Dataset
from smar.data.text import normalise
from smar.model.modeling import ItemOutput, SmarModel
from smar.model.tokens import Ints
from smar.training.batches import Collator, first_picture
from smar.training.losses.picture_losses import alignment_loss


@dataclass(frozen=True)
class ItemKeys:
    """Equal numbers for equal titles and equal pictures, int64 [items] each; an item without picture has its own."""

    title: Ints
    picture: Ints

    @classmethod
    def of(cls, dataset: Dataset) -> "ItemKeys":
        """Number the titles, and the packed pictures by a hash of their bytes."""
        titles = [normalise(title) for title in dataset.fields(["title"])[0]]
        hashes = [hashlib.blake2b(picture.tobytes(), digest_size=8).digest() for picture in dataset.images]
        rows = first_picture(dataset.image_row)
        picture = np.arange(len(rows), dtype=np.int64) + len(hashes)
        picture[rows >= 0] = _numbers(hashes)[rows[rows >= 0]]
        return cls(_numbers(titles), picture)

    def alike(self, items: Ints) -> Tensor:
        """Bool [n, n]: do two of the items [n] share title or picture?"""
        title, picture = self.title[items], self.picture[items]
        return torch.from_numpy((title[:, None] == title) | (picture[:, None] == picture))


def _numbers(values: Sequence[object]) -> Ints:
    known: dict[object, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], np.int64)


@dataclass(frozen=True)
class AlignmentItems:
    """Random other items of the catalogue that have a picture, drawn for a batch of pairs.

    The draw is seeded by the batch's own pairs, so going on from a checkpoint changes nothing.
    """

    pairs: Collator
    keys: ItemKeys
    count: int
    seed: int

    def fields(self, indices: Sequence[int], items: Ints) -> dict[str, Tensor]:
        """What the batch of the pairs at `indices` must hold about them.

        `extra_ids`, `extra_mask` [e, t] and `extra_pixels`; `alike` bool [n + e, n + e] over the batch's `items` [n],
        then the extra ones.
        """
        extra = self._draw(indices, items)
        out = {"alike": self.keys.alike(np.concatenate([items, extra]))}
        if len(extra) and self.pairs.images is not None:
            out["extra_ids"], out["extra_mask"] = self.pairs.items.rows(extra)
            out["extra_pixels"] = torch.from_numpy(self.pairs.images[self.pairs.first_picture[extra]])
        return out

    def _draw(self, indices: Sequence[int], items: Ints) -> Ints:
        shown = np.flatnonzero(self.pairs.first_picture >= 0)
        rng = np.random.default_rng([self.seed, *indices])
        drawn = rng.choice(shown, min(self.count, len(shown)), replace=False, shuffle=False)
        return np.setdiff1d(drawn, items)


def align(model: SmarModel, item: ItemOutput, batch: dict[str, Any], temperature: float | Tensor) -> Tensor:
    """Alignment loss of the batch's items that show a picture and of the extra ones; a scalar."""
    image, text, shown = item.image[item.has_image], item.text[item.has_image], item.has_image
    if "extra_ids" in batch:
        towers = model.image_tower, model.text_tower
        states = towers[0](batch["extra_pixels"]), towers[1](batch["extra_ids"], batch["extra_mask"])
        extra = [tower.embed(pooled) for tower, (_, pooled) in zip(towers, states, strict=True)]
        image, text = torch.cat([image, extra[0]]), torch.cat([text, extra[1]])
        shown = torch.cat([shown, shown.new_ones(len(extra[0]))])
    return alignment_loss(image, text, batch["alike"][shown][:, shown], temperature)
