"""BM25 search over postings: which rows hold a word, and its weight in each.

A search touches only rows that hold a word of the query; the library's own makes and sorts an array over all items. At
1 M items of 8 words (a query's words are held by 30,000 rows in the median, by 600,000 in one query of a hundred) that
is 1.4 ms of CPU in the mean and 8 at the 99th percentile, against 130 in the mean.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from smar.index.columns import Mask
from smar.index.grams import Like
from smar.index.ranked import Corrections, Rows, Vectors

_MANY = 5_000  # entries that are left from which on it pays to ask whether further rows can be left out
_FEW = 64  # up to one entry for so many rows it pays to sort them
_SAMPLE = 4096
_BLOCK = 32_768
_MARGIN = 1.0001  # float32 sums of the same weights differ by less

Posting = tuple[npt.NDArray[np.int32], Vectors]
"""Rows that hold a word, ascending, and the word's BM25 weight in each."""
Reading = tuple[tuple[str, float], ...]
"""Words that stand in for another one together, and what the weight of each is multiplied with."""


class Scratch:
    """Arrays of zeros, lent to one search each and used again: made anew, 4 MB cost more than the search."""

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

    def likes(self, word: str) -> Mapping[str, Like]:
        """Words that may be meant by one that no item holds."""


@dataclass(frozen=True, slots=True)
class WordQuery:
    """A query's words with their counts; `unit` is the idf of a word that no item holds, the highest there is.

    `order` are the words as they follow each other, `readings` what stands in for those that no item holds
    (`smar.index.fallback`).
    """

    counts: Mapping[str, int]
    unit: float
    order: Sequence[str]
    readings: Mapping[str, Sequence[Reading]] = field(default_factory=dict)

    def as_read(self, text: str) -> str:
        """The query with the likeliest reading of each word that no item holds."""
        for word, found in self.corrected().items():
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", found[0], text)
        return text

    def corrected(self) -> Corrections:
        """The words that stand in for each word that no item holds, the best first; those of a pair with a blank."""
        return {
            word: [" ".join(one for one, _ in reading) for reading in found] for word, found in self.readings.items()
        }


@dataclass(frozen=True, slots=True)
class Entries:
    """Where the words of a query occur in one segment: rows, weights and count of each, the weightiest first."""

    items: int
    scratch: Scratch
    words: Sequence[tuple[npt.NDArray[np.int32], Vectors, int]]

    @classmethod
    def of(cls, postings: Postings, query: WordQuery) -> "Entries":
        """Look up every word."""
        words = []
        for word, count in query.counts.items():
            readings = query.readings.get(word)
            words.append((*(postings.posting(word) if readings is None else _read_as(postings, readings)), count))
        return cls(postings.items, postings.scratch, words)


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


def best_rows(entries: Entries, k: int, allowed: Mask | None) -> Rows:
    """The `k` rows of highest BM25 score among those `allowed` [items], equal scores by row.

    Fewer when fewer hold a word of the query. The weightiest words come first. Once `k` rows score more than all words
    that are left could give, no further row is taken in (MaxScore), which spares most of what frequent words cost.
    That is asked again once as many entries were added as rows were found, which is what asking costs.
    """
    words = entries.words
    left = np.cumsum([count * float(weights.max(initial=0)) for _, weights, count in reversed(words)])[::-1]
    entries_left = np.cumsum([len(rows) for rows, _, _ in reversed(words)])[::-1]
    with entries.scratch.lent(entries.items) as scores:
        sums, unasked = _Sums(scores, allowed), 0
        for (rows, weights, count), bound, further in zip(words, left, entries_left, strict=True):
            if not sums.closed and sums.found >= k and unasked >= sums.found and further > _MANY:
                sums.closed, unasked = bool(_lowest(scores[sums.rows()], k) > bound * _MARGIN), 0
            unasked += len(rows)
            for start in range(0, len(rows), _BLOCK):
                sums.add(rows[start : start + _BLOCK], weights[start : start + _BLOCK], count)
        rows = sums.rows()
        found = _best(scores[rows], rows, k)
        scores[rows] = 0
    return found


class _Sums:
    """BM25 scores [items] as they add up, in blocks that stay in the processor's cache."""

    def __init__(self, scores: Vectors, allowed: Mask | None) -> None:
        self.scores, self.allowed = scores, allowed
        self.parts: list[npt.NDArray[np.int32]] = [np.empty(0, np.int32)]
        self.found = 0
        self.closed = False
        """Whether rows without a score so far are left out."""

    def add(self, rows: npt.NDArray[np.int32], weights: Vectors, count: int) -> None:
        """Entries of one word, `count` times in the query."""
        if self.allowed is not None:
            kept = np.flatnonzero(self.allowed[rows])
            rows, weights = rows[kept], weights[kept]
        before = self.scores[rows]
        if self.closed:
            kept = np.flatnonzero(before)
            rows, weights, before = rows[kept], weights[kept], before[kept]
        else:
            self.parts.append(rows[before == 0])
            self.found += len(self.parts[-1])
        self.scores[rows] = before + np.float32(count) * weights

    def rows(self) -> npt.NDArray[np.int32]:
        """All rows that have a score."""
        self.parts = [np.concatenate(self.parts)]
        return self.parts[0]


def _best(scores: Vectors, rows: npt.NDArray[np.int32], k: int) -> Rows:
    """The rows of the `k` highest scores, equal ones by row; ties by the thousand, as of one short word, stay cheap."""
    if len(rows) > k:
        lowest = _lowest(scores, k)
        above, equal = np.flatnonzero(scores > lowest), rows[scores == lowest]
        missing = k - len(above)
        last = np.sort(np.partition(equal, missing - 1)[:missing])
        first = rows[above][np.lexsort((rows[above], -scores[above]))]
        return np.concatenate([first, last]).astype(np.int64)
    return rows[np.lexsort((rows, -scores))].astype(np.int64)


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
    """BM25 scores of some rows, float32 [n]; 0 where no word of the query occurs."""
    scores, rows = np.zeros(len(rows), np.float32), rows.astype(np.int32)
    for holding, weights, count in entries.words:
        if len(holding):
            at = np.minimum(np.searchsorted(holding, rows), len(holding) - 1)
            scores += np.where(holding[at] == rows, count * weights[at], np.float32(0))
    return scores
