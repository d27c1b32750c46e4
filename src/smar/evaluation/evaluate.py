"""`smar evaluate`: rank the whole catalogue for every test query with each model of one or several runs.

Rows (reference: paper.md, "Controls"): `bm25` the same words without training, `dpsr` words only, `dpsr-i` pictures
only, `multimodal` the run's own model with pictures always, `smar` the same model with its gate: score
p f_m + (1 - p) f_t; then the controls of `smar.evaluation.systems`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.data.database import literal
from smar.data.dataset import Dataset
from smar.data.text import normalise_query
from smar.errors import InputError
from smar.evaluation.bm25 import NAME as BM25
from smar.evaluation.bm25 import bm25_blocks
from smar.evaluation.examples import Example, RoutedQuery, pick_examples, pick_routed
from smar.evaluation.facts import name_runs, report_facts
from smar.evaluation.findings import Facts, Findings
from smar.evaluation.gate import Gate, judge_gate
from smar.evaluation.hidden import HIDDEN, Hidden, hidden_pairs
from smar.evaluation.measure import Family, MetricRow, measure
from smar.evaluation.metrics import Integers, Judgements, per_query, read_judgements
from smar.evaluation.pictures import save_pictures
from smar.evaluation.report import refuse_foreign, write_report
from smar.evaluation.scores import DEPTH, Task, rank_blocks
from smar.evaluation.slices import Slices, build_slices, needs_image
from smar.evaluation.systems import ALWAYS, RankedRun, System, name_systems, rank_run
from smar.evaluation.trec import write_trec
from smar.model.run import run_settings
from smar.sections.evaluate import EvaluateSettings


@dataclass(frozen=True)
class EvaluateSummary:
    """What `evaluate_runs` measured: the report's content, the number of queries, the seconds it took."""

    findings: Findings
    queries: int
    seconds: float

    @property
    def rows(self) -> tuple[MetricRow, ...]:
        """Every figure of metrics.json."""
        return tuple(self.findings.rows)


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


def evaluate_runs(
    runs: Sequence[Path],
    dataset_path: Path,
    out: Path,
    qrels: str | None = None,
    names: Sequence[str] = (),
    assignments: Sequence[str] = (),
) -> EvaluateSummary:
    """Rank, measure, and write the report into `out`; relevant are the test clicks, or what `qrels` says.

    Args:
        runs: folders of `smar train`; the first one's settings count, and its model is compared with all others.
        dataset_path: folder of `smar prepare`.
        out: the report.
        qrels: file of judgements.
        names: what the runs' own models are called, one a run (see `name_runs`).
        assignments: ``evaluate.key=value`` texts over the first run's settings.

    Raises:
        InputError: a run is unfinished or damaged, two have one name, or the judgements do not fit the dataset.
    """
    started = time.perf_counter()
    if wrong := [text for text in assignments if not text.startswith("evaluate.")]:
        raise InputError(f"--set {wrong[0]}: a report takes evaluate.* only; everything else is the run's own.")
    refuse_foreign(out)
    dataset, settings = Dataset.open(dataset_path), run_settings(runs[0], assignments)
    named = name_runs(runs, names)
    test = _test(dataset, settings.evaluate, dataset.qrels() if qrels is None else read_qrels(qrels))
    ranked = [
        rank_run(run.path, run.name, dataset, test.judged.queries, test.task, test.options.controls) for run in named
    ]
    systems = name_systems(ranked, _bm25(test))
    out.mkdir(parents=True, exist_ok=True)
    facts = report_facts(named, dataset, settings, test.judged, qrels)
    missing = [(f"{run.name}: no zero-shot row", run.no_start) for run in ranked if run.no_start]
    findings = _find(test, ranked, systems, replace(facts, rows=[*facts.rows, *missing]), out)
    write_report(out, findings)
    if test.options.trec:
        write_trec(
            out, test.judged.queries, dataset.items["item_id"].to_pylist(), test.judged.relevance, _main(systems)
        )
    return EvaluateSummary(findings, len(test.judged.queries), time.perf_counter() - started)


@dataclass(frozen=True)
class _Test:
    """What the models are tested on."""

    dataset: Dataset
    options: EvaluateSettings
    judged: Judgements
    slices: Slices
    task: Task


def _test(dataset: Dataset, options: EvaluateSettings, qrels: pa.Table) -> _Test:
    judged = read_judgements(qrels, dataset.items["item_id"])
    relevance = judged.relevance
    slices = build_slices(dataset, judged.queries, relevance, options)
    pairs = hidden_pairs(judged.hidden, np.asarray(dataset.items["clicked_in_train"]), relevance)
    size = len(np.unique(relevance.query[pairs]))
    if size < options.slice_queries:
        pairs = pairs[:0]
        slices.left_out.extend([(HIDDEN, size)] if judged.hidden is not None else [])
    return _Test(
        dataset, options, judged, slices, Task(relevance, options.k, max(options.k, DEPTH), pairs, options.dim)
    )


def _bm25(test: _Test) -> list[System]:
    """The BM25 row, where it is asked for."""
    if not test.options.bm25:
        return []
    blocks = bm25_blocks(test.dataset.fields(test.dataset.text_fields), test.judged.queries)
    return [System(BM25, rank_blocks(blocks, test.task)[BM25], None)]


def _find(test: _Test, runs: Sequence[RankedRun], systems: Sequence[System], facts: Facts, out: Path) -> Findings:
    """Measure the systems and pick what the report shows; pictures go into the folder `out`."""
    judged, options, own = test.judged, test.options, runs[0].name
    reference = _reference(systems, own)
    places = {system.name: system.ranked.places for system in systems}
    measured = measure(
        {system.name: system.ranked.ranking for system in systems},
        judged.relevance,
        test.slices.kept,
        options,
        _families(systems, own),
        Hidden(test.task.pairs, places) if len(test.task.pairs) else None,
    )
    examples = _examples(test, runs[0], systems, reference)
    shown = {hit.item for example in examples for hits in example.lists.values() for hit in hits}
    return Findings(
        rows=measured.rows,
        comparisons=measured.comparisons,
        facts=facts,
        controls=frozenset(system.name for system in systems if system.control),
        own=own,
        reference=reference,
        left_out=test.slices.left_out,
        gates=_gates(test, runs),
        examples=examples,
        routed=_routed(test, runs[0]),
        pictures=save_pictures(test.dataset, shown, out),
        categories=_category_column(test),
    )


def _main(systems: Sequence[System]) -> dict[str, Integers]:
    """Rankings of all models that are no controls."""
    return {system.name: system.ranked.ranking for system in systems if not system.control}


def _reference(systems: Sequence[System], own: str) -> str | None:
    """The model that `own` is shown against: its run's DPSR, else any DPSR, else the next trained model, else BM25."""
    others = [system for system in systems if system.name != own and not system.control]
    if not others:
        return None
    return min(
        others,
        key=lambda s: (s.name.rpartition("/")[2] != "dpsr", s.run != own, s.run is None, s.name.endswith(ALWAYS)),
    ).name


def _families(systems: Sequence[System], own: str) -> list[Family]:
    """`own` against every other model, and, corrected by themselves, against its run's controls (bounds left out)."""
    models = [system.name for system in systems if system.name != own and not system.control]
    controls = [system.name for system in systems if system.control and system.run == own and not system.bound]
    return [Family(own, others) for others in (models, controls) if others]


def _gates(test: _Test, runs: Sequence[RankedRun]) -> list[Gate]:
    truth = needs_image(test.dataset.queries(), test.judged.queries)
    options, parts, relevance = test.options, test.slices.kept, test.judged.relevance
    return [
        judge_gate(
            *(run.name, run.probability, run.threshold, relevance, parts, truth, options.needs_image, options.bootstrap)
        )
        for run in runs
        if run.probability is not None
    ]


def _examples(test: _Test, run: RankedRun, systems: Sequence[System], reference: str | None) -> list[Example]:
    if reference is None:
        return []
    titles, judged = test.dataset.fields(["title"])[0], test.judged
    compare = (run.name, reference)
    return pick_examples(
        judged.queries, titles, _main(systems), judged.relevance, test.options.k, compare, run.probability
    )


def _routed(test: _Test, run: RankedRun) -> tuple[Sequence[RoutedQuery], Sequence[RoutedQuery]]:
    """Queries at the two ends of the run's gate, where always text was ranked, too."""
    if run.probability is None or not {"text", ALWAYS} <= {*run.others}:
        return (), ()
    text, multimodal = (
        per_query(run.others[name].ranking, test.judged.relevance, test.options.k) for name in ("text", ALWAYS)
    )
    return pick_routed(test.judged.queries, run.probability, text.recall, multimodal.recall, text.rows)


def _category_column(test: _Test) -> str:
    """The slice column that the chart by category draws: `category` where it is one, else the first that has slices."""
    names = {part.name.partition("=")[0] for part in test.slices.kept if "=" in part.name}
    return next((column for column in ("category", *test.dataset.slice_columns) if column in names), "")
