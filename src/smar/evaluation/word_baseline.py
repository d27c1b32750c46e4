"""Rows that a shop has without training this model: BM25 over the items' text fields, alone and beside vectors."""

from collections.abc import Sequence

import numpy as np

from smar.data.bm25 import Bm25
from smar.evaluation.scores import BLOCK, Blocks, rank
from smar.model.encoder import Floats

NAME = "bm25"
HYBRID = "hybrid"
_LISTED = 1000
"""Hits of each list that are fused."""
_OFFSET = 60.0


def bm25_blocks(index: Bm25, queries: Sequence[str]) -> Blocks:
    """Blocks of scores of the `queries` under the name `NAME`; -inf where no word of the query is in the text."""
    for start in range(0, len(queries), BLOCK):
        yield start, {NAME: _scores(index, queries[start : start + BLOCK])}


def with_hybrid(blocks: Blocks, row: str, name: str, index: Bm25 | None, queries: Sequence[str]) -> Blocks:
    """The blocks of `queries`, and in each under `name` BM25 and the scores of `row` fused; None fuses nothing."""
    for start, scores in blocks:
        if index is None:
            yield start, scores
        else:
            words = _scores(index, queries[start : start + len(scores[row])])
            yield start, {**scores, name: reciprocal_ranks(words, scores[row])}


def reciprocal_ranks(*lists: Floats) -> Floats:
    """Scores [b, n] of several systems -> the sum of 1 / (60 + rank) over them, -inf for what none of them lists.

    Reciprocal rank fusion, with its authors' constant: Cormack, Clarke and Buettcher, SIGIR 2009.

    >>> reciprocal_ranks(np.float32([[3, 2, 1]]), np.float32([[1, 2, -np.inf]])).argmax(1).tolist()
    [0]
    """
    items = lists[0].shape[1]
    total = np.zeros((len(lists[0]), items + 1), dtype=np.float32)
    for scores in lists:
        found = rank(scores, _LISTED)
        gain = np.zeros_like(total)
        ranks = np.arange(1, found.shape[1] + 1, dtype=np.float32)
        np.put_along_axis(gain, np.where(found < 0, items, found), 1 / (_OFFSET + ranks)[None], axis=1)
        total += gain
    return np.where(total[:, :items] > 0, total[:, :items], np.float32(-np.inf))


def _scores(index: Bm25, queries: Sequence[str]) -> Floats:
    scores = np.stack([index.scores(query) for query in queries])
    return np.where(scores > 0, scores, np.float32(-np.inf))
