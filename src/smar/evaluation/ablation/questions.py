"""What every variant of an ablation is asked: queries, their relevant items, and slices of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.core.errors import InputError, one_of
from smar.core.sections.evaluation import EvaluateOn, EvaluateSettings
from smar.data.dataset import Dataset
from smar.evaluation.hidden import HIDDEN, hidden_metrics, hidden_pairs
from smar.evaluation.metrics import Integers, Judgements, QueryMetrics, Relevance, per_query, read_judgements
from smar.evaluation.qrels import read_qrels
from smar.evaluation.scores import DEPTH, Catalogue, Rankings, Task, mixed_blocks, rank_blocks, shortened
from smar.evaluation.slices import Slice, build_slices
from smar.evaluation.systems import TWO_WAY, named, voices_of
from smar.model.encoder import Encoder

JUDGED = "judged "
"""Before the names of slices that come from ``--qrels``."""
MODES = ("adaptive", "text", "multimodal", "image", "random gate", TWO_WAY)
Answers = dict[tuple[str, str], QueryMetrics]
"""(slice, mode) -> metrics per query."""


@dataclass(frozen=True)
class Part:
    """Judgements of one source: `rows` [q] are its queries' places among all; `relevance` numbers them from 0;
    `hidden` are its entries that only the picture tells, of items never clicked in training.
    """

    prefix: str
    rows: Integers
    relevance: Relevance
    slices: list[Slice]
    hidden: Integers


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
    if evaluate_on not in get_args(EvaluateOn):
        raise one_of(evaluate_on, get_args(EvaluateOn), "evaluate_on")
    clicks = dataset.qrels() if evaluate_on == "test" else validation_qrels(dataset)
    if not len(clicks):
        raise InputError(f"{dataset.path} has no {evaluate_on} pair to measure: prepare it with a longer period.")
    ids = dataset.items["item_id"]
    tables = {"": clicks} | ({} if qrels is None else {JUDGED: read_qrels(str(qrels), ids).table})
    judged = {prefix: read_judgements(table, ids) for prefix, table in tables.items()}
    place: dict[str, int] = {}
    for judgements in judged.values():
        for query in judgements.queries:
            place.setdefault(query, len(place))
    parts = [_part(dataset, settings, prefix, judgements, place) for prefix, judgements in judged.items()]
    return Questions(list(place), tuple(parts))


def _part(dataset: Dataset, settings: EvaluateSettings, prefix: str, judged: Judgements, place: dict[str, int]) -> Part:
    rows = np.array([place[query] for query in judged.queries], dtype=np.int64)
    slices = build_slices(dataset, judged.queries, judged.relevance, settings).kept
    hidden = hidden_pairs(judged.hidden, np.asarray(dataset.items["clicked_in_train"]), judged.relevance)
    return Part(prefix, rows, judged.relevance, slices, hidden)


def validation_qrels(dataset: Dataset) -> pa.Table:
    """Judgements of the validation period in the form of `Dataset.qrels`: query, item_id, relevance (1 or 2)."""
    pairs = dataset.pairs("valid")
    grade = pc.if_else(pc.greater(pairs["orders"], 0), 2, 1)
    items = dataset.items["item_id"].take(pairs["item_index"])
    return pa.table({"query": pairs["query"], "item_id": items, "relevance": grade})


def rank_modes(
    encoder: Encoder, dataset: Dataset, catalogue: Catalogue, queries: list[str], task: Task
) -> dict[str, Rankings]:
    """Rank by every mode: the mixed score with the model's gate (adaptive), the same without the share of words
    (two-way), without the gate (text, multimodal), by the picture alone, and with the gate's probabilities dealt to the
    wrong queries (same shares, no knowledge). A baseline has one score only.

    Args:
        encoder: of the model.
        dataset: whose words are searched.
        catalogue: its vectors of all items.
        queries: those of `task`.
        task: what is asked.
    """
    query, p = encoder.encode_queries(queries)
    query, catalogue = shortened(query, task.dim), catalogue.cut(task.dim)
    voiced = voices_of(encoder, dataset, queries, p)
    alone = {"smar": TWO_WAY, "dpsr": "text", "dpsr-i": "image"}.get(encoder.config.kind, "multimodal")
    gates = {"adaptive" if voiced is None else alone: p}
    if encoder.config.kind == "smar":
        wrong = np.random.default_rng(0).permutation(p)
        gates |= {"text": np.zeros_like(p), "multimodal": np.ones_like(p), "random gate": wrong}
    every = {mode: gate[:, None] for mode, gate in gates.items()}
    ranked = rank_blocks(mixed_blocks(query, catalogue, every, named("adaptive", voiced)), task)
    if encoder.config.kind == "smar":
        always = np.ones((1, 1), np.float32)
        ranked |= rank_blocks(mixed_blocks(query, catalogue.pictures_only(), {"image": always}), task)
    return {mode: ranked[mode] for mode in MODES if mode in ranked}


def answer(
    encoder: Encoder, dataset: Dataset, catalogue: Catalogue, questions: Questions, k: int, dim: int | None
) -> Answers:
    """Metrics per query of every (slice, mode), by the first `dim` numbers of the vectors."""
    out: Answers = {}
    for part in questions.parts:
        queries = [questions.queries[row] for row in part.rows]
        ranked = rank_modes(
            encoder, dataset, catalogue, queries, Task(part.relevance, k, max(k, DEPTH), part.hidden, dim)
        )
        for piece in part.slices:
            wanted = part.relevance.restrict(piece.entries)
            out |= {(part.prefix + piece.name, mode): per_query(r.ranking, wanted, k) for mode, r in ranked.items()}
        if len(part.hidden):
            out |= {
                (part.prefix + HIDDEN, mode): hidden_metrics(r.places, part.hidden, part.relevance, k)
                for mode, r in ranked.items()
            }
    return out
