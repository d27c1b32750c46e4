"""Negatives from outside the batch's pairs: uniformly random items, and mined hard ones on an easy-to-hard schedule.

What a batch draws depends on the seed and on its pairs only, never on the state of a generator, so a run that goes on
from a checkpoint draws what an undisturbed one would have drawn. The collator does not know the step (batches are
fetched ahead), so it brings for every hard negative a uniform stand-in and a level in [0, 1); the step keeps one of
the two (`keep_scheduled`) before anything is encoded.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smar.core.errors import InputError
from smar.core.sections.losses import NegativeSettings
from smar.model.pictures import pictures_of
from smar.model.tokens import Ints
from smar.training.losses.sampling import log_inclusion

_NONE = np.empty(0, np.int64)
PER_ITEM = ("item_ids", "item_mask", "has_image", "pictures", "item_rows", "log_q")
"""Fields of a batch with one row per item."""


@dataclass(frozen=True)
class Drawn:
    """Item rows drawn for one batch: `uniform` [N]; `hard`, their stand-ins `easy` and `level`, each [s]."""

    uniform: Ints
    hard: Ints = field(default_factory=lambda: _NONE)
    easy: Ints = field(default_factory=lambda: _NONE)
    level: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    @property
    def items(self) -> Ints:
        """All of them, [N + 2 s], repeats included."""
        return np.concatenate([self.uniform, self.hard, self.easy])


@dataclass(frozen=True)
class NegativeSampler:
    """Draws a batch's further negatives.

    Attributes:
        uniform: random items of the catalogue in a batch.
        hard: mined items for every distinct query of a batch.
        mined: item rows [queries, ranks] to take them from, -1 where a query has fewer; None in stage 1.
        log_q: log sampling probability of every item of the catalogue, or None without the correction.
        seed: of the draws.
    """

    uniform: int = 0
    hard: int = 0
    mined: npt.NDArray[np.int32] | None = None
    log_q: npt.NDArray[np.float32] | None = None
    seed: int = 0

    @classmethod
    def of(cls, settings: NegativeSettings, seed: int, pairs_of_item: Ints, batch_size: int) -> "NegativeSampler":
        """Sampler of a stage whose batches hold `batch_size` pairs; mined items are added by `with_mined`.

        Args:
            settings: which negatives.
            seed: of the draws.
            pairs_of_item: number of training pairs of each item of the catalogue.
            batch_size: pairs in a batch.

        Raises:
            InputError: more random items are asked for than the catalogue has.
        """
        if settings.uniform > len(pairs_of_item):
            raise InputError(
                f"train.negatives.uniform is {settings.uniform}, the catalogue has {len(pairs_of_item)} items: "
                "lower it to at most that."
            )
        log_q = log_inclusion(pairs_of_item, batch_size, settings.uniform) if settings.logq else None
        return cls(settings.uniform, log_q=log_q, seed=seed)

    def with_mined(self, mined: npt.NDArray[np.int32], hard: int) -> "NegativeSampler":
        """The same with `hard` mined negatives a query."""
        return replace(self, mined=mined, hard=hard)

    def draw(self, pairs: Ints, queries: Ints, items: int) -> Drawn:
        """Draw for the batch of the given pairs.

        Args:
            pairs: indices of the batch's pairs [B].
            queries: rows of its distinct queries [u].
            items: size of the catalogue.
        """
        if not self.uniform and self.mined is None:
            return Drawn(_NONE)
        rng = np.random.default_rng([self.seed, *pairs.tolist()])
        uniform = rng.choice(items, self.uniform, replace=False)
        if self.mined is None:
            return Drawn(uniform)
        lists = np.asarray(self.mined[queries], np.int64)
        order = np.where(lists >= 0, rng.random(lists.shape), 2.0).argsort(1)[:, : self.hard]
        hard = np.take_along_axis(lists, order, 1).ravel()
        easy = rng.integers(items, size=len(hard))
        return Drawn(uniform, np.where(hard >= 0, hard, easy), easy, rng.random(len(hard)))

    def fields(self, drawn: Drawn, items: Ints, place: Ints) -> dict[str, Tensor]:
        """What the batch must hold about them: `log_q` [n]; `own` bool [n], the columns that do not depend on the
        schedule, and `hard`, `easy` (columns) and `level`, each [s].

        Args:
            drawn: what `draw` gave.
            items: the batch's item rows [n].
            place: column of the pairs' items and of `drawn.items`, in this order.
        """
        out = {} if self.log_q is None else {"log_q": torch.from_numpy(self.log_q[items])}
        if self.mined is None:
            return out
        hard, easy = np.split(place[len(place) - 2 * len(drawn.hard) :], 2)
        own = np.zeros(len(items), bool)
        own[place[: len(place) - 2 * len(drawn.hard)]] = True
        arrays = {"own": own, "hard": hard, "easy": easy, "level": drawn.level}
        return out | {name: torch.from_numpy(array) for name, array in arrays.items()}


def keep_scheduled(batch: dict[str, Any], share: float) -> dict[str, Any]:
    """Keep a `share` of the hard negatives, and the random stand-ins of the others; unused items leave the batch."""
    if "level" not in batch:
        return batch
    keep = batch["own"].clone()
    keep[torch.where(batch["level"] < share, batch["hard"], batch["easy"])] = True
    out = {name: value for name, value in batch.items() if name not in ("own", "hard", "easy", "level")}
    out |= {name: batch[name][keep] for name in PER_ITEM if name in batch}
    out |= {name: batch[name][:, keep] for name in ("blocked", "liked")}
    out["target"] = (keep.cumsum(0) - 1)[batch["target"]]
    return {**out, "pixels": pictures_of(batch, keep.nonzero().squeeze(1))}
