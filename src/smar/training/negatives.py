"""Negatives from outside the batch's pairs: uniformly random items of the catalogue.

What a batch draws depends on the seed and on its pairs only, never on the state of a generator, so a run that goes on
from a checkpoint draws what an undisturbed one would have drawn.
"""

from dataclasses import dataclass

import numpy as np

from smar.core.errors import InputError
from smar.model.tokens import Ints


@dataclass(frozen=True)
class NegativeSampler:
    """Draws `uniform` random items of the catalogue for each batch.

    Example:
        >>> drawn = NegativeSampler(3, seed=1).draw(np.array([4, 7]), 100)
        >>> len(set(drawn.tolist()))
        3
    """

    uniform: int = 0
    seed: int = 0

    def check(self, items: int) -> None:
        """Raise InputError where a catalogue of `items` has too few."""
        if self.uniform > items:
            raise InputError(
                f"train.negatives.uniform is {self.uniform}, the catalogue has {items} items: lower it to at most that."
            )

    def draw(self, pairs: Ints, items: int) -> Ints:
        """Item rows [uniform] for the batch of the given pairs [B], out of a catalogue of `items`."""
        if not self.uniform:
            return np.empty(0, np.int64)
        rng = np.random.default_rng([self.seed, *pairs.tolist()])
        return rng.choice(items, self.uniform, replace=False)
