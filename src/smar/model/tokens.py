"""Token ids of many texts in two arrays, padded only when a batch asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many texts, ragged: text i is `ids[offsets[i]:offsets[i + 1]]`."""

    ids: npt.NDArray[np.int32]
    offsets: Ints
    pad: int

    @classmethod
    def from_lists(cls, lists: Sequence[Sequence[int]], pad: int) -> "TokenTable":
        """Pack lists of token ids."""
        offsets = np.cumsum([0, *map(len, lists)])
        return cls(np.concatenate([np.asarray(x, np.int32) for x in lists]), offsets, pad)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, rows: Ints) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask of the given texts, int64 [n, longest], padded on the right."""
        start, length = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        position = np.arange(length.max(initial=1))
        mask = position < length[:, None]
        ids = np.full(mask.shape, self.pad, np.int64)
        ids[mask] = self.ids[(start[:, None] + position)[mask]]
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))
