"""BM25 over texts, by the library bm25s (numpy only): what the report and the gate compare with.

Its matrix is that of `smar.data.word_matrix`, as the index's.
"""

from collections.abc import Sequence
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt

from smar.data.word_matrix import Matrix, word_matrix
from smar.data.words import K1, B, idf, words


class _Quick(bm25s.BM25):  # type: ignore[misc]
    """The library's index, its matrix made by numpy, much faster. Lucene's formula alone."""

    nonoccurrence_array = None  # other formulas give words that a text lacks a score, too

    def build_index_from_ids(
        self, unique_token_ids: Sequence[int], corpus_token_ids: Sequence[Matrix], **_: Any
    ) -> dict[str, Any]:
        """The matrix word by word, as the library's own function makes it of the same texts."""
        (made,) = corpus_token_ids
        return {"data": made.weights, "indices": made.rows, "indptr": made.starts, "num_docs": made.texts}


def build(texts: Sequence[str], language: str | None = None) -> bm25s.BM25 | None:
    """The library's index of texts, None when no text has a word: it cannot index nothing.

    `language` is that of `smar.data.words.words`.
    """
    made = word_matrix(texts, language)
    if not made.columns:
        return None
    index = _Quick(k1=K1, b=B, method="lucene", backend="numpy")
    index.index(([made], dict(made.columns)), show_progress=False)
    return index


class Bm25:
    """An index of texts in memory; `language` is that of `smar.data.words.words`.

    >>> Bm25(["red dress", "blue dress"]).scores("red").argmax().item()
    0
    """

    def __init__(self, texts: Sequence[str], language: str | None = None) -> None:
        self.items, self.language = len(texts), language
        self.index = build(texts, language)
        self.holding = np.empty(0, np.int64) if self.index is None else np.diff(self.index.scores["indptr"])
        self.unit = float(idf(0, self.items))

    @classmethod
    def of_fields(cls, fields: Sequence[Sequence[str]], language: str | None = None) -> "Bm25":
        """Of texts that are made of several fields, one list of strings a field, in item order."""
        return cls([" ".join(values) for values in zip(*fields, strict=True)], language)

    def scores(self, query: str) -> npt.NDArray[np.float32]:
        """Scores of all texts, float32 [n]; 0 where no word of the query is in the text."""
        ids = [] if self.index is None else self.index.get_tokens_ids(words(query, self.language))
        if self.index is None or not ids:
            return np.zeros(self.items, np.float32)
        return np.asarray(self.index.get_scores_from_ids(ids), np.float32)

    def idf(self, word: str) -> float:
        """Weight of a word by its rarity; `unit` of one that no text holds."""
        column = None if self.index is None else self.index.vocab_dict.get(word)
        return self.unit if column is None else float(idf(int(self.holding[column]), self.items))
