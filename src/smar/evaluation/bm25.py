"""BM25 over the items' text fields: what a shop gets without training anything, a row of the report."""

from collections.abc import Sequence

import numpy as np

from smar.data.bm25 import build
from smar.data.words import words
from smar.evaluation.scores import BLOCK, Blocks
from smar.model.encoder import Floats

NAME = "bm25"


class Bm25:
    """An index of texts; `language` is that of `smar.data.words.words`."""

    def __init__(self, texts: Sequence[str], language: str | None = None) -> None:
        self.items, self.language = len(texts), language
        self.index, _ = build(texts, language)

    def scores(self, query: str) -> Floats:
        """Scores of all texts, float32 [n]; -inf where no word of the query is in the text."""
        ids = [] if self.index is None else self.index.get_tokens_ids(words(query, self.language))
        if self.index is None or not ids:
            return np.full(self.items, -np.inf, dtype=np.float32)
        found = np.asarray(self.index.get_scores_from_ids(ids), dtype=np.float32)
        return np.where(found > 0, found, np.float32(-np.inf))


def bm25_blocks(fields: Sequence[Sequence[str]], queries: Sequence[str], language: str | None = None) -> Blocks:
    """Blocks of scores under the name `NAME`.

    Args:
        fields: one list of strings per text field, in item order.
        queries: texts.
        language: of both, see `smar.data.words.words`.
    """
    index = Bm25([" ".join(values) for values in zip(*fields, strict=True)], language)
    for start in range(0, len(queries), BLOCK):
        yield start, {NAME: np.stack([index.scores(query) for query in queries[start : start + BLOCK]])}
