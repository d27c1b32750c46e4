"""The words of a text and what a rare one is worth: the part of BM25 that searching needs, without its library.

Words are runs of letters and digits in the normal form of queries, neither stemmed nor left out, so that BM25 sees the
same text as the towers.
"""

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from smar.data.text import normalise_query

K1, B = 1.5, 0.75
_WORD = re.compile(r"\w+")
_ASCII_WORD = re.compile(r"\w+", re.ASCII)


def words(text: str) -> list[str]:
    """The words of a text in their normal form."""
    if text.isascii():  # the same in two thirds of the time: which blanks lie between words does not matter
        return _ASCII_WORD.findall(text.lower())
    return _WORD.findall(normalise_query(text))


def length_norm(count: Any, mean: float) -> Any:
    """What the number of times that a word occurs is weighed against in a text of `count` words, a number or an array.

    ``idf * times / (norm + times)`` is Lucene's BM25 weight of the word; `mean` is the mean length of all texts.
    """
    return K1 * (1 - B + B * count / mean) if mean else K1


def idf(holding: "npt.NDArray[np.int64] | int", texts: int) -> npt.NDArray[np.float64]:
    """Lucene's weight of words that occur in `holding` of `texts` texts: log(1 + (N - n + 0.5) / (n + 0.5))."""
    found: npt.NDArray[np.float64] = np.log1p((texts - np.asarray(holding) + 0.5) / (np.asarray(holding) + 0.5))
    return found
