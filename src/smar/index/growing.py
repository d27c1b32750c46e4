"""The words of items that were added since a version was built."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.data.words import length_norm, words
from smar.index.postings import Posting, Scratch, WordQuery
from smar.index.ranked import Vectors
from smar.index.words import WordIndex, item_texts


class GrowingWords:
    """The words of the update log's items, weighed by the idf and mean length of the version that they were added to.

    Entries lie in buffers that only grow, so a `view` taken earlier keeps seeing its own part of them.
    """

    def __init__(self, base: WordIndex) -> None:
        self._base = base
        self._numbers: dict[str, int] = {}
        self._words, self._rows = np.empty(0, np.int32), np.empty(0, np.int32)
        self._weights: Vectors = np.empty(0, np.float32)
        self._entries = self._items = 0

    def add(self, table: pa.Table) -> None:
        """The next items."""
        base = self._base
        for text in item_texts(table, base.fields):
            found = words(text, base.language)
            norm = length_norm(len(found), base.mean_length)
            for word, count in Counter(found).items():
                self._append(word, base.idf(word) * count / (norm + count))
            self._items += 1

    def _append(self, word: str, weight: float) -> None:
        at = self._entries
        if at == len(self._words):
            size = max(8192, 2 * at)
            self._words, self._rows, self._weights = (
                np.concatenate([old, np.empty(size - at, old.dtype)])
                for old in (self._words, self._rows, self._weights)
            )
        self._words[at] = self._numbers.setdefault(word, len(self._numbers))
        self._rows[at], self._weights[at] = self._items, weight
        self._entries = at + 1

    def view(self) -> "ChangedWords":
        """What there is now."""
        entries = slice(self._entries)
        arrays = (self._words[entries], self._rows[entries], self._weights[entries])
        return ChangedWords(self._items, self._base, self._numbers, *arrays)


@dataclass(frozen=True, slots=True)
class ChangedWords:
    """Words of the first `items` items of a log: number, row and weight of every entry, scanned as a whole."""

    items: int
    base: WordIndex
    numbers: Mapping[str, int]
    words: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    weights: Vectors
    scratch: Scratch = field(default_factory=Scratch)

    def posting(self, word: str) -> Posting:
        """Where `word` occurs; empty where it does not."""
        at = np.flatnonzero(self.words == self.numbers.get(word, -1))
        return self.rows[at], self.weights[at]

    def query(self, text: str) -> WordQuery:
        """As the version weighs it."""
        return self.base.query(text)
