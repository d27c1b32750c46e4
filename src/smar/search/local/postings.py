"""BM25 search over postings: which rows hold a word, and its weight in each.

A search reads the rows of the query's rarest words and looks them up among those of the others; the library's own makes
and sorts an array over all items.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Protocol

import numpy as np
import numpy.typing as npt

from smar.search.column_values import Mask
from smar.search.expansion import Expansion
from smar.search.local.grams import Like
from smar.search.ranked import Corrections, Rows, Vectors

_FEW = 64  # up to one entry for so many rows it pays to sort them
_SAMPLE = 4096
_FIRST, _BLOCK = 8_192, 32_768  # entries of a posting that are looked up at a time
_MARGIN = 1.0001  # float32 sums of the same weights differ by less

Posting = tuple[npt.NDArray[np.int32], Vectors]
"""Rows that hold a word, ascending, and the word's BM25 weight in each."""
Reading = tuple[tuple[str, float], ...]
"""Words that stand in for another one together, and what the weight of each is multiplied with."""


class Scratch:
    """Arrays of zeros, lent to one search each and used again: made anew, they cost more than the search."""

    def __init__(self) -> None:
        self._free: list[Vectors] = []

    @contextmanager
    def lent(self, items: int) -> Iterator[Vectors]:
        """Zeros float32 [items]; the borrower sets them back to zero."""
        try:
            scores = self._free.pop()
        except IndexError:
            scores = np.zeros(items, np.float32)
        yield scores
        self._free.append(scores)  # not after an error: it would not be zero


class Postings(Protocol):
    """Who knows where a word occurs."""

    @property
    def items(self) -> int:
        """Number of rows."""

    @property
    def scratch(self) -> Scratch:
        """For the sums of a search."""

    def posting(self, word: str) -> Posting:
        """Where `word` occurs; empty where it does not."""

    def most(self, word: str) -> float:
        """The highest weight of `word` in a row."""

    def likes(self, word: str) -> Mapping[str, Like]:
        """Words that may be meant by one that no item holds."""


@dataclass(frozen=True, slots=True)
class WordQuery:
    """A query's words with their counts; `unit` is the idf of a word that no item holds, the highest there is.

    `order` are the words as they follow each other, `readings` what stands in for those that no item holds
    (`smar.search.local.fallback`). A part of the query that has `synonyms` counts as one word, of their names.
    """

    counts: Mapping[str, int]
    unit: float
    order: Sequence[str]
    readings: Mapping[str, Sequence[Reading]] = field(default_factory=dict)
    synonyms: Mapping[str, Sequence[Reading]] = field(default_factory=dict)

    @property
    def own(self) -> list[str]:
        """The different words, as they follow each other, but for those that synonyms stand for."""
        if not self.synonyms:
            return list(dict.fromkeys(self.order))
        return [word for word in dict.fromkeys(self.order) if word in self.counts and word not in self.synonyms]

    def stand_ins(self, word: str) -> Sequence[Reading] | None:
        """What a word is read as; None for itself."""
        return self.synonyms.get(word) or self.readings.get(word)

    def as_read(self, text: str) -> str:
        """The query with the likeliest reading of each word that no item holds."""
        for word, found in self.corrected().items():
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", found[0], text)
        return text

    def expansion_as_read(self, expansion: Expansion) -> Expansion:
        """The same of all readings of the query."""
        return replace(expansion, texts=tuple(map(self.as_read, expansion.texts)))

    def corrected(self) -> Corrections:
        """The words that stand in for each word that no item holds, the best first; those of a pair with a blank."""
        return {
            word: [" ".join(one for one, _ in reading) for reading in found] for word, found in self.readings.items()
        }


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a word of a query occurs, `count` times in the query, and the `most` that it adds to a score."""

    rows: npt.NDArray[np.int32]
    weights: Vectors
    count: int
    most: float

    def scores(self, block: slice) -> Vectors:
        """What the word adds to the rows of some entries."""
        weights = self.weights[block]
        return weights if self.count == 1 else np.float32(self.count) * weights

    def of(self, rows: npt.NDArray[np.int32]) -> Vectors:
        """What the word adds to each of some rows."""
        if not len(self.rows):
            return np.zeros(len(rows), np.float32)
        at = self.rows.searchsorted(rows)
        held = self.rows.take(at, mode="clip") == rows
        scores: Vectors = self.weights.take(at, mode="clip") * held
        return scores if self.count == 1 else np.float32(self.count) * scores


@dataclass(frozen=True, slots=True)
class Entries:
    """Where the words of a query occur in one segment, the weightiest first."""

    words: Sequence[Entry]

    @classmethod
    def of(cls, postings: Postings, query: WordQuery) -> "Entries":
        """Look up every word."""
        words = []
        for word, count in query.counts.items():
            readings = query.stand_ins(word)
            rows, weights = postings.posting(word) if readings is None else _read_as(postings, readings)
            most = postings.most(word) if readings is None else float(weights.max(initial=0))
            words.append(Entry(rows, weights, count, count * most))
        return cls(words)


def _read_as(postings: Postings, readings: Sequence[Reading]) -> Posting:
    """Rows that hold any of the readings, and the weight of the best one in each."""

    def weighed(word: str, factor: float) -> Posting:
        rows, weights = postings.posting(word)
        return rows, np.float32(factor) * weights

    sums = [_merged(postings, np.add, [weighed(*each) for each in reading]) for reading in readings]
    return _merged(postings, np.maximum, sums)


def _merged(postings: Postings, how: np.ufunc, parts: Sequence[Posting]) -> Posting:
    """Rows of any part; where several have one, `how` makes one weight of theirs."""
    if len(parts) == 1:
        return parts[0]
    with postings.scratch.lent(postings.items) as together:
        for rows, weights in parts:
            together[rows] = how(together[rows], weights)
        many = sum(len(rows) for rows, _ in parts) > postings.items // _FEW
        rows = (
            np.flatnonzero(together[: postings.items]).astype(np.int32)
            if many
            else np.unique(np.concatenate([rows for rows, _ in parts]))
        )
        weights = together[rows]
        together[rows] = 0
    return rows, weights


def best_rows(entries: Entries, k: int, allowed: Mask | None, floor: float = 0.0) -> tuple[Rows, Vectors]:
    """The `k` rows of highest BM25 score among those `allowed` [items], best first, equal ones by row; and the scores.

    Fewer when fewer hold a word of the query; rows that score less than `floor` may be missing. A row is met at the
    weightiest of its words and looked up in those after it. What could not reach `floor`, or the `k`-th best so far, if
    the words left gave it all they can, is left out at once (MaxScore), which spares most of what frequent words cost.
    """
    left = [*accumulate((word.most for word in reversed(entries.words)), initial=0.0)][::-1]
    rows, scores = np.empty(0, np.int32), np.empty(0, np.float32)
    for at, word in enumerate(entries.words):
        for block in _blocks(len(word.rows)):
            if left[at] * _MARGIN < floor:
                break
            new = _met(entries.words, at, block, [floor / _MARGIN - most for most in left], allowed)
            if not len(new[0]):
                continue
            rows, scores = np.concatenate([rows, new[0]]), np.concatenate([scores, new[1]])
            if len(rows) > k:
                lowest = _lowest(scores, k)
                rows, scores, floor = *_kept(scores >= lowest, rows, scores), max(floor, float(lowest))
    return _best(rows, scores, k)


def _blocks(entries: int) -> Iterator[slice]:
    """Slices of a posting, a short one first: what is good in it spares looking up most of the others."""
    start, size = 0, _FIRST
    while start < entries:
        yield slice(start, start + size)
        start, size = start + size, _BLOCK


def _met(
    words: Sequence[Entry], at: int, block: slice, least: Sequence[float], allowed: Mask | None
) -> tuple[npt.NDArray[np.int32], Vectors]:
    """Rows of a block of word `at` that no word before holds, and their scores.

    `least` is what words from each on must leave a row with before them.
    """
    rows, scores = words[at].rows[block], words[at].scores(block)
    if allowed is not None:
        rows, scores = _kept(allowed[rows], rows, scores)
    if least[at + 1] > 0:
        rows, scores = _kept(scores >= least[at + 1], rows, scores)
    for further, word in enumerate(words[at + 1 :], at + 2):
        if not len(rows):
            break
        scores = scores + word.of(rows)
        rows, scores = _kept(scores >= least[further], rows, scores)
    for word in words[:at]:
        if not len(rows):
            break
        rows, scores = _kept(word.of(rows) == 0, rows, scores)
    return rows, scores


def _kept(kept: Mask, rows: npt.NDArray[np.int32], scores: Vectors) -> tuple[npt.NDArray[np.int32], Vectors]:
    return rows.compress(kept), scores.compress(kept)


def _best(rows: npt.NDArray[np.int32], scores: Vectors, k: int) -> tuple[Rows, Vectors]:
    """The rows of the `k` highest scores, equal ones by row; ties by the thousand, as of one short word, stay cheap."""
    if len(rows) > k:
        lowest = _lowest(scores, k)
        above, equal = scores > lowest, rows[scores == lowest]
        missing = k - np.count_nonzero(above)
        last = np.partition(equal, missing - 1)[:missing]
        rows = np.concatenate([rows[above], last])
        scores = np.concatenate([scores[above], np.full(missing, lowest)])
    order = np.lexsort((rows, -scores))
    return rows[order].astype(np.int64), scores[order]


def _lowest(scores: Vectors, k: int) -> np.float32:
    """The `k`-th highest score. Of many scores, those are left out first that a sample shows to be too low."""
    step = len(scores) // _SAMPLE
    if step > 1:
        sample = np.sort(scores[::step])
        likely = scores[scores >= sample[-min(len(sample), 2 * k // step + 10)]]
        scores = likely if len(likely) >= k else scores
    lowest: np.float32 = np.partition(scores, len(scores) - k)[len(scores) - k]
    return lowest


def word_scores(entries: Entries, rows: Rows) -> Vectors:
    """BM25 scores of some rows, float32 [n]; 0 where no word of the query occurs. Ascending rows are found faster."""
    scores, narrow = np.zeros(len(rows), np.float32), rows.astype(np.int32)
    for word in entries.words:
        scores += word.of(narrow)
    return scores
