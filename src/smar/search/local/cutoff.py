"""Where the hits of a query stop being relevant: a score of its own for each query, below which nothing is shown.

Two logistic functions say so. Of what is known of a query and its best hits (`FEATURES`): whether anything here answers
it at all. Of the same and of a hit's score s: whether it is relevant, by

    score    (s - mean) / deviation, of the query's scores over a sample of the catalogue
    lead     (s - mean) / (best - mean), how much of the best hit's lead it has

Both grow with s, so the odds pass one at one score: the cut-off. `smar.search.local.cutoff_fit` fits the functions to
validation clicks and made-up queries.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log1p
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from smar.core.errors import InputError
from smar.search.local.fusion import words_held, words_scores
from smar.search.local.postings import WordQuery
from smar.search.protocol import Mode, Ranked
from smar.search.query import QueryVectors
from smar.search.ranked import scored

if TYPE_CHECKING:
    from smar.search.local.open_version import EmbeddedIndex, Prepared

FEATURES = ("best", "outstanding", "drop", "further", "words", "unheld", "pictures", "length")
"""Best score; its distance from the mean; how far the 10th and the 50th lie below it, in deviations; the most of the
query's words, by rarity, that one of the ten best hits holds; share of words that no item holds; the gate's logit;
number of words."""
HEAD = 50
"""Hits that `FEATURES` are made of."""
_SAMPLE = 1024
_WORDED = 10
_CERTAIN = 1e-4
_LEAST = 1e-6
Floats = npt.NDArray[np.float64]


class ModeCutoff(BaseModel):
    """The functions of one mode, and what they are worth, measured on queries that they were not fitted on.

    `answered` are weights of `FEATURES` and a bias; `score`, `lead`, `weights` and `bias` are those of a hit.

    `precision`: of the queries of which a hit stays, in an even mix of the log's and of made-up ones, the share that
    were the log's. `recall`: of the log's queries the share of which a hit stays. `kept`: of their clicked hits the
    share that stays. `hits`: the median of how many stay.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    answered: tuple[float, ...] = Field(min_length=len(FEATURES) + 1, max_length=len(FEATURES) + 1)
    score: float = Field(ge=0)
    lead: float = Field(ge=0)
    weights: tuple[float, ...] = Field(min_length=len(FEATURES), max_length=len(FEATURES))
    bias: float
    precision: float
    recall: float
    kept: float
    hits: float


class Cutoff(BaseModel):
    """The cut-offs of a version by mode; `refused` says why others have none. Fitted to so many validation queries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queries: int
    modes: dict[Mode, ModeCutoff] = {}
    refused: dict[Mode, str] = {}


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a query was cut off, with the precision of `ModeCutoff`: at a score; None where nothing answers it."""

    score: float | None
    precision: float


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Of each query: `mean` and `deviation` of its scores over the catalogue, its `best` score [n], features [n, 8]."""

    mean: Floats
    deviation: Floats
    best: Floats
    features: Floats

    def answered(self, fit: ModeCutoff) -> Floats:
        """Log odds that anything answers each query [n]."""
        odds: Floats = self.features @ np.array(fit.answered[:-1]) + fit.answered[-1]
        return odds

    def line(self, fit: ModeCutoff) -> tuple[Floats, Floats]:
        """Level and slope [n] of the log odds, which are level + slope * (s - mean)."""
        lead = np.maximum(self.best - self.mean, _LEAST)
        return fit.bias + self.features @ np.array(fit.weights), fit.score / self.deviation + fit.lead / lead


def check_cutoff(index: "EmbeddedIndex", mode: Mode) -> ModeCutoff:
    """The cut-off of a mode; raises InputError where the index has none."""
    cutoff = index.manifest.cutoff
    fit = None if cutoff is None else cutoff.modes.get(mode)
    if fit is None:
        why = "it was built before there was one" if cutoff is None else cutoff.refused.get(mode, "it was not fitted")
        raise InputError(f"cutoff: this index has no cut-off for mode {mode}: {why}. Ask without cutoff.")
    return fit


def cuts(index: "EmbeddedIndex", vectors: QueryVectors, mode: Mode, found: Sequence[Ranked]) -> list[Cut]:
    """Where each query is cut off.

    Args:
        index: what is searched.
        vectors: the queries, with their texts.
        mode: how it is searched.
        found: what each finds without a filter, `HEAD` hits or more.

    Raises:
        InputError: the index has no cut-off for this mode.
    """
    fit = check_cutoff(index, mode)
    measured = measure(index, vectors, mode, found)
    level, slope = measured.line(fit)
    scores = np.minimum(measured.mean - level / slope, measured.best)  # the best hit stays, if any
    each = zip(scores.tolist(), measured.answered(fit) >= 0, strict=True)
    return [Cut(score if answered else None, fit.precision) for score, answered in each]


def above(found: Ranked, cut: Cut) -> Ranked:
    """The hits that are not below a cut-off; they are the first ones."""
    return found.pick(np.arange(0 if cut.score is None else np.count_nonzero(found.score >= np.float32(cut.score))))


def measure(index: "EmbeddedIndex", vectors: QueryVectors, mode: Mode, found: Sequence[Ranked]) -> Measured:
    """What the log odds of some queries' hits are made of; see `cuts`."""
    texts = vectors.texts
    asked = index.prepared(vectors, mode)
    words = index.words(texts) if asked.words is None else asked.words
    assert texts is not None
    rows = [
        (*_background(index, asked, at), *_features(index, own, text, each))
        for at, (own, text, each) in enumerate(zip(words, texts, found, strict=True))
    ]
    mean, deviation, best, tenth, last, *others = np.array(rows, np.float64).reshape(len(rows), -1).T
    deviation = np.maximum(deviation, _LEAST)
    gate = np.clip(vectors.image_probability.astype(np.float64), _CERTAIN, 1 - _CERTAIN)
    parts = [best, (best - mean) / deviation, (best - tenth) / deviation, (best - last) / deviation, *others[:2]]
    return Measured(mean, deviation, best, np.stack([*parts, np.log(gate / (1 - gate)), others[2]], axis=1))


def _background(index: "EmbeddedIndex", asked: "Prepared", at: int) -> tuple[float, float]:
    """Mean and deviation of a query's scores over a sample of the version's items."""
    base = index.segments[:1]
    rows = index.sample(_SAMPLE)
    scores = scored(base[0].store.vectors, asked.queries[at], rows).score.astype(np.float64)
    blend = asked.blends[at] if asked.words is not None else None
    if blend is not None and asked.words is not None:
        scores = blend.sums(scores.astype(np.float32), words_scores(base, asked.words[at], rows), asked.words[at].unit)
    return float(scores.mean()), float(scores.std())


def _features(index: "EmbeddedIndex", words: WordQuery, text: str, found: Ranked) -> tuple[float, ...]:
    """Best, 10th and 50th score, share of the words that a hit holds and that none does, length."""
    score = found.score[:HEAD].tolist()
    weight = np.array([count * index.idf(word) for word, count in words.counts.items()])
    share = weight @ words_held(index.segments, words, np.sort(found.rows[:_WORDED])) / max(weight.sum(), _LEAST)
    tenth = score[min(_WORDED, len(score)) - 1]
    return score[0], tenth, score[-1], float(share.max()), index.unheld(text), log1p(len(words.order))
