"""BM25 over texts, by the library bm25s (numpy only): what the report's row and hybrid search have in common.

Lucene's formula with k1 = 1.5 and b = 0.75. Words are runs of letters and digits in the normal form of queries, neither
stemmed nor left out, so that it sees the same text as the towers.
"""

import re
from collections.abc import Iterable

import bm25s
import numpy as np
import numpy.typing as npt

from smar.data.text import normalise_query

K1, B = 1.5, 0.75
_WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """The words of a text in their normal form."""
    return _WORD.findall(normalise_query(text))


def idf(holding: "npt.NDArray[np.int64] | int", texts: int) -> npt.NDArray[np.float64]:
    """Lucene's weight of words that occur in `holding` of `texts` texts: log(1 + (N - n + 0.5) / (n + 0.5))."""
    found: npt.NDArray[np.float64] = np.log1p((texts - np.asarray(holding) + 0.5) / (np.asarray(holding) + 0.5))
    return found


def build(texts: Iterable[str]) -> tuple[bm25s.BM25 | None, float]:
    """The library's index of texts, None when no text has a word (it cannot index nothing); and their mean length."""
    vocabulary: dict[str, int] = {}
    # ids, not words: at 1 M titles the words of all texts would take half a gigabyte
    ids = [[vocabulary.setdefault(word, len(vocabulary)) for word in words(text)] for text in texts]
    if not vocabulary:
        return None, 0.0
    index = bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy")
    index.index((ids, vocabulary), show_progress=False)
    return index, sum(map(len, ids)) / len(ids)
