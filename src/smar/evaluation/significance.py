"""Is a difference more than chance? Paired randomisation test with Holm's correction.

If two models were alike, a query's difference could as well have the other sign. So the signs are flipped at random,
many times: p is the share of flips whose mean difference is at least as large as the measured one (two-sided; the
measured signs count as one flip, so p is never 0). A family of comparisons is corrected by Holm's step-down method: the
chance that *any* of its corrected p falls below 0.05 by luck is at most 0.05.
"""

import numpy as np
import numpy.typing as npt

from smar.evaluation.metrics import Floats

FLIPS = 10_000
_BLOCK = 4_000_000
"""Signs held at once (flips x queries), which bounds the memory."""
_EPSILON = 1e-9
"""Sums of the same differences in another order may differ by rounding and still tie."""


def flips_for(family: int) -> int:
    """Flips that let a family of this size be corrected: the smallest corrected p stays below 0.025."""
    return max(FLIPS, 40 * family)


def sign_flip(differences: npt.ArrayLike, flips: int = FLIPS, seed: int = 0) -> Floats:
    """Two-sided p of "the mean difference is 0", for several paired comparisons over the same queries.

    Args:
        differences: per query, one column a comparison, [n_queries, m].
        flips: random sign vectors; all columns see the same ones.
        seed: the same seed gives the same p.

    Returns:
        p [m], at least 1 / (flips + 1).
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[values.any(axis=1)]  # a zero has no sign
    measured = np.abs(values.sum(axis=0)) - _EPSILON
    rng = np.random.default_rng(seed)
    width = -(-max(len(values), 1) // 64)
    size = max(_BLOCK // (64 * width), 1)
    extreme = np.zeros(values.shape[1], dtype=np.int64)
    for start in range(0, flips, size):
        words = rng.integers(2**64, size=(min(size, flips - start), width), dtype=np.uint64)
        signs = 2.0 * np.unpackbits(words.view(np.uint8), axis=1, count=len(values)) - 1
        extreme += (np.abs(signs @ values) >= measured).sum(axis=0)
    return (1 + extreme) / (1 + flips)


def holm(p: npt.ArrayLike) -> Floats:
    """Holm's corrected p of a family [m]: the i-th smallest times m - i, never falling, at most 1."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    scaled = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(scaled, 1)
    return corrected
