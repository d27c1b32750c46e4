"""BM25 over the items' text fields: what a shop gets without training anything, a row of the report."""

from collections.abc import Sequence

import numpy as np

from smar.data.bm25 import Bm25
from smar.evaluation.scores import BLOCK, Blocks

NAME = "bm25"


def bm25_blocks(index: Bm25, queries: Sequence[str]) -> Blocks:
    """Blocks of scores of the `queries` under the name `NAME`; -inf where no word of the query is in the text."""
    for start in range(0, len(queries), BLOCK):
        scores = np.stack([index.scores(query) for query in queries[start : start + BLOCK]])
        yield start, {NAME: np.where(scores > 0, scores, np.float32(-np.inf))}
