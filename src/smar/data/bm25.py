"""BM25 over texts, by the library bm25s (numpy only): what the report, the gate and hybrid search have in common.

Lucene's formula with k1 = 1.5 and b = 0.75.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt

from smar.data.words import K1, B, idf, length_norm, words


class _Quick(bm25s.BM25):  # type: ignore[misc]
    """The library's index, its matrix made by numpy: 1 M titles take 1 s instead of 13. Lucene's formula alone."""

    nonoccurrence_array = None  # other formulas give words that a text lacks a score, too

    def build_index_from_ids(
        self, unique_token_ids: Sequence[int], corpus_token_ids: Sequence[Sequence[int]], **_: Any
    ) -> dict[str, Any]:
        """The matrix word by word, as the library's own function makes it of the same arguments."""
        texts, size = len(corpus_token_ids), len(unique_token_ids)
        lengths = np.fromiter(map(len, corpus_token_ids), np.int64, texts)
        flat = np.fromiter(chain.from_iterable(corpus_token_ids), np.int64, lengths.sum())
        entries, counts = np.unique(flat * texts + np.repeat(np.arange(texts), lengths), return_counts=True)
        word, row = np.divmod(entries, texts)
        holding = np.bincount(word, minlength=size)
        norm = length_norm(lengths, lengths.mean())
        weights = idf(holding, texts)[word] * counts / (norm[row] + counts)
        starts = np.concatenate([[0], np.cumsum(holding)])
        return {
            "data": weights.astype(self.dtype),
            "indices": row.astype(self.int_dtype),
            "indptr": starts,
            "num_docs": texts,
        }


def build(texts: Iterable[str], language: str | None = None) -> tuple[bm25s.BM25 | None, float]:
    """The library's index of texts, None when no text has a word (it cannot index nothing); and their mean length.

    `language` is that of `smar.data.words.words`.
    """
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__  # the next number
    # ids, not words: at 1 M titles the words of all texts would take half a gigabyte
    ids = [list(map(vocabulary.__getitem__, words(text, language))) for text in texts]
    if not vocabulary:
        return None, 0.0
    index = _Quick(k1=K1, b=B, method="lucene", backend="numpy")
    index.index((ids, dict(vocabulary)), show_progress=False)
    return index, sum(map(len, ids)) / len(ids)


class Bm25:
    """An index of texts in memory; `language` is that of `smar.data.words.words`.

    >>> Bm25(["red dress", "blue dress"]).scores("red").argmax().item()
    0
    """

    def __init__(self, texts: Sequence[str], language: str | None = None) -> None:
        self.items, self.language = len(texts), language
        self.index, _ = build(texts, language)
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
