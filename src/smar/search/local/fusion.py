"""Words and vectors together: the vectors' ranking and the words' ranking of one query made into one.

Adaptive search does it with the shares that the query's own gate gives (`smar.data.voices`), hybrid search alike for
all queries.

Candidates are the best `DEPTH` rows of either ranking (for hits after as many, `MAX_HITS`), in lists all that codes
propose for so many; vectors are read of those whose sum by codes is high. Two ways to score them:

    weighted          adaptive score + w * BM25 score / idf of a word that no item holds
    reciprocal-ranks  1 / (60 + rank) of each of the two rankings, added up

That idf is the most that one word can add to BM25, so w means the same in catalogues of all sizes, and neither filters
nor the other hits change an item's score. Divided by the idf of the query's own words instead, a model number counts no
more than a frequent word (0010 in docs/decisions has the figures).
w is fitted to clicks (`smar.search.local.fitting`); without clicks the ranks are taken, which need no scale.
"""

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from smar.core.errors import InputError
from smar.data.voices import Voices, features_of
from smar.data.words import words
from smar.search.expansion import Expansion
from smar.search.filters import Filter
from smar.search.local.candidates import Blend, gather, summed, words_in
from smar.search.local.fallback import Part, ask
from smar.search.local.postings import WordQuery
from smar.search.local.segment import Segment, around_of, top_of
from smar.search.local.word_index import WordIndex
from smar.search.protocol import MAX_HITS
from smar.search.query import QueryEncoder, QueryVectors
from smar.search.ranked import Found, Queries, Vectors

DEPTH = 200
"""Hits of each ranking that are fused at least."""


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
    return [Part(words_in(segment), segment.dead) for segment in segments]


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
