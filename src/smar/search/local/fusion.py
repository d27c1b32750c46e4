"""Words and vectors together: the vectors' ranking and the words' ranking of one query made into one.

Adaptive search does it with the shares that the query's own gate gives (`smar.data.voices`), hybrid search alike for
all queries.

Candidates are the best `DEPTH` rows of either ranking (for hits after as many, `MAX_HITS`), in lists all that codes
propose for so many; vectors are read of those whose sum by codes is high. Two ways to score them:

    weighted          adaptive score + w * BM25 score / idf of a word that no item holds
    reciprocal-ranks  1 / (60 + rank) of each of the two rankings, added up

That idf is the most that one word can add to BM25, so w means the same in catalogues of all sizes, and neither filters
nor the other hits change an item's score. Divided by the idf of the query's own words instead, a model number counts no
more than a frequent word: asked by brand and a rare word of its title, an item was in the top ten for 53 % of 1,000
queries at the weight that clicks chose then, and is for 66 % now; by the vectors alone for 44 %.
w is fitted to clicks (`smar.search.local.fitting`); without clicks the ranks are taken, which need no scale.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from smar.core.errors import InputError
from smar.data.voices import Voices, features_of
from smar.data.words import words
from smar.search.column_values import Mask
from smar.search.expansion import Expansion
from smar.search.filters import Filter
from smar.search.local.fallback import Part, ask
from smar.search.local.postings import Entries, Postings, WordQuery, best_rows, word_scores
from smar.search.local.segment import Segment, around_of, top_of
from smar.search.local.word_index import WordIndex
from smar.search.protocol import MAX_HITS
from smar.search.query import QueryEncoder, QueryVectors
from smar.search.ranked import Found, Near, Queries, Query, Rows, Vectors, scored

DEPTH = 200
"""Hits of each ranking that are fused at least."""
RANK_OFFSET = 60
_READ = 3  # items for each hit that are scored exactly: codes err
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


def ask_all(
    segments: Sequence[Segment], texts: Sequence[str] | None, expansions: Sequence[Expansion | None] | None = None
) -> list[WordQuery]:
    """The words of some queries, with their synonyms.

    Raises:
        InputError: the queries come without their texts, or the index was built without words.
    """
    if texts is None:
        raise InputError(
            "hybrid search needs the queries' words, and these vectors come without them. "
            "Encode with QueryEncoder.encode, or give QueryVectors its texts."
        )
    parts = parts_of(segments)
    return [ask(parts, text, own) for text, own in zip(texts, expansions or [None] * len(texts), strict=True)]


def parts_of(segments: Sequence[Segment]) -> list[Part]:
    """The words of each segment; raises InputError where the index was built without words."""
    return [Part(_words(segment), segment.dead) for segment in segments]


def as_read(vectors: QueryVectors, asked: Sequence[WordQuery], encoder: QueryEncoder) -> QueryVectors:
    """The vectors of queries with the likeliest reading of each word that no item holds: towers misread such words."""
    places = [at for at, query in enumerate(asked) if query.readings]
    if not places or vectors.texts is None:
        return vectors
    texts = [asked[at].as_read(vectors.texts[at]) for at in places]
    if vectors.expansions is None:
        read = encoder.encode(texts)
    else:
        own = [vectors.expansions[at] for at in places]
        read = encoder.encode_expanded(
            texts, [each and asked[at].expansion_as_read(each) for at, each in zip(places, own, strict=True)]
        )
    embedding, probability = vectors.embedding.copy(), vectors.image_probability.copy()
    embedding[places], probability[places] = read.embedding, read.image_probability
    return replace(vectors, embedding=embedding, image_probability=probability)


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
    entries = [Entries.of(_words(segment), asked) for segment in segments]
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
    entries = [Entries.of(_words(segment), asked) for segment in segments]
    by_words, _ = _by_words(segments, entries, depth, filter, 0.0)
    together = Found.joined([found, _scored(segments, query, np.setdiff1d(by_words, found.rows))]).by_row()
    words = _scores(segments, entries, together.rows)
    ranks = [_ranks(together.rows, ranking) for ranking in (found.rows, by_words)]
    return Candidates(together, words, ranks[0], ranks[1], asked.unit)


def words_scores(segments: Sequence[Segment], asked: WordQuery, rows: Rows) -> Vectors:
    """BM25 scores of ascending `rows` of the index for one query."""
    return _scores(segments, [Entries.of(_words(segment), asked) for segment in segments], rows)


def words_held(segments: Sequence[Segment], asked: WordQuery, rows: Rows) -> Mask:
    """Which words of a query, or what stands in for them, each of ascending `rows` of the index holds [words, n]."""
    parts = [
        np.array(
            [word.of(own.astype(np.int32)) > 0 for word in Entries.of(_words(segment), asked).words], np.bool_
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


def _words(segment: Segment) -> Postings:
    if segment.words is None:
        raise InputError(
            "this index was built without words, so it cannot be searched with mode hybrid. Run `smar index` again "
            "on the embeddings, or `smar index INDEX --compact`."
        )
    return segment.words


def blend_of(fit: HybridFit | None) -> Blend | None:
    """How hybrid search scores; None where it adds up reciprocal ranks."""
    return Blend(1.0, fit.weight) if fit is not None and fit.fusion is Fusion.WEIGHTED else None


def voices_of(
    segments: Sequence[Segment], vectors: QueryVectors, asked: Sequence[WordQuery], voices: Voices
) -> tuple[list[Blend], Vectors]:
    """Shares of words and vectors, and w of the multimodal score among the vectors [n], of queries as they are read."""
    base = segments[0].words
    assert isinstance(base, WordIndex)
    assert vectors.texts is not None
    read = [
        words(query.as_read(text), base.language) if query.readings else query.order
        for query, text in zip(asked, vectors.texts, strict=True)
    ]
    probability = vectors.image_probability.tolist()
    features = [features_of(own, base, voices.known, one) for own, one in zip(read, probability, strict=True)]
    shares = [voices.of(each) for each in features]
    blends = [Blend(text + picture, word) for word, text, picture in shares]
    return blends, np.array([picture / max(text + picture, 1e-12) for _, text, picture in shares], np.float32)


def fuse(
    segments: Sequence[Segment],
    blends: Sequence[Blend | None],
    queries: Queries,
    asked: Sequence[WordQuery],
    k: int,
    filter: Filter | None,
) -> list[tuple[Found, Vectors]]:
    """The best `k` of each query by fused score, and their BM25 scores; by reciprocal ranks where a blend is None.

    The first `DEPTH` are the same whatever `k` is, and those after them do not depend on it: the rest of what as many
    candidates as can be shown give, so that pages neither repeat an item nor lack one.
    """
    first = _fused(segments, blends, queries, asked, min(k, DEPTH), DEPTH, filter)
    if k <= DEPTH or all(len(found) < DEPTH for found, _ in first):
        return first
    deep = _fused(segments, blends, queries, asked, MAX_HITS, MAX_HITS, filter)
    return [_continued(own, further, k) for own, further in zip(first, deep, strict=True)]


def _continued(first: tuple[Found, Vectors], deep: tuple[Found, Vectors], k: int) -> tuple[Found, Vectors]:
    (begin, words), (further, further_words) = first, deep
    new = np.flatnonzero(~np.isin(further.rows, begin.rows))[: k - len(begin)]
    return Found.joined([begin, further.pick(new)]), np.concatenate([words, further_words[new]])


def _fused(
    segments: Sequence[Segment],
    blends: Sequence[Blend | None],
    queries: Queries,
    asked: Sequence[WordQuery],
    k: int,
    depth: int,
    filter: Filter | None,
) -> list[tuple[Found, Vectors]]:
    if None not in blends:
        near = around_of(segments, queries, depth, filter)
        return [
            summed(segments, queries[at], own, near[at], depth, filter, blend, k)
            for at, (own, blend) in enumerate(zip(asked, blends, strict=True))
            if blend is not None
        ]
    answers, found = [], top_of(segments, queries, depth, filter)
    for at, own in enumerate(asked):
        candidates = gather(segments, queries[at], own, found[at], depth, filter)
        scores = candidates.reciprocal_ranks()
        best = candidates.best(scores, k)
        items = replace(candidates.found.pick(best), score=scores[best].astype(np.float32))
        answers.append((items, candidates.words[best]))
    return answers
