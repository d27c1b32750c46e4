"""Hybrid search: the vectors' ranking and the words' ranking of one query made into one.

Candidates are the best `DEPTH` rows (`k`, where that is more) of either ranking. Two ways to score them:

    weighted          adaptive score + w * BM25 score / idf of a word that no item holds
    reciprocal-ranks  1 / (60 + rank) of each of the two rankings, added up

That idf is the most that one word can add to BM25, so w means the same in catalogues of all sizes, and neither filters
nor the other hits change an item's score. Divided by the idf of the query's own words instead, a model number counts no
more than a frequent word: of 1,000 queries of a brand and a rare word of a title, the weight that clicks chose then found
53 % of the items in the top ten, now 66 %; the vectors alone 44 %.
w is fitted to clicks (`smar.index.fitting`); without clicks the ranks are taken, which need no scale.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from smar.errors import InputError
from smar.index.filters import Filter
from smar.index.postings import Postings, WordQuery, best_rows, word_scores
from smar.index.query import QueryVectors
from smar.index.segment import Segment
from smar.index.vectors import Rows, Vectors

DEPTH = 200
"""Hits of each ranking that are fused at least."""
RANK_OFFSET = 60
Scores = npt.NDArray[np.float64]


class Fusion(StrEnum):
    """How two rankings become one."""

    WEIGHTED = "weighted"
    RANKS = "reciprocal-ranks"


class FusionRecall(BaseModel):
    """recall@50 of the clicked items on validation queries.

    `weighted` is measured on each half of the queries with the weight fitted on the other half. `gain` is that of the
    chosen fusion over `adaptive`, negative where it loses, and `gain_error` its standard error.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    queries: int
    adaptive: float
    words: float
    reciprocal_ranks: float
    weighted: float
    gain: float
    gain_error: float


class HybridFit(BaseModel):
    """What a version knows about hybrid search: the words' text, and which fusion with which weight."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fields: tuple[str, ...] = Field(description="item columns whose words are searched")
    mean_length: float = Field(ge=0, description="words of an item's text")
    fusion: Fusion = Fusion.RANKS
    weight: float = Field(0.0, ge=0, description="w of the weighted fusion")
    recall: FusionRecall | None = Field(None, description="None where there are no validation clicks")


@dataclass(frozen=True, slots=True)
class Candidates:
    """Rows [n], ascending, that either ranking found, with both scores; a rank, from 1, is 0 outside of its ranking.

    `words` are BM25 scores, `unit` what they are divided by.
    """

    rows: Rows
    adaptive: Vectors
    words: Vectors
    adaptive_rank: Rows
    words_rank: Rows
    unit: float

    def weighted(self, weight: float) -> Scores:
        """adaptive + weight * words / unit, [n]."""
        scores: Scores = self.adaptive + weight / self.unit * self.words.astype(np.float64)
        return scores

    def reciprocal_ranks(self) -> Scores:
        """Reciprocal rank fusion [n] (Cormack, Clarke and Buettcher 2009)."""
        both = (self.adaptive_rank, self.words_rank)
        scores: Scores = np.sum([np.where(rank > 0, 1 / (RANK_OFFSET + rank), 0) for rank in both], axis=0)
        return scores

    def best(self, scores: Scores, k: int) -> Rows:
        """Places of the `k` highest `scores`; equal ones by the adaptive score, then by row."""
        order: Rows = np.lexsort((self.rows, -self.adaptive, -scores))[:k]
        return order


@dataclass(frozen=True, slots=True)
class Fused:
    """The answer to one query: rows of the index, best first, the score of each, and its BM25 score."""

    rows: Rows
    score: Scores
    words: Vectors


def gather(
    segments: Sequence[Segment], vector: Vectors, text: str, found: Rows, depth: int, filter: Filter | None
) -> Candidates:
    """The candidates of one query.

    Args:
        segments: the base and what changed since; rows of the index count through them.
        vector: the widened query [2k].
        text: the query's words.
        found: rows of the adaptive ranking, best first.
        depth: rows to take of the words' ranking.
        filter: which items may be found.
    """
    postings = [_words(segment) for segment in segments]
    query = postings[0].query(text)
    by_words = _by_words(list(zip(segments, postings, strict=True)), query, depth, filter)
    rows = np.union1d(found, by_words)
    adaptive, words = np.empty(len(rows), np.float32), np.empty(len(rows), np.float32)
    starts = np.searchsorted(rows, [*(segment.first_row for segment in segments), np.iinfo(np.int64).max])
    for at, (segment, words_there) in enumerate(zip(segments, postings, strict=True)):
        part = slice(starts[at], starts[at + 1])
        own = rows[part] - segment.first_row
        adaptive[part] = segment.store.scores(vector, own)
        words[part] = word_scores(words_there, query, own)
    return Candidates(rows, adaptive, words, _ranks(rows, found), _ranks(rows, by_words), query.unit)


def _by_words(parts: Sequence[tuple[Segment, Postings]], query: WordQuery, depth: int, filter: Filter | None) -> Rows:
    """Rows of the index with the `depth` highest BM25 scores, best first."""
    rows, scores = [], []
    for segment, postings in parts:
        allowed = segment.allowed(filter)
        own = best_rows(postings, query, depth, None if allowed is None else allowed.mask)
        rows.append(own + segment.first_row)
        scores.append(word_scores(postings, query, own))
    together = np.concatenate(rows)
    return together[np.lexsort((together, -np.concatenate(scores)))[:depth]]


def _ranks(rows: Rows, ranking: Rows) -> Rows:
    ranks = np.zeros(len(rows), np.int64)
    ranks[np.searchsorted(rows, ranking)] = np.arange(1, len(ranking) + 1)
    return ranks


def _words(segment: Segment) -> Postings:
    if segment.words is None:
        raise InputError(
            "this index was built without words, so it cannot be searched with mode hybrid. Run `smar index` again "
            "on the embeddings, or `smar index INDEX --compact`."
        )
    return segment.words


def fuse(
    segments: Sequence[Segment],
    fit: HybridFit | None,
    queries: QueryVectors,
    widened: Vectors,
    found: Iterable[Rows],
    k: int,
    filter: Filter | None,
) -> list[Fused]:
    """Hybrid answers; `widened` [n, 2k] and `found`, the best `depth_of(k)` rows, are the adaptive search's.

    Raises:
        InputError: the queries come without their texts, or the index was built without words.
    """
    if queries.texts is None:
        raise InputError(
            "hybrid search needs the queries' words, and these vectors come without them. "
            "Encode with QueryEncoder.encode, or give QueryVectors its texts."
        )
    answers = []
    for vector, text, rows in zip(widened, queries.texts, found, strict=True):
        candidates = gather(segments, vector, text, rows, depth_of(k), filter)
        weight = fit.weight if fit is not None and fit.fusion is Fusion.WEIGHTED else None
        scores = candidates.reciprocal_ranks() if weight is None else candidates.weighted(weight)
        best = candidates.best(scores, k)
        answers.append(Fused(candidates.rows[best], scores[best], candidates.words[best]))
    return answers


def depth_of(k: int) -> int:
    """Hits of each ranking that are fused for the best `k`."""
    return max(k, DEPTH)
