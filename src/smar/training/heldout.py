"""Pairs that the towers never saw, scored against the catalogue: what the gate is fitted to."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from smar.core.errors import InputError
from smar.core.progress import console
from smar.core.settings import Settings
from smar.model.encoder import Encoder
from smar.model.tokens import Ints
from smar.training.batches import KnownPositives, Pairs
from smar.training.losses.gate_scores import margin, mix
from smar.training.setup import TrainingData

FEWEST_QUERIES = 20
"""With fewer held-out queries nothing is fitted."""


@dataclass(frozen=True)
class Scored:
    """Pairs and their strongest rivals in the catalogue; the query's other known items are no rivals.

    query: row of each pair's query [B]; item [B] and rivals [B, c]: catalogue rows; own, text, multimodal: as `mix`
    takes them, -9 where a rival stands twice.
    """

    query: Tensor
    item: Tensor
    rivals: Tensor
    own: Tensor
    text: Tensor
    multimodal: Tensor
    k: int

    def margins(self, share: Tensor, others: Tensor | None = None) -> Tensor:
        """Margins [B] under the soft score: `share` as `mix` takes it, `others` the same where the query decides."""
        others = share[:, None] if others is None else others
        return margin(*mix(self.own, self.text, self.multimodal, share, others), self.k)

    def constant(self, share: float) -> Tensor:
        """Margins [B] with one p for all."""
        return self.margins(torch.full((len(self.query),), share))

    def distinct(self) -> tuple[Tensor, Tensor]:
        """Rows of the distinct queries, ascending, and each pair's place among them [B]."""
        queries, query = np.unique(self.query.numpy(), return_inverse=True)
        return torch.from_numpy(queries), torch.from_numpy(query)


def score_pairs(
    pairs: Pairs, known: KnownPositives, embedding: Tensor, text: Tensor, multimodal: Tensor, k: int, block: int = 256
) -> Scored:
    """Score pairs against the whole catalogue; keep the 3 k strongest rivals under each of the two vectors."""
    kept: list[tuple[Tensor, ...]] = []
    depth, everything = min(3 * k, len(text)), np.arange(len(text))
    for start in range(0, len(pairs), block):
        query, item = pairs.query[start : start + block], torch.from_numpy(pairs.item[start : start + block])
        rows, pair = np.unique(query, return_inverse=True)
        liked = torch.from_numpy(known.blocked(rows, everything, len(text))[pair])
        liked[torch.arange(len(item)), item] = True
        scores = [embedding[query] @ vectors.T for vectors in (text, multimodal)]
        own = torch.stack([score.gather(1, item[:, None])[:, 0] for score in scores], 1)
        by_text, by_both = (score.masked_fill_(liked, -9).topk(depth, 1) for score in scores)
        rivals = torch.cat([by_text.indices, by_both.indices], 1)
        at_text, at_both = (score.gather(1, rivals) for score in scores)
        twice = at_text >= by_text.values[:, -1:]
        twice[:, :depth] = False
        kept.append((item, rivals, own, at_text.masked_fill(twice, -9), at_both.masked_fill(twice, -9)))
    item, rivals, own, at_text, at_both = (torch.cat(column) for column in zip(*kept, strict=True))
    return Scored(torch.from_numpy(pairs.query), item, rivals, own, at_text, at_both, k)


@dataclass(frozen=True)
class Encoded:
    """The catalogue and the queries of a trained model: `text`, `multimodal` [n, k], `embedding` [q, k] of `queries`;
    pairs that the towers never saw, in random order; every query's known items."""

    text: Tensor
    multimodal: Tensor
    embedding: Tensor
    queries: list[str]
    heldout: Pairs
    known: KnownPositives


@dataclass(frozen=True)
class Evidence:
    """Everything a fit needs: features [q, h] of the queries, the validation pairs and the held-out ones, scored."""

    features: Tensor
    valid: Scored
    heldout: Scored
    category: Tensor | None  # of each item
    encoded: Encoded | None = None


def gather(encoder: Encoder, data: TrainingData, settings: Settings) -> Evidence | None:
    """Encode and score; None, said aloud, where too few pairs are held out."""
    valid, fold, heldout, queries, known = _pairs(data, settings)
    if len(np.unique(heldout.query)) < FEWEST_QUERIES:
        console.print(
            f"gate: fewer than {FEWEST_QUERIES} queries have a pair that is not in training, so it stays as "
            "stage 2 trains it; a longer log, data.valid_share or train.gate.holdout gives more.",
            soft_wrap=True,
        )
        return None
    vectors = list(encoder.encode_items(data.fields, data.dataset.images, data.dataset.image_row))
    text, both = (torch.from_numpy(np.concatenate([getattr(v, n) for v in vectors])) for n in ("text", "multimodal"))
    if encoder.config.kind == "smar":
        embedding, features = encoder.gate_features(queries)
    else:
        embedding = torch.from_numpy(encoder.encode_queries(queries)[0])
        features = embedding[:, :0]
    level = _join(valid, fold)
    scored = [score_pairs(part, known, embedding, text, both, settings.evaluate.k) for part in (level, heldout)]
    order = np.random.default_rng(settings.train.seed).permutation(len(heldout))
    encoded = Encoded(text, both, embedding, queries, _take(heldout, order), known)
    return Evidence(features, scored[0], scored[1], _categories(data, settings), encoded)


def _pairs(data: TrainingData, settings: Settings) -> tuple[Pairs, Pairs, Pairs, list[str], KnownPositives]:
    """Validation pairs; the fold; held-out pairs: of both, those new to training and to the runs before it; queries;
    known positives.
    """
    table = data.dataset.pairs("valid")
    row = {query: number for number, query in enumerate(data.queries)}
    texts = table["query"].to_pylist()
    for text in texts:
        row.setdefault(text, len(row))
    weight = table["weight"].to_numpy().astype(np.float32)
    valid = Pairs(np.array([row[t] for t in texts], np.int64), table["item_index"].to_numpy().astype(np.int64), weight)
    new = ~table["seen_in_train"].to_numpy(zero_copy_only=False).astype(bool)
    known = KnownPositives(_join(data.pairs, valid), len(row))
    fold = _take(data.pairs, np.setdiff1d(np.arange(len(data.pairs)), data.rows))
    names = list(row)
    new &= ~np.isin(data.keys_of(valid.query, valid.item, names), data.before.pairs)
    fold = _take(fold, np.flatnonzero(~np.isin(data.keys_of(fold.query, fold.item, names), data.before.pairs)))
    heldout = _join(_take(valid, np.flatnonzero(new)), fold)
    rng, most = np.random.default_rng(settings.train.seed), settings.train.gate.max_pairs
    valid, fold, heldout = (_take(part, np.sort(rng.permutation(len(part))[:most])) for part in (valid, fold, heldout))
    return valid, fold, heldout, names, known


def _take(pairs: Pairs, rows: Ints) -> Pairs:
    return Pairs(pairs.query[rows], pairs.item[rows], pairs.weight[rows])


def _join(a: Pairs, b: Pairs) -> Pairs:
    return Pairs(*(np.concatenate([getattr(a, n), getattr(b, n)]) for n in ("query", "item", "weight")))


def _categories(data: TrainingData, settings: Settings) -> Tensor | None:
    """Number of each item's category in the alphabet, where the settings ask for it."""
    if settings.train.gate.mode != "category" and settings.model.gate != "category":
        return None
    if "category" not in settings.data.text_fields:
        raise InputError(
            "model.gate=category and train.gate.mode=category need the item column category in text_fields"
        )
    names = data.dataset.fields(["category"])[0]
    return torch.from_numpy(np.unique(np.asarray(names, dtype=object), return_inverse=True)[1])
