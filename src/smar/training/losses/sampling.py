"""How probable it is that a batch holds an item: what the logQ correction subtracts.

Popular items are drawn often, so in-batch softmax pushes them down. Subtracting log q from their logits takes that
back (Yi et al. 2019, sampling-bias-corrected neural modelling); items drawn uniformly from the catalogue make the
probability a mixture (Yang et al. 2020, mixed negative sampling).
"""

import numpy as np
import numpy.typing as npt


def log_inclusion(pairs_of_item: npt.NDArray[np.int64], batch_size: int, uniform: int) -> npt.NDArray[np.float32]:
    """Log probability that a batch holds each item, [items].

    A batch draws `batch_size` pairs and `uniform` items, and holds an item once however often it was drawn:
    q = 1 - (1 - share of the pairs)^batch_size (1 - uniform / items). The sampler draws every pair equally often, its
    weight counts in the loss. Where only pairs are drawn, an item without a pair (a mined negative) counts as having
    one: its own probability, 0, has no log.

    Args:
        pairs_of_item: number of training pairs of each item [items].
        batch_size: pairs in a batch.
        uniform: random items in a batch, at most all.
    """
    count = pairs_of_item if uniform else np.maximum(pairs_of_item, 1)
    share = np.minimum(count / pairs_of_item.sum(), 1.0)
    with np.errstate(divide="ignore"):  # an item that has every pair: log 0, and q is 1
        absent = batch_size * np.log1p(-share) + np.log1p(-uniform / len(count))
    log_q: npt.NDArray[np.float32] = np.log(-np.expm1(absent)).astype(np.float32)
    return log_q
