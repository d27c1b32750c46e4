"""Many blocks of rows, each on one thread, side by side.

Libraries that divide each single product among threads spend nearly as much processor time waiting as working.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import faiss
from threadpoolctl import threadpool_limits

T = TypeVar("T")


def each_block(work: Callable[[slice], T], rows: int, block: int) -> Iterator[T]:
    """`work`, done by numpy, on each block of `rows` rows, in order; as many at a time as there are threads."""
    blocks = [slice(start, min(start + block, rows)) for start in range(0, rows, block)]
    threads = faiss.omp_get_max_threads()  # OMP_NUM_THREADS, or else the cores
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, blocks)
