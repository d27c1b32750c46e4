"""Cross-batch memory: item vectors of earlier batches as further negatives (Wang et al. 2020, XBM).

Vectors drift slowly once the first steps are over, so a vector of some batches ago is nearly what the item would be
encoded to now, and costs nothing. They carry no gradient. An item is one candidate however often it was seen: its
newest vector replaces the older one, and an item of the current batch is not taken from memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from smar.model.modeling import ItemOutput
from smar.model.tokens import Ints

MEMORY_FILE = "memory.safetensors"
_VECTORS = ("text", "image", "multimodal", "has_image")


@dataclass(frozen=True)
class Memory:
    """The last items seen, oldest first: `rows` [m] of the catalogue, vectors [m, k], `has_image` bool [m]."""

    rows: Tensor
    text: Tensor
    image: Tensor
    multimodal: Tensor
    has_image: Tensor

    @classmethod
    def of(cls, rows: Tensor, item: ItemOutput) -> "Memory":
        """What a batch leaves: its items' rows [n] and vectors, without gradient."""
        return cls(rows, *(getattr(item, name).detach() for name in _VECTORS))

    def __len__(self) -> int:
        return len(self.rows)

    def without(self, rows: Tensor) -> "Memory":
        """Leave out the items whose row is among `rows`."""
        keep = ~torch.isin(self.rows, rows)
        return Memory(*(getattr(self, field.name)[keep] for field in fields(self)))

    def then(self, newer: "Memory", size: int) -> "Memory":
        """This followed by `newer`, which holds other items; the last `size` of them."""
        pairs = ((getattr(self, field.name), getattr(newer, field.name)) for field in fields(self))
        return Memory(*(torch.cat(pair)[-size:] for pair in pairs))

    def behind(self, item: ItemOutput) -> ItemOutput:
        """`item` with the remembered items as further candidates behind its own [n + m]."""
        return ItemOutput(*(torch.cat([getattr(item, name), getattr(self, name)]) for name in _VECTORS))

    def save(self, path: Path) -> None:
        """Write as safetensors."""
        save_file({field.name: getattr(self, field.name).contiguous() for field in fields(self)}, path)

    @classmethod
    def load(cls, path: Path, device: torch.device) -> "Memory":
        """Read what `save` wrote."""
        return cls(**load_file(path, device=str(device)))


def recall(
    memory: Memory | None,
    item: ItemOutput,
    batch: dict[str, Any],
    facts: Callable[[Ints, Ints], tuple[Tensor, Tensor | None]],
    size: int,
) -> tuple[Memory, ItemOutput, dict[str, Any]]:
    """Put the remembered items behind the batch's own, as candidates of every pair.

    Args:
        memory: what earlier batches left; None at the start.
        item: vectors of the batch's items [n].
        batch: see `smar.training.batches.Collator`.
        facts: known positives [u, m] and log sampling probabilities [m] of query and item rows (`Collator.facts`).
        size: items remembered.

    Returns:
        The memory with this batch's items; `item` with [n + m] candidates; the batch with `blocked` [B, n + m], where a
        pair's own item is blocked among the remembered ones, too, and `log_q` [n + m].
    """
    rows, newest = batch["item_rows"], Memory.of(batch["item_rows"], item)
    old = (newest if memory is None else memory).without(rows)
    liked, log_q = facts(batch["query_rows"].cpu().numpy(), old.rows.cpu().numpy())
    blocked = liked.to(rows.device)[batch["query_of_pair"]]
    batch = {**batch, "blocked": torch.cat([batch["blocked"], blocked], 1)}
    if log_q is not None:
        batch["log_q"] = torch.cat([batch["log_q"], log_q.to(rows.device)])
    return old.then(newest, size), old.behind(item), batch
