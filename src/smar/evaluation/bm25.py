"""BM25 over the items' text fields: what a shop gets without training anything, a row of the report.

Lucene's formula with k1 = 1.5 and b = 0.75, by the library bm25s (numpy only). Words are runs of letters and digits,
lower-cased, neither stemmed nor left out, so that it sees the same text as the towers.
"""

import re
from collections.abc import Sequence

import bm25s
import numpy as np

from smar.evaluation.scores import BLOCK, Blocks
from smar.model.encoder import Floats

NAME = "bm25"
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text, lower-cased."""
    return _WORD.findall(text.lower())


class Bm25:
    """An index of texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.items = len(texts)
        self.index = bm25s.BM25(k1=1.5, b=0.75, method="lucene", backend="numpy")
        tokens = [words(text) for text in texts]
        self.empty = not any(tokens)  # the library cannot index nothing
        if not self.empty:
            self.index.index(tokens, show_progress=False)

    def scores(self, query: str) -> Floats:
        """Scores of all texts, float32 [n]; -inf where no word of the query is in the text."""
        ids = [] if self.empty else self.index.get_tokens_ids(words(query))
        if not ids:
            return np.full(self.items, -np.inf, dtype=np.float32)
        found = np.asarray(self.index.get_scores_from_ids(ids), dtype=np.float32)
        return np.where(found > 0, found, np.float32(-np.inf))


def bm25_blocks(fields: Sequence[Sequence[str]], queries: Sequence[str]) -> Blocks:
    """Blocks of scores under the name `NAME`.

    Args:
        fields: one list of strings per text field, in item order.
        queries: texts.
    """
    index = Bm25([" ".join(values) for values in zip(*fields, strict=True)])
    for start in range(0, len(queries), BLOCK):
        yield start, {NAME: np.stack([index.scores(query) for query in queries[start : start + BLOCK]])}
