"""The words of items that were added since a version was built."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.data.words import length_norm, words
from smar.search.local.grams import Like, has_likes, similarities
from smar.search.local.postings import Posting, Scratch
from smar.search.local.word_index import WordIndex, item_texts
from smar.search.ranked import Vectors


class GrowingWords:
    """The words of the update log's items, weighed by the idf and mean length of the version that they were added to.

    Entries lie in buffers that only grow, so a `view` taken earlier keeps seeing its own part of them.
    """

    def __init__(self, base: WordIndex) -> None:
        self._base = base
        self._numbers: dict[str, int] = {}
        self._new: list[str] = []
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
        if word not in self._numbers:
            self._numbers[word] = len(self._numbers)
            if has_likes(word) and not self._base.holding(word):
                self._new.append(word)
        self._words[at] = self._numbers[word]
        self._rows[at], self._weights[at] = self._items, weight
        self._entries = at + 1

    def view(self) -> "ChangedWords":
        """What there is now."""
        entries = slice(self._entries)
        arrays = (self._words[entries], self._rows[entries], self._weights[entries])
        return ChangedWords(self._items, self._numbers, self._new[:], *arrays)


@dataclass(frozen=True, slots=True)
class ChangedWords:
    """Words of the first `items` items of a log: number, row and weight of every entry, scanned as a whole."""

    items: int
    numbers: Mapping[str, int]
    new: Sequence[str]
    words: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    weights: Vectors
    scratch: Scratch = field(default_factory=Scratch)

    def posting(self, word: str) -> Posting:
        """Where `word` occurs; empty where it does not."""
        at = np.flatnonzero(self.words == self.numbers.get(word, -1))
        return self.rows[at], self.weights[at]

    def most(self, word: str) -> float:
        """The highest weight of `word` in a row."""
        return float(self.posting(word)[1].max(initial=0))

    def likes(self, word: str) -> dict[str, Like]:
        """Words that may be meant by one that no item holds, among those that the version does not have."""
        found = similarities(word, self.new)
        near = {self.new[at]: found[at] for at in np.flatnonzero(found).tolist()}
        return {other: Like(float(share), len(self.posting(other)[0])) for other, share in near.items()}
