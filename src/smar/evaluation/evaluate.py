"""`smar evaluate`: rank the whole catalogue for every test query with each model of a run.

Rows (reference: paper.md, "controls"): `dpsr` words only, `dpsr-i` pictures only, other baselines by their names,
`multimodal` the run's own model with pictures always, `smar` the same model with its gate: score p f_m + (1 - p) f_t.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from smar.data.database import literal
from smar.data.dataset import Dataset
from smar.data.text import normalise_query
from smar.errors import InputError
from smar.evaluation.examples import Gate, pick_examples, routed_shares
from smar.evaluation.measure import MetricRow, measure
from smar.evaluation.metrics import Judgements, read_judgements
from smar.evaluation.report import Facts, write_report
from smar.evaluation.slices import build_slices, needs_image
from smar.model.encoder import Encoder, Floats
from smar.model.run import RunManifest, baselines, finished_stages, load_encoder, run_settings
from smar.progress import track
from smar.settings import Settings

Ranking = npt.NDArray[np.int64]
DEPTH = 100
"""Hits ranked for every query at least; MRR looks no further."""


@dataclass(frozen=True)
class Catalogue:
    """Vectors of all items: `text`, `image`, `multimodal`, each float32 [n, k]."""

    text: Floats
    image: Floats
    multimodal: Floats


@dataclass(frozen=True)
class Ranked:
    """Rankings by model name, each [queries, depth]; the gate's probabilities [queries] where the run has a gate."""

    rankings: dict[str, Ranking]
    probability: npt.NDArray[np.float64] | None
    threshold: float


@dataclass(frozen=True)
class EvaluateSummary:
    """What `evaluate_run` measured: every row of metrics.json, the number of queries, the seconds it took."""

    rows: tuple[MetricRow, ...]
    queries: int
    seconds: float


def encode_catalogue(encoder: Encoder, dataset: Dataset, what: str) -> Catalogue:
    """Encode every item of the dataset."""
    fields = dataset.fields(tuple(encoder.config.text_fields))
    batches = encoder.encode_items(fields, dataset.images, dataset.image_row)
    total = -(-len(dataset.image_row) // 256)
    vectors = list(track(batches, f"encode items ({what})", total))
    return Catalogue(*(np.concatenate([getattr(v, name) for v in vectors]) for name in ("text", "image", "multimodal")))


def shortened(vectors: Floats, dim: int | None) -> Floats:
    """First `dim` numbers of unit vectors [n, k], of unit length again; all of them when `dim` is None."""
    if dim is None or dim >= vectors.shape[1]:
        return vectors
    short = vectors[:, :dim]
    return np.asarray(short / np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def rank(scores: Iterator[Floats], depth: int) -> Ranking:
    """Item rows by falling score, ties among the kept by row: blocks of scores [b, n] -> [queries, depth]."""
    blocks = []
    for block in scores:
        top = np.argpartition(-block, min(depth, block.shape[1] - 1), axis=1)[:, :depth]
        top.sort(axis=1)
        order = np.argsort(-np.take_along_axis(block, top, 1), axis=1, kind="stable")
        blocks.append(np.take_along_axis(top, order, 1))
    return np.concatenate(blocks)


def adaptive_blocks(query: Floats, p: Floats, catalogue: Catalogue, size: int = 256) -> Iterator[Floats]:
    """Blocks of the soft score p f_m + (1 - p) f_t, [size, n] each."""
    for start in range(0, len(query), size):
        q, share = query[start : start + size], p[start : start + size, None]
        yield share * (q @ catalogue.multimodal.T) + (1 - share) * (q @ catalogue.text.T)


def rank_run(run: Path, dataset: Dataset, queries: list[str], depth: int, dim: int | None = None) -> Ranked:
    """Rank with each baseline under ``RUN/baselines`` and with the run's own model, by the first `dim` numbers."""
    rankings: dict[str, Ranking] = {}
    probability, threshold = None, 0.5
    for baseline in [*baselines(run), None]:
        encoder = load_encoder(run, baseline)
        name = baseline or encoder.config.kind
        whole = encode_catalogue(encoder, dataset, name)
        catalogue = Catalogue(*(shortened(v, dim) for v in (whole.text, whole.image, whole.multimodal)))
        embedding, p = encoder.encode_queries(queries)
        embedding = shortened(embedding, dim)
        if name == "smar":
            probability, threshold = p.astype(np.float64), encoder.config.threshold
            rankings["multimodal"] = rank(adaptive_blocks(embedding, np.ones_like(p), catalogue), depth)
        rankings[name] = rank(adaptive_blocks(embedding, p, catalogue), depth)
    return Ranked(rankings, probability, threshold)


def read_qrels(path: str) -> pa.Table:
    """Judgements from a Parquet, CSV, TSV or JSON lines file, queries normalised as the model sees them.

    Raises:
        InputError: the file cannot be read, or lacks query, item_id or relevance.
    """
    try:
        table = duckdb.sql(f"SELECT * FROM {literal(path)}").to_arrow_table()
    except duckdb.Error as error:
        raise InputError(f"--qrels {path} cannot be read: {error}") from None
    missing = {"query", "item_id", "relevance"} - set(table.column_names)
    if missing:
        raise InputError(f"--qrels {path} lacks {', '.join(sorted(missing))}; it has {', '.join(table.column_names)}.")
    text = pc.dictionary_encode(table["query"].cast(pa.string())).combine_chunks()
    normal = pa.array([None if query is None else normalise_query(query) for query in text.dictionary.to_pylist()])
    return table.set_column(table.column_names.index("query"), "query", normal.take(text.indices))


def evaluate_run(run: Path, dataset_path: Path, out: Path, qrels: str | None = None) -> EvaluateSummary:
    """Rank, measure, and write the report into `out`; relevant are the test clicks, or what `qrels` says.

    Raises:
        InputError: the run is unfinished or damaged, or the judgements do not fit the dataset.
    """
    started = time.perf_counter()
    dataset, settings = Dataset.open(dataset_path), run_settings(run)
    judged = read_judgements(dataset.qrels() if qrels is None else read_qrels(qrels), dataset.items["item_id"])
    options, relevance = settings.evaluate, judged.relevance
    slices = build_slices(dataset, judged.queries, relevance, options)
    ranked = rank_run(run, dataset, judged.queries, max(options.k, DEPTH), options.dim)
    measured = measure(ranked.rankings, relevance, slices.kept, options)
    truth = needs_image(dataset.queries(), judged.queries)
    gate = None
    if ranked.probability is not None:
        routed = routed_shares(ranked.probability, ranked.threshold, relevance, slices.kept)
        gate = Gate(ranked.probability, ranked.threshold, routed, truth)
    examples = pick_examples(
        judged.queries,
        dataset.fields(["title"])[0],
        ranked.rankings,
        relevance,
        options.k,
        ranked.probability,
    )
    write_report(
        out,
        measured.rows,
        measured.differences,
        _facts(run, dataset, settings, judged, qrels),
        examples,
        slices.left_out,
        gate,
    )
    return EvaluateSummary(tuple(measured.rows), len(judged.queries), time.perf_counter() - started)


def _facts(run: Path, dataset: Dataset, settings: Settings, judged: Judgements, qrels: str | None) -> Facts:
    stages = finished_stages(run)
    seconds: dict[str, float] = defaultdict(float)
    for stage in stages:
        seconds[stage.kind] += stage.seconds
    counts = dataset.manifest.counts
    same = RunManifest.read(run, "smar train").dataset == dataset.digest
    rows: list[tuple[str, object]] = [
        ("items", counts["items"]),
        ("training pairs", counts["pairs_train"]),
        ("relevant are", "test clicks" if qrels is None else f"judgements of {Path(qrels).name}"),
        ("queries", len(judged.queries)),
        ("judgements of unknown items, left out", judged.unknown),
        ("trained on", "this dataset" if same else "ANOTHER dataset: its training pairs may hold these test clicks"),
        ("steps", "; ".join(f"{stage.kind} {stage.stage} {stage.steps:,}" for stage in stages)),
    ]
    if settings.evaluate.dim is not None:
        rows.append(("ranked by the first numbers of each vector", settings.evaluate.dim))
    return Facts(settings.data.note, rows, dict(seconds), settings.evaluate.needs_image)
