"""Hybrid search: the vectors' ranking and the words' ranking of one query made into one.

Candidates are the best `DEPTH` rows (`k`, where that is more) of either ranking. Two ways to score them:

    weighted          adaptive score + w * BM25 score / idf of a word that no item holds
    reciprocal-ranks  1 / (60 + rank) of each of the two rankings, added up

That idf is the most that one word can add to BM25, so w means the same in catalogues of all sizes, and neither filters
nor the other hits change an item's score. Divided by the idf of the query's own words instead, a model number counts no
more than a frequent word: asked by brand and a rare word of its title, an item was in the top ten for 53 % of 1,000
queries at the weight that clicks chose then, and is for 66 % now; by the vectors alone for 44 %.
w is fitted to clicks (`smar.index.fitting`); without clicks the ranks are taken, which need no scale.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from smar.errors import InputError
from smar.index.fallback import Part, ask
from smar.index.filters import Filter
from smar.index.postings import Entries, Postings, WordQuery, best_rows, word_scores
from smar.index.query import QueryEncoder, QueryVectors
from smar.index.ranked import Found, Queries, Query, Rows, Vectors, exact_best
from smar.index.segment import Segment

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
    language: str | None = Field(None, description="whose stemmer shortens words, None for none")
    mean_length: float = Field(ge=0, description="words of an item's text")
    fusion: Fusion = Fusion.RANKS
    weight: float = Field(0.0, ge=0, description="w of the weighted fusion")
    recall: FusionRecall | None = Field(None, description="None where there are no validation clicks")


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


def ask_all(segments: Sequence[Segment], texts: Sequence[str] | None) -> list[WordQuery]:
    """The words of some queries.

    Raises:
        InputError: the queries come without their texts, or the index was built without words.
    """
    if texts is None:
        raise InputError(
            "hybrid search needs the queries' words, and these vectors come without them. "
            "Encode with QueryEncoder.encode, or give QueryVectors its texts."
        )
    parts = [Part(_words(segment), segment.dead) for segment in segments]
    return [ask(parts, text) for text in texts]


def as_read(vectors: QueryVectors, asked: Sequence[WordQuery], encoder: QueryEncoder) -> QueryVectors:
    """The vectors of queries with the likeliest reading of each word that no item holds: towers misread such words."""
    places = [at for at, query in enumerate(asked) if query.readings]
    if not places or vectors.texts is None:
        return vectors
    read = encoder.encode([asked[at].as_read(vectors.texts[at]) for at in places])
    embedding, probability = vectors.embedding.copy(), vectors.image_probability.copy()
    embedding[places], probability[places] = read.embedding, read.image_probability
    return replace(vectors, embedding=embedding, image_probability=probability)


def gather(
    segments: Sequence[Segment], query: Query, asked: WordQuery, found: Found, depth: int, filter: Filter | None
) -> Candidates:
    """The candidates of one query.

    Args:
        segments: the base and what changed since; rows of the index count through them.
        query: as the vectors are searched with it.
        asked: its words.
        found: the adaptive ranking.
        depth: items to take of the words' ranking.
        filter: which items may be found.
    """
    entries = [Entries.of(_words(segment), asked) for segment in segments]
    by_words = _by_words(segments, entries, depth, filter)
    further = np.setdiff1d(by_words, found.rows)
    scored = [
        exact_best(segment.store.vectors, query, own, len(own)).moved(segment.first_row)
        for segment, own in _split(segments, further)
        if len(own)
    ]
    together = Found.joined([found, *scored])
    together = together.pick(np.argsort(together.rows))
    words = [word_scores(held, own) for held, (_, own) in zip(entries, _split(segments, together.rows), strict=True)]
    ranks = [_ranks(together.rows, ranking) for ranking in (found.rows, by_words)]
    return Candidates(together, np.concatenate(words), ranks[0], ranks[1], asked.unit)


def _split(segments: Sequence[Segment], rows: Rows) -> Iterator[tuple[Segment, Rows]]:
    """Each segment with its own ones among ascending `rows`, counted from its `first_row`."""
    starts = np.searchsorted(rows, [*(segment.first_row for segment in segments), np.iinfo(np.int64).max])
    for at, segment in enumerate(segments):
        yield segment, rows[starts[at] : starts[at + 1]] - segment.first_row


def _by_words(segments: Sequence[Segment], entries: Sequence[Entries], depth: int, filter: Filter | None) -> Rows:
    """Rows of the index with the `depth` highest BM25 scores, best first."""
    rows, scores = [], []
    for segment, held in zip(segments, entries, strict=True):
        allowed = segment.allowed(filter)
        own = best_rows(held, depth, None if allowed is None else allowed.mask)
        rows.append(own + segment.first_row)
        scores.append(word_scores(held, own))
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
    queries: Queries,
    asked: Sequence[WordQuery],
    found: Sequence[Found],
    k: int,
    filter: Filter | None,
) -> list[tuple[Found, Vectors]]:
    """The best `k` of each query by fused score, and their BM25 scores.

    `found` are the best `depth_of(k)` items of the adaptive ranking.
    """
    weight = fit.weight if fit is not None and fit.fusion is Fusion.WEIGHTED else None
    answers = []
    for at, words in enumerate(asked):
        candidates = gather(segments, queries[at], words, found[at], depth_of(k), filter)
        scores = candidates.reciprocal_ranks() if weight is None else candidates.weighted(weight)
        best = candidates.best(scores, k)
        items = replace(candidates.found.pick(best), score=scores[best].astype(np.float32))
        answers.append((items, candidates.words[best]))
    return answers


def depth_of(k: int) -> int:
    """Hits of each ranking that are fused for the best `k`."""
    return max(k, DEPTH)
