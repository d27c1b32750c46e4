"""Fitting the shares of words, text vectors and multimodal vectors (`smar.data.voices`) with frozen towers.

Each held-out pair of a query that is new to the towers is a small ranking: its item against the strongest others of
every voice, the query's other known items left out. (What is held out of known queries are pairs of held-out items
alone.) The shares are the linear functions under which the pairs' items have the
highest likelihood, softmax over scores at twice the towers' temperature. How much they may differ from query to query
(the penalty) is chosen by cross-validation over queries; an infinite penalty gives every query the same share of words,
and leaves the gate as it is. No test click is read.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from smar.core.settings import Settings
from smar.data.bm25 import Bm25
from smar.data.voices import FEATURES, Voices, most_typed, query_features
from smar.data.words import words
from smar.model.encoder import Encoder
from smar.training.batches import Pairs
from smar.training.heldout import FEWEST_QUERIES, Encoded
from smar.training.losses.contrastive import group_mean
from smar.training.losses.gate_scores import strongest_penalty
from smar.training.setup import TrainingData

RIVALS = 100
"""Strongest others of each voice that a pair's item is compared with."""
_MOST_PAIRS = 6_000
_PENALTIES = (1e-3, 1e-2, 1e-1, math.inf)
_FOLDS = 5
_SOFTER = 2.0  # than the towers' own: what counts are the first places, not the first place
_NEVER = 30.0  # logit of a voice that a model has not


@dataclass(frozen=True)
class Rankings:
    """Pairs as small rankings: `scores` [B, c, 3] of words, text, multimodal, the own item first, -9 for no item;
    `query` [B], place in `features` [q, 6]."""

    scores: Tensor
    query: Tensor
    features: Tensor

    def shared(self, shares: Tensor) -> Tensor:
        """Scores [B, c] under the shares [q, 3] of the queries."""
        return torch.einsum("bcv,bv->bc", self.scores, shares[self.query])

    def recall(self, shares: Tensor, k: int) -> Tensor:
        """Share of each query's items among the first `k` [q]; the rivals stand for the catalogue."""
        scores = self.shared(shares)
        found = (scores[:, 1:] > scores[:, :1]).sum(1) < k
        return group_mean(found.float(), self.query, len(self.features))


@dataclass(frozen=True)
class VoicesFit:
    """What was fitted, on how many pairs, and recall of held-out pairs: of each voice, of the two-way gate, of all.

    `recall_voices` is measured on queries that the shares were not fitted on.
    """

    voices: Voices
    pairs: int
    penalty: float
    recall_words: float
    recall_text: float
    recall_two_way: float
    recall_voices: float


def fit_voices(encoder: Encoder, data: TrainingData, settings: Settings, encoded: Encoded) -> VoicesFit:
    """Fit the shares of a trained model; its gate stays as it is."""
    index = Bm25.of_fields(data.fields, data.dataset.language)
    # words that no text holds may be someone's name
    own = ([word for word in words(query, index.language) if index.idf(word) < index.unit] for query in data.queries)
    typed = most_typed(own)
    pairs = of_new_queries(encoded.heldout, data)
    rows = np.unique(pairs.query)
    p = torch.from_numpy(encoder.encode_queries([encoded.queries[row] for row in rows])[1])
    rankings = _rankings(encoded, pairs, index, frozenset(typed), p)
    mean, scale = rankings.features.mean(0), rankings.features.std(0).clamp_min(1e-6)
    with torch.no_grad():
        temperature = _SOFTER * float(encoder.model.temperature())
    start, free = _start(encoder.config.kind, float(mean[0]), float(scale[0]))
    x = torch.cat([(rankings.features - mean) / scale, torch.ones(len(rankings.features), 1)], 1)
    task = _Task(rankings, x, start, free, temperature)
    fold = torch.from_numpy(np.random.default_rng(settings.train.seed).permutation(len(x)) % _FOLDS)
    tried = {penalty: task.crossed(fold, penalty) for penalty in _PENALTIES}
    penalty = strongest_penalty({penalty: losses for penalty, (losses, _) in tried.items()})
    weight = task.fit(torch.ones(len(x), dtype=torch.bool), penalty)
    voices = Voices(
        typed=tuple(typed),
        mean=tuple(mean.tolist()),
        scale=tuple(scale.tolist()),
        words=tuple(weight[0].tolist()),
        pictures=tuple(weight[1].tolist()),
    )
    one = torch.eye(3)
    ways = [
        one[0].expand(len(x), 3),
        one[1].expand(len(x), 3),
        torch.stack([0 * p, 1 - p, p], 1),
        tried[penalty][1],
    ]
    k = settings.evaluate.k
    return VoicesFit(voices, len(rankings.query), penalty, *(float(rankings.recall(way, k).mean()) for way in ways))


def of_new_queries(heldout: Pairs, data: TrainingData) -> Pairs:
    """Pairs whose query is new to the towers; all, where these are too few."""
    new = np.flatnonzero(~np.isin(heldout.query, data.pairs.query[data.rows]))
    few = len(np.unique(heldout.query[new])) < FEWEST_QUERIES
    kept = (np.arange(len(heldout)) if few else new)[:_MOST_PAIRS]
    return Pairs(heldout.query[kept], heldout.item[kept], heldout.weight[kept])


def _rankings(encoded: Encoded, pairs: Pairs, index: Bm25, typed: frozenset[str], pictures: Tensor) -> Rankings:
    """Held-out pairs as rankings; `pictures` is the gate's p of each of their distinct queries, ascending."""
    item = pairs.item
    rows, place = np.unique(pairs.query, return_inverse=True)
    scores = []
    features = query_features([encoded.queries[row] for row in rows], index, typed, pictures.numpy())
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(rows) + 1))
    for at, row in enumerate(rows):
        text = encoded.queries[row]
        voices = torch.stack(
            [
                torch.from_numpy(index.scores(text)) / index.unit,
                encoded.text @ encoded.embedding[row],
                encoded.multimodal @ encoded.embedding[row],
            ]
        )
        own = torch.from_numpy(item[order[starts[at] : starts[at + 1]]])
        liked = torch.from_numpy(encoded.known.of(np.array([row]))[1])
        rivals = voices.index_fill(1, torch.cat([liked, own]), -9.0)
        best = rivals.topk(min(RIVALS, rivals.shape[1]), dim=1).indices.flatten().unique()  # type: ignore[no-untyped-call]
        found = torch.full((len(own), 1 + 3 * RIVALS, 3), -9.0)
        found[:, 0] = voices[:, own].T
        found[:, 1 : 1 + len(best)] = rivals[:, best].T
        scores.append(found)
    return Rankings(torch.cat(scores), torch.from_numpy(place[order]), torch.from_numpy(features).float())


def _start(kind: str, mean: float, scale: float) -> tuple[Tensor, Tensor]:
    """Weights [2, features + 1] of words and pictures to begin with, and which of them may change (1).

    Pictures begin with the gate's own logit, whose `mean` and `scale` the feature was standardised by. A model with one
    vector an item has nothing to share among vectors.
    """
    start, free = torch.zeros(2, len(FEATURES) + 1), torch.ones(2, len(FEATURES) + 1)
    start[0, -1] = -1.0
    if kind == "smar":
        start[1, 0], start[1, -1] = scale, mean
    else:
        start[1, -1], free[1] = -_NEVER if kind == "dpsr" else _NEVER, 0.0
    return start, free


@dataclass(frozen=True)
class _Task:
    """What is fitted: `x` [q, features + 1], standardised, with a 1 for the bias; see `_start`."""

    rankings: Rankings
    x: Tensor
    start: Tensor
    free: Tensor
    temperature: float

    def losses(self, shares: Tensor) -> Tensor:
        """Mean loss of each query's pairs [q] under shares [q, 3]; 0 where a query has no pair."""
        scores = self.rankings.shared(shares) / self.temperature
        return group_mean(scores.logsumexp(1) - scores[:, 0], self.rankings.query, len(self.x))

    def crossed(self, fold: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
        """Losses [q] and shares [q, 3], those of each query fitted on the queries of the other folds."""
        shares = torch.empty(len(self.x), 3)
        for number in range(_FOLDS):
            weight = self.fit(fold != number, penalty)
            shares[fold == number] = _shares(self.x @ weight.T)[fold == number]
        return self.losses(shares), shares

    def fit(self, kept: Tensor, penalty: float) -> Tensor:
        """Weights [2, features + 1], by L-BFGS over the queries `kept` [q]; with an infinite penalty biases alone."""
        rows = kept[self.rankings.query].nonzero().squeeze(1)
        part = Rankings(self.rankings.scores[rows], self.rankings.query[rows], self.rankings.features)
        own, free = replace(self, rankings=part), self.free.clone()
        if math.isinf(penalty):
            free[:, :-1] = 0.0
        change = torch.zeros_like(self.start, requires_grad=True)
        solver = torch.optim.LBFGS([change], max_iter=50, line_search_fn="strong_wolfe")

        def step() -> Tensor:
            solver.zero_grad()
            moved = free * change
            loss = own.losses(_shares(self.x @ (self.start + moved).T))[kept].mean()
            if not math.isinf(penalty):
                loss = loss + penalty * moved[:, :-1].square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        solver.step(step)  # type: ignore[no-untyped-call]
        return (self.start + free * change).detach()


def _shares(logits: Tensor) -> Tensor:
    """As `Voices.shares`: logits [q, 2] of words and pictures -> shares [q, 3] of words, text, multimodal."""
    words, pictures = logits.sigmoid().unbind(1)
    return torch.stack([words, (1 - words) * (1 - pictures), (1 - words) * pictures], 1)
