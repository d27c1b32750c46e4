"""What words and vectors propose for a query, and scores by both; see `smar.search.local.fusion` for the two ways."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from smar.core.errors import InputError
from smar.search.column_values import Mask
from smar.search.filters import Filter
from smar.search.local.postings import Entries, Postings, WordQuery, best_rows, word_scores
from smar.search.local.segment import Segment
from smar.search.ranked import Found, Near, Query, Rows, Vectors, scored

RANK_OFFSET = 60


_READ = 3  # items for each hit that are scored exactly: codes err


Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What either ranking found, by row: `found` with adaptive scores, `words` with BM25 scores [n].

    A rank, from 1, is 0 outside of its ranking. `unit` is what BM25 scores are divided by.
    """

    found: Found
    words: Vectors
    adaptive_rank: Rows
    words_rank: Rows
    unit: float

    def weighted(self, weight: float) -> Scores:
        """adaptive + weight * words / unit, [n]."""
        scores: Scores = self.found.score + weight / self.unit * self.words.astype(np.float64)
        return scores

    def reciprocal_ranks(self) -> Scores:
        """Reciprocal rank fusion [n] (Cormack, Clarke and Buettcher 2009)."""
        both = (self.adaptive_rank, self.words_rank)
        scores: Scores = np.sum([np.where(rank > 0, 1 / (RANK_OFFSET + rank), 0) for rank in both], axis=0)
        return scores

    def best(self, scores: Scores, k: int) -> Rows:
        """Places of the `k` highest `scores`; equal ones by the adaptive score, then by row."""
        order: Rows = np.lexsort((self.found.rows, -self.found.score, -scores))[:k]
        return order


@dataclass(frozen=True, slots=True)
class Blend:
    """Shares of one query's adaptive score and of its BM25 score / unit."""

    vectors: float
    words: float

    def sums(self, vectors: Vectors, words: Vectors, unit: float) -> Scores:
        """Of some items [n], from their scores by vectors and by BM25; see `Candidates` for `unit`."""
        sums: Scores = self.vectors * vectors.astype(np.float64) + self.words / unit * words
        return sums

    def floor(self, least: float, other: float, unit: float) -> float:
        """The least BM25 score with which an item of at most `other` by vectors has a sum of `least`."""
        return (least - self.vectors * other) * unit / self.words if self.words else np.inf


def _nth(scores: Vectors | Scores, n: int) -> float:
    """The `n`-th highest."""
    return float(np.partition(scores, len(scores) - n)[len(scores) - n])


def summed(
    segments: Sequence[Segment],
    query: Query,
    asked: WordQuery,
    near: Near,
    depth: int,
    filter: Filter | None,
    blend: Blend,
    k: int,
) -> tuple[Found, Vectors]:
    """The best `k` by the sum of both scores, and their BM25 scores.

    Vectors are read only of items whose sum by codes is high, and of those that have so much of the words that they may
    be better, though no vector search found them.

    Args:
        segments, query, asked, filter: as of `gather`.
        near: what the vectors propose, by row.
        depth: items that they were asked for, and to take of the words' ranking.
        blend: shares.
        k: items wanted.
    """
    entries = [Entries.of(words_in(segment), asked) for segment in segments]
    words = _scores(segments, entries, near.rows)
    likely = _highest(blend.sums(near.score, words, asked.unit), _READ * k)
    found, words = _scored(segments, query, near.rows[likely]), words[likely]
    sums = blend.sums(found.score, words, asked.unit)
    floor = np.inf
    if len(near) >= depth:  # else that is all there are
        floor = blend.floor(_nth(sums, k), _nth(near.score, depth), asked.unit)
    rows, further = _by_words(segments, entries, depth, filter, floor)
    if len(new := np.flatnonzero(~_among(near.rows, rows))):
        new = new[np.argsort(rows[new])]
        others, further = _scored(segments, query, rows[new]), further[new]
        found, words = Found.joined([found, others]), np.concatenate([words, further])
        sums = np.concatenate([sums, blend.sums(others.score, further, asked.unit)])
    best = _highest(sums, k)
    best = best[np.lexsort((found.rows[best], -found.score[best], -sums[best]))[:k]]
    return replace(found.pick(best), score=sums[best].astype(np.float32)), words[best]


def _highest(scores: Scores, k: int) -> Rows:
    """Places of the `k` highest, ascending, and of those as high as the last."""
    return np.flatnonzero(scores >= _nth(scores, k)) if len(scores) > k else np.arange(len(scores))


def _among(ascending: Rows, rows: Rows) -> Mask:
    """Which of some rows are among `ascending` ones."""
    if not len(ascending):
        return np.zeros(len(rows), np.bool_)
    found: Mask = ascending.take(ascending.searchsorted(rows), mode="clip") == rows
    return found


def gather(
    segments: Sequence[Segment], query: Query, asked: WordQuery, found: Found, depth: int, filter: Filter | None
) -> Candidates:
    """The candidates of one query: the whole of both rankings.

    Args:
        segments: the base and what changed since; rows of the index count through them.
        query: as the vectors are searched with it.
        asked: its words.
        found: the adaptive ranking.
        depth: items to take of the words' ranking.
        filter: which items may be found.
    """
    entries = [Entries.of(words_in(segment), asked) for segment in segments]
    by_words, _ = _by_words(segments, entries, depth, filter, 0.0)
    together = Found.joined([found, _scored(segments, query, np.setdiff1d(by_words, found.rows))]).by_row()
    words = _scores(segments, entries, together.rows)
    ranks = [_ranks(together.rows, ranking) for ranking in (found.rows, by_words)]
    return Candidates(together, words, ranks[0], ranks[1], asked.unit)


def words_scores(segments: Sequence[Segment], asked: WordQuery, rows: Rows) -> Vectors:
    """BM25 scores of ascending `rows` of the index for one query."""
    return _scores(segments, [Entries.of(words_in(segment), asked) for segment in segments], rows)


def words_held(segments: Sequence[Segment], asked: WordQuery, rows: Rows) -> Mask:
    """Which words of a query, or what stands in for them, each of ascending `rows` of the index holds [words, n]."""
    parts = [
        np.array(
            [word.of(own.astype(np.int32)) > 0 for word in Entries.of(words_in(segment), asked).words], np.bool_
        ).reshape(len(asked.counts), len(own))  # of a query without words, too
        for segment, own in _split(segments, rows)
    ]
    return np.concatenate(parts, axis=1)


def _scored(segments: Sequence[Segment], query: Query, rows: Rows) -> Found:
    """Exact scores of ascending `rows` of the index."""
    parts = [
        scored(segment.store.vectors, query, own).moved(segment.first_row) for segment, own in _split(segments, rows)
    ]
    return parts[0] if len(parts) == 1 else Found.joined(parts)


def _scores(segments: Sequence[Segment], entries: Sequence[Entries], rows: Rows) -> Vectors:
    """BM25 scores of ascending `rows` of the index."""
    split = zip(entries, _split(segments, rows), strict=True)
    scores = [word_scores(held, own) for held, (_, own) in split]
    return scores[0] if len(scores) == 1 else np.concatenate(scores)


def _split(segments: Sequence[Segment], rows: Rows) -> Iterator[tuple[Segment, Rows]]:
    """Each segment with its own ones among ascending `rows`, counted from its `first_row`."""
    if len(segments) == 1:
        yield segments[0], rows
        return
    starts = np.searchsorted(rows, [*(segment.first_row for segment in segments), np.iinfo(np.int64).max])
    for at, segment in enumerate(segments):
        yield segment, rows[starts[at] : starts[at + 1]] - segment.first_row


def _by_words(
    segments: Sequence[Segment], entries: Sequence[Entries], depth: int, filter: Filter | None, floor: float
) -> tuple[Rows, Vectors]:
    """Rows of the index with the `depth` highest BM25 scores, best first, and these; those below `floor` may lack."""
    parts = []
    for segment, held in zip(segments, entries, strict=True):
        allowed = segment.allowed(filter)
        rows, scores = best_rows(held, depth, None if allowed is None else allowed.mask, floor)
        parts.append((rows + segment.first_row, scores))
    if len(parts) == 1:
        return parts[0]
    rows, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
    order = np.lexsort((rows, -scores))[:depth]
    return rows[order], scores[order]


def _ranks(rows: Rows, ranking: Rows) -> Rows:
    ranks = np.zeros(len(rows), np.int64)
    ranks[np.searchsorted(rows, ranking)] = np.arange(1, len(ranking) + 1)
    return ranks


def words_in(segment: Segment) -> Postings:
    """The words of a segment; raises InputError where the index was built without words."""
    if segment.words is None:
        raise InputError(
            "this index was built without words, so it cannot be searched with mode hybrid. Run `smar index` again "
            "on the embeddings, or `smar index INDEX --compact`."
        )
    return segment.words
