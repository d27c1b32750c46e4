"""BM25 over texts, by the library bm25s (numpy only): what the report, the gate and hybrid search have in common.

Lucene's formula with k1 = 1.5 and b = 0.75.
"""

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt

from smar.data.words import K1, B, idf, length_norm, words

_TEXTS = 1 << 20  # whose words are sorted at a time, which bounds the memory
Corpus = Sequence[npt.NDArray[np.int32]]
"""The words of all texts as numbers, one text after the other, and how many each text has."""


class _Quick(bm25s.BM25):  # type: ignore[misc]
    """The library's index, its matrix made by numpy, much faster. Lucene's formula alone."""

    nonoccurrence_array = None  # other formulas give words that a text lacks a score, too

    def build_index_from_ids(
        self, unique_token_ids: Sequence[int], corpus_token_ids: Corpus, **_: Any
    ) -> dict[str, Any]:
        """The matrix word by word, as the library's own function makes it of the same texts."""
        flat, lengths = corpus_token_ids
        texts, size = len(lengths), len(unique_token_ids)
        parts = [_counted(part, first) for first, part in _parts(flat, lengths)]
        held = [np.bincount(word, minlength=size) for word, _, _ in parts]
        holding = np.sum(held, axis=0)
        starts = np.concatenate([[0], np.cumsum(holding)])
        rows, weights = np.empty(starts[-1], self.int_dtype), np.empty(starts[-1], self.dtype)
        norm, rarity, filled = length_norm(lengths, lengths.mean()), idf(holding, texts), starts[:-1].copy()
        for (word, row, counts), own in zip(parts, held, strict=True):
            places = (filled - np.cumsum(own) + own)[word] + np.arange(len(word))
            rows[places], weights[places] = row, rarity[word] * counts / (norm[row] + counts)
            filled += own
        return {"data": weights, "indices": rows, "indptr": starts, "num_docs": texts}


def _parts(flat: npt.NDArray[np.int32], lengths: npt.NDArray[np.int32]) -> Iterator[tuple[int, Corpus]]:
    """Some texts at a time, and the number of the first of them."""
    start = 0
    for first in range(0, len(lengths), _TEXTS):
        own = lengths[first : first + _TEXTS]
        stop = start + int(own.sum(dtype=np.int64))
        yield first, (flat[start:stop], own)
        start = stop


def _counted(part: Corpus, first: int) -> tuple[npt.NDArray[np.int32], ...]:
    """Each word of some texts with each text that has it, by word: word, number of the text, how often it is there."""
    flat, lengths = part
    texts = len(lengths)
    entries, counts = np.unique(flat * np.int64(texts) + np.repeat(np.arange(texts), lengths), return_counts=True)
    word, row = np.divmod(entries, texts)
    return word.astype(np.int32), (row + first).astype(np.int32), counts.astype(np.int32)


def build(texts: Iterable[str], language: str | None = None) -> tuple[bm25s.BM25 | None, float]:
    """The library's index of texts, None when no text has a word (it cannot index nothing); and their mean length.

    `language` is that of `smar.data.words.words`.
    """
    vocabulary: defaultdict[str, int] = defaultdict()
    vocabulary.default_factory = vocabulary.__len__  # the next number
    # numbers of 4 bytes: the words of all texts would take several times as much
    flat, lengths = array("i"), array("i")
    for text in texts:
        found = words(text, language)
        flat.extend(map(vocabulary.__getitem__, found))
        lengths.append(len(found))
    if not vocabulary:
        return None, 0.0
    index = _Quick(k1=K1, b=B, method="lucene", backend="numpy")
    corpus = [np.frombuffer(flat, np.int32), np.frombuffer(lengths, np.int32)]
    index.index((corpus, dict(vocabulary)), show_progress=False)
    return index, len(flat) / len(lengths)


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
