"""Where a query of an index is cut off: its scores as `smar.search.local.cutoff` reads them."""

from collections.abc import Sequence
from math import log1p

import numpy as np

from smar.core.errors import InputError
from smar.search.local.candidates import words_held, words_scores
from smar.search.local.cutoff import HEAD, LEAST, Cut, Measured, ModeCutoff
from smar.search.local.open_version import EmbeddedIndex, Prepared
from smar.search.local.postings import WordQuery
from smar.search.protocol import Mode
from smar.search.query import QueryVectors
from smar.search.ranked import Ranked, scored

_SAMPLE = 1024
_WORDED = 10
_CERTAIN = 1e-4


def check_cutoff(index: EmbeddedIndex, mode: Mode) -> ModeCutoff:
    """The cut-off of a mode; raises InputError where the index has none."""
    cutoff = index.manifest.cutoff
    fit = None if cutoff is None else cutoff.modes.get(mode)
    if fit is None:
        why = "it was built before there was one" if cutoff is None else cutoff.refused.get(mode, "it was not fitted")
        raise InputError(f"cutoff: this index has no cut-off for mode {mode}: {why}. Ask without cutoff.")
    return fit


def cuts(index: EmbeddedIndex, vectors: QueryVectors, mode: Mode, found: Sequence[Ranked]) -> list[Cut]:
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


def measure(index: EmbeddedIndex, vectors: QueryVectors, mode: Mode, found: Sequence[Ranked]) -> Measured:
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
    deviation = np.maximum(deviation, LEAST)
    gate = np.clip(vectors.image_probability.astype(np.float64), _CERTAIN, 1 - _CERTAIN)
    parts = [best, (best - mean) / deviation, (best - tenth) / deviation, (best - last) / deviation, *others[:2]]
    return Measured(mean, deviation, best, np.stack([*parts, np.log(gate / (1 - gate)), others[2]], axis=1))


def _background(index: EmbeddedIndex, asked: Prepared, at: int) -> tuple[float, float]:
    """Mean and deviation of a query's scores over a sample of the version's items."""
    base = index.segments[:1]
    rows = index.sample(_SAMPLE)
    scores = scored(base[0].store.vectors, asked.queries[at], rows).score.astype(np.float64)
    blend = asked.blends[at] if asked.words is not None else None
    if blend is not None and asked.words is not None:
        scores = blend.sums(scores.astype(np.float32), words_scores(base, asked.words[at], rows), asked.words[at].unit)
    return float(scores.mean()), float(scores.std())


def _features(index: EmbeddedIndex, words: WordQuery, text: str, found: Ranked) -> tuple[float, ...]:
    """Best, 10th and 50th score, share of the words that a hit holds and that none does, length."""
    score = found.score[:HEAD].tolist()
    weight = np.array([count * index.idf(word) for word, count in words.counts.items()])
    share = weight @ words_held(index.segments, words, np.sort(found.rows[:_WORDED])) / max(weight.sum(), LEAST)
    tenth = score[min(_WORDED, len(score)) - 1]
    return score[0], tenth, score[-1], float(share.max()), index.unheld(text), log1p(len(words.order))
