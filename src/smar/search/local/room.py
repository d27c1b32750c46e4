"""How much memory a build takes, and what of a bound is left for what it holds at its own choice.

Counted is its own (anonymous) memory; pages of files belong to the system, which takes them back where it needs memory.
Not counted is what grows with the number of different words. docs/scale.md has the measured figures.
"""

import faiss

from smar.core.errors import InputError
from smar.search.local.forming import sampled

_LIBRARIES = 400_000_000  # the interpreter, what it loads, the query encoder, a shard
_THREAD = 50_000_000  # blocks of scores
_ITEM = 32  # numbers of rows and lists, and their order
_CODES = 150_000_000  # of a million items, or words that are counted at a time
_TRAINED = 2  # times the vectors that lists are formed of


def window(memory: int | None, items: int, dim: int, exact: bool) -> int | None:
    """Bytes of rows that may be put in order at a time, None for all, in a build of vectors of `dim` numbers.

    Raises:
        InputError: the build takes more than `memory` whatever it does.
    """
    if memory is None:
        return None
    threads: int = faiss.omp_get_max_threads()
    held = _LIBRARIES + _THREAD * threads + _ITEM * items
    row = 4 * dim
    least = held + (row * items if exact else max(2 * _CODES, _TRAINED * row * sampled(items)))
    if memory < least:
        raise InputError(
            f"--memory {memory / 1e9:.2f}GB is too little for {items:,} items of {dim} numbers: building takes "
            f"{least / 1e9:.2f}GB at least (on {threads} threads; OMP_NUM_THREADS says how many)."
        )
    return memory - held - _CODES
