"""Batches of one category: the other items of the batch are then alike, and only details tell them apart."""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

from smar.model.tokens import Ints


def epoch_order(category: Ints, batch: int, share: float, seed: tuple[int, int]) -> Ints:
    """Every pair once, ordered so that cutting the order into batches gives a share of them one category each.

    Those batches are cut from pairs sorted by category, so where a category ends, a batch holds the next one, too.
    Pairs of the other batches are drawn from all; the batches are shuffled; pairs that fill no batch come last.

    Args:
        category: number of each pair's category, from 0 [n].
        batch: pairs in a batch.
        share: share of the batches.
        seed: the run's seed and the epoch.

    Returns:
        Rows of the pairs [n].
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(category))
    whole = len(order) // batch
    sorted_part = order[: round(share * whole) * batch]
    place = rng.permutation(int(category.max(initial=0)) + 1)
    order[: len(sorted_part)] = sorted_part[np.argsort(place[category[sorted_part]], kind="stable")]
    batches = rng.permutation(order[: whole * batch].reshape(whole, batch))
    return np.concatenate([batches.ravel(), order[whole * batch :]])


class CategorySampler(Sampler[int]):
    """`epoch_order` of the epoch that `epoch` names when the iteration starts.

    The order depends on nothing else, so `Trainer` finds its place again by skipping the batches already trained.
    """

    def __init__(self, category: Ints, batch: int, share: float, seed: int, epoch: Callable[[], int]) -> None:
        self.category, self.batch, self.share, self.seed, self.epoch = category, batch, share, seed, epoch

    def __len__(self) -> int:
        return len(self.category)

    def __iter__(self) -> Iterator[int]:
        return iter(epoch_order(self.category, self.batch, self.share, (self.seed, self.epoch())).tolist())
