"""Cross-batch memory: item vectors of earlier batches as further negatives (Wang et al. 2020, XBM).

Vectors drift slowly once the first steps are over, so a vector of some batches ago is nearly what the item would be
encoded to now, and costs nothing. They carry no gradient. An item is one candidate however often it was seen: its
newest vector replaces the older one, and an item of the current batch is not taken from memory.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from smar.model.modeling import ItemOutput

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
