"""Scores of the whole catalogue, block by block of queries, and what is kept of them: rankings and places.

A model's score is `p f_m + (1 - p) f_t` (docs/paper.md, "training P"): always text is p = 0, always multimodal p = 1,
routing p in {0, 1}. The two inner products of a block are computed once for all values of p that a report looks at.
Memory: a block of `BLOCK` queries x items, a few times over; nothing else grows with queries x items.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch

from smar.data.bm25 import Bm25
from smar.evaluation.metrics import Integers, Relevance
from smar.model.encoder import Floats

BLOCK = 128
"""Queries scored at once, which bounds the memory."""
DEPTH = 100
"""Hits ranked for every query at least; MRR looks no further."""
_PAIRS = 64
"""Pairs whose place is counted at once: as many rows of scores are copied."""

Blocks = Iterator[tuple[int, Mapping[str, Floats]]]
"""First query of a block, and model name -> scores [b, items]; -inf marks an item that is not retrieved."""


@dataclass(frozen=True)
class Catalogue:
    """Vectors of all items: `text`, `image`, `multimodal`, each float32 [n, k]."""

    text: Floats
    image: Floats
    multimodal: Floats

    def pictures_only(self) -> "Catalogue":
        """The items as their pictures alone show them, whatever the gate says."""
        return Catalogue(self.image, self.image, self.image)

    def cut(self, dim: int | None) -> "Catalogue":
        """The first `dim` numbers of every vector (see `shortened`)."""
        text, image = shortened(self.text, dim), shortened(self.image, dim)
        return Catalogue(text, image, text if self.multimodal is self.text else shortened(self.multimodal, dim))


def shortened(vectors: Floats, dim: int | None) -> Floats:
    """First `dim` numbers of unit vectors [n, k], of unit length again; all of them when `dim` is None."""
    if dim is None or dim >= vectors.shape[1]:
        return vectors
    short = vectors[:, :dim]
    return np.asarray(short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12), dtype=np.float32)


@dataclass(frozen=True)
class Task:
    """What every model is asked.

    relevance: the judgements; k: the report's cut-off; depth: hits to rank; pairs: entries of `relevance`,
    ascending, whose `places` are asked; dim: leading numbers of each vector to score by (None: all).
    """

    relevance: Relevance
    k: int
    depth: int
    pairs: Integers
    dim: int | None = None


@dataclass(frozen=True)
class Rankings:
    """What a model made of the queries.

    ranking: item rows by falling score [n_queries, depth], -1 where fewer were retrieved.
    places: place from 1 of each pair of the task once the query's other relevant items are taken out, [pairs].
    """

    ranking: Integers
    places: Integers


def mix(p: Floats, text: Floats, multimodal: Floats) -> Floats:
    """The soft score of `text` and `multimodal` scores [b, n]; p is [b, 1] (per query), [1, n] (per item) or [b, n]."""
    return p * multimodal + (1 - p) * text


@dataclass(frozen=True)
class Voiced:
    """Words beside the vectors (`smar.data.voices`): `shares` [n_queries, 3] of the `queries`, and BM25 over items."""

    shares: npt.NDArray[np.float64]
    queries: Sequence[str]
    index: Bm25

    def blend(self, part: slice, text: Floats, multimodal: Floats) -> Floats:
        """Scores of some queries under their shares: text and multimodal scores [b, n] -> [b, n]."""
        words = np.stack([self.index.scores(query) for query in self.queries[part]]) / np.float32(self.index.unit)
        share = self.shares[part].astype(np.float32)[:, :, None]
        scores: Floats = share[:, 0] * words + share[:, 1] * text + share[:, 2] * multimodal
        return scores


def mixed_blocks(
    query: Floats,
    catalogue: Catalogue,
    gates: Mapping[str, Floats],
    voiced: Mapping[str, Voiced] = MappingProxyType({}),
    size: int = BLOCK,
) -> Blocks:
    """Scores of one encoder under several gates.

    Args:
        query: unit vectors [n_queries, k].
        catalogue: of the same encoder.
        gates: model name -> p, [n_queries, 1] or [1, n] (see `mix`).
        voiced: model name -> shares of words and vectors.
        size: queries in a block.
    """
    for start in range(0, len(query), size):
        part = query[start : start + size]
        text = part @ catalogue.text.T
        same = catalogue.multimodal is catalogue.text
        multimodal = text if same else part @ catalogue.multimodal.T
        rows = {name: p[start : start + size] if len(p) > 1 else p for name, p in gates.items()}
        block = {name: text if same else mix(p, text, multimodal) for name, p in rows.items()}
        own = slice(start, start + size)
        yield start, block | {name: each.blend(own, text, multimodal) for name, each in voiced.items()}


def rank(block: Floats, depth: int) -> Integers:
    """Item rows by falling score, ties among the kept by row: scores [b, n] -> [b, depth], -1 for -inf."""
    # five times as fast as numpy's argpartition over 44,000 items
    found = torch.topk(torch.from_numpy(block), min(depth, block.shape[1]), dim=1, sorted=False)
    top = np.sort(found.indices.numpy(), axis=1)
    values = np.take_along_axis(block, top, 1)
    order = np.argsort(-values, axis=1, kind="stable")
    retrieved = np.take_along_axis(values, order, 1) > -np.inf
    return np.where(retrieved, np.take_along_axis(top, order, 1), -1)


def places(block: Floats, first: int, relevance: Relevance, pairs: Integers) -> Integers:
    """Place from 1 of relevant items in the ranking without the query's *other* relevant items, ties by row.

    So every wanted item competes with wrong ones only: a query with 600 fitting items can still find a hidden one
    in its top 50.

    Args:
        block: scores [b, n] of the queries from number `first` on.
        first: see block.
        relevance: of all queries.
        pairs: entries of `relevance`, all of queries in the block.

    Returns:
        [pairs]; n + 1 for an item that was not retrieved.
    """
    n = block.shape[1]
    offsets = relevance.offsets[first : first + len(block) + 1]
    rows = np.repeat(np.arange(len(block)), np.diff(offsets))
    items = relevance.items[offsets[0] : offsets[-1]]
    at_row, at_item = rows[pairs - offsets[0]], relevance.items[pairs]
    own = block[at_row, at_item]
    wrong = block.copy()
    wrong[rows, items] = -np.inf
    found = np.full(len(pairs), n + 1, dtype=np.int64)
    for start in range(0, len(pairs), _PAIRS):
        part = slice(start, start + _PAIRS)
        score, others = own[part, None], wrong[at_row[part]]
        before = np.count_nonzero(others > score, axis=1)
        ties = np.count_nonzero((others == score) & (np.arange(n) < at_item[part, None]), axis=1)
        found[part] = np.where(own[part] > -np.inf, 1 + before + ties, n + 1)
    return found


def rank_blocks(blocks: Blocks, task: Task) -> dict[str, Rankings]:
    """Rank every block of scores for every model in it."""
    query = task.relevance.query[task.pairs]
    ranked: dict[str, list[Integers]] = {}
    placed: dict[str, list[Integers]] = {}
    for first, scores in blocks:
        for name, block in scores.items():
            ranked.setdefault(name, []).append(rank(block, task.depth))
            inside = np.searchsorted(query, [first, first + len(block)])
            found = places(block, first, task.relevance, task.pairs[inside[0] : inside[1]])
            placed.setdefault(name, []).append(found)
    return {name: Rankings(np.concatenate(ranked[name]), np.concatenate(placed[name])) for name in ranked}


def choose(first: npt.NDArray[np.bool_], one: Rankings, other: Rankings, task: Task) -> Rankings:
    """Per query the answer of `one` where `first` [n_queries] holds, else of `other`."""
    pairs = first[task.relevance.query[task.pairs]]
    return Rankings(np.where(first[:, None], one.ranking, other.ranking), np.where(pairs, one.places, other.places))
