"""What every variant of an ablation is asked: queries, their relevant items, and slices of them."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.data.dataset import Dataset
from smar.errors import InputError
from smar.evaluation.evaluate import DEPTH, Catalogue, Ranking, rank, read_qrels
from smar.evaluation.metrics import Integers, Judgements, QueryMetrics, Relevance, per_query, read_judgements
from smar.evaluation.slices import Slice, build_slices
from smar.model.encoder import Encoder
from smar.settings import EvaluateSettings

JUDGED = "judged "
"""Before the names of slices that come from ``--qrels``."""
MODES = ("adaptive", "text", "multimodal", "image", "random gate")
BLOCK = 256
"""Queries scored at once: three score matrices of 256 x 44,072 are 135 MB."""


@dataclass(frozen=True)
class Part:
    """Judgements of one source: `rows` [q] are its queries' places among all; `relevance` numbers them from 0."""

    prefix: str
    rows: Integers
    relevance: Relevance
    slices: list[Slice]


@dataclass(frozen=True)
class Questions:
    """Distinct queries of all parts, in order of first appearance."""

    queries: list[str]
    parts: tuple[Part, ...]


def collect(dataset: Dataset, settings: EvaluateSettings, evaluate_on: str, qrels: Path | None) -> Questions:
    """Clicks of the test or validation period, and judgements of a file where one is given.

    Raises:
        InputError: the period has no click, or the file does not fit the dataset.
    """
    clicks = dataset.qrels() if evaluate_on == "test" else validation_qrels(dataset)
    if not len(clicks):
        raise InputError(f"{dataset.path} has no {evaluate_on} pair to measure: prepare it with a longer period.")
    tables = {"": clicks} | ({} if qrels is None else {JUDGED: read_qrels(str(qrels))})
    judged = {prefix: read_judgements(table, dataset.items["item_id"]) for prefix, table in tables.items()}
    place: dict[str, int] = {}
    for judgements in judged.values():
        for query in judgements.queries:
            place.setdefault(query, len(place))
    parts = [_part(dataset, settings, prefix, judgements, place) for prefix, judgements in judged.items()]
    return Questions(list(place), tuple(parts))


def _part(dataset: Dataset, settings: EvaluateSettings, prefix: str, judged: Judgements, place: dict[str, int]) -> Part:
    rows = np.array([place[query] for query in judged.queries], dtype=np.int64)
    return Part(prefix, rows, judged.relevance, build_slices(dataset, judged.queries, judged.relevance, settings).kept)


def validation_qrels(dataset: Dataset) -> pa.Table:
    """Judgements of the validation period in the form of `Dataset.qrels`: query, item_id, relevance (1 or 2)."""
    pairs = dataset.pairs("valid")
    grade = pc.if_else(pc.greater(pairs["orders"], 0), 2, 1)
    items = dataset.items["item_id"].take(pairs["item_index"])
    return pa.table({"query": pairs["query"], "item_id": items, "relevance": grade})


def rank_modes(encoder: Encoder, catalogue: Catalogue, queries: list[str], depth: int) -> dict[str, Ranking]:
    """Rank by the mixed score with the model's gate, without it (text, multimodal), by the picture alone, and with the
    gate's probabilities dealt to the wrong queries (same shares, no knowledge). A baseline has one score only.

    Returns:
        Mode -> item rows [queries, depth].
    """
    query, p = encoder.encode_queries(queries)
    gates = {"adaptive": p}
    if encoder.config.kind == "smar":
        wrong = np.random.default_rng(0).permutation(p)
        gates |= {"text": np.zeros_like(p), "multimodal": np.ones_like(p), "random gate": wrong}
    blocks: dict[str, list[Ranking]] = defaultdict(list)
    for start in range(0, len(query), BLOCK):
        part = slice(start, start + BLOCK)
        text, multimodal = query[part] @ catalogue.text.T, query[part] @ catalogue.multimodal.T
        for mode, gate in gates.items():
            share = gate[part, None]
            blocks[mode].append(rank(iter([share * multimodal + (1 - share) * text]), depth))
        if encoder.config.kind == "smar":
            blocks["image"].append(rank(iter([query[part] @ catalogue.image.T]), depth))
    return {mode: np.concatenate(blocks[mode]) for mode in MODES if mode in blocks}


def answer(encoder: Encoder, catalogue: Catalogue, questions: Questions, k: int) -> dict[tuple[str, str], QueryMetrics]:
    """Metrics per query of every (slice, mode)."""
    rankings = rank_modes(encoder, catalogue, questions.queries, max(k, DEPTH))
    return {
        (part.prefix + piece.name, mode): per_query(ranked[part.rows], part.relevance.restrict(piece.entries), k)
        for part in questions.parts
        for piece in part.slices
        for mode, ranked in rankings.items()
    }
