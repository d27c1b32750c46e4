"""`smar evaluate`: rank the whole catalogue for every test query with each model of one or several runs.

Rows (docs/paper.md, "Controls"): `bm25` the same words without training, `dpsr` words only, `dpsr-i` pictures
only, `multimodal` the run's own model with pictures always, `smar` the same model with its gate: score
p f_m + (1 - p) f_t; then the controls of `smar.evaluation.systems`.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.core.sections.evaluation import EvaluateSettings
from smar.data.bm25 import Bm25
from smar.data.dataset import Dataset
from smar.evaluation.checks import check_models, check_writable
from smar.evaluation.encoded_items import Place
from smar.evaluation.examples import Example, RoutedQuery, pick_examples, pick_routed
from smar.evaluation.facts import name_runs, report_facts
from smar.evaluation.findings import Facts, Findings
from smar.evaluation.foreign import ForeignRun, check_names, read_run
from smar.evaluation.gate_quality import Gate, judge_gate
from smar.evaluation.hidden import HIDDEN, Hidden, hidden_pairs
from smar.evaluation.measure import Family, Measured, MetricRow, measure
from smar.evaluation.metrics import Integers, Judgements, per_query, read_judgements
from smar.evaluation.per_query import PER_QUERY, per_query_file
from smar.evaluation.qrels import Qrels, read_qrels
from smar.evaluation.report import refuse_foreign, write_report
from smar.evaluation.scores import DEPTH, Task, rank_blocks
from smar.evaluation.seeds import SeedGroup, join_seeds, seed_groups
from smar.evaluation.slices import Slices, build_slices, needs_image
from smar.evaluation.systems import ALWAYS, WORDS_ONLY, ZERO_SHOT, RankedRun, System, name_systems, rank_run
from smar.evaluation.thumbnails import save_pictures
from smar.evaluation.trec import write_trec
from smar.evaluation.trec_input import read_topics
from smar.evaluation.word_baseline import NAME as BM25
from smar.evaluation.word_baseline import bm25_blocks
from smar.model.device import pick_device
from smar.model.run_folder import run_settings


@dataclass(frozen=True)
class EvaluateSummary:
    """What `evaluate_runs` measured: the report's content, the number of queries, the seconds it took."""

    findings: Findings
    queries: int
    seconds: float

    @property
    def notes(self) -> dict[str, object]:
        """What the report's head says: what -> value."""
        return dict(self.findings.facts.rows)

    @property
    def rows(self) -> tuple[MetricRow, ...]:
        """Every figure of metrics.json."""
        return tuple(self.findings.rows)


def evaluate_runs(
    runs: Sequence[StrPath],
    dataset_path: StrPath,
    out: StrPath,
    qrels: str | None = None,
    names: Sequence[str] = (),
    assignments: Sequence[str] = (),
    trec_runs: Sequence[tuple[str, StrPath]] = (),
    topics: StrPath | None = None,
    device: str = "auto",
    runner: str = "local",
) -> EvaluateSummary:
    """Rank, measure, and write the report into `out`; relevant are the test clicks, or what `qrels` says.

    Args:
        runs: folders of `smar train`; the first one's settings count, and its model is compared with all others.
        dataset_path: folder of `smar prepare`.
        out: the report.
        qrels: file of judgements.
        names: what the runs' own models are called, one a run (see `name_runs`).
        assignments: ``evaluate.key=value`` texts over the first run's settings.
        trec_runs: (name, TREC run file) of other systems, which become rows of the report.
        topics: file of lines `id query`: what TREC files call the queries. Default: topics.tsv beside TREC judgements,
            else the numbers of the report's own topics.tsv.
        device: `auto`, `cpu` or `cuda`: what encodes.
        runner: who encodes the items: `local`, or `ray` (docs/scale.md).

    Raises:
        InputError: a run is unfinished or damaged, two have one name, judgements or rankings do not fit the dataset, or
            `out` cannot be written; nothing was encoded.
    """
    dataset_path = Path(dataset_path)
    out = Path(out)
    started, place = time.perf_counter(), Place(pick_device(device), device, runner)
    if wrong := [text for text in assignments if not text.startswith("evaluate.")]:
        raise InputError(f"--set {wrong[0]}: a report takes evaluate.* only; everything else is the run's own.")
    refuse_foreign(out)
    dataset, settings = Dataset.open(dataset_path), run_settings(runs[0], assignments)
    named, ids = name_runs([Path(run) for run in runs], names), dataset.items["item_id"]
    groups = seed_groups(named)
    check_names([name for name, _ in trec_runs], [run.name for run in named])
    told = None if topics is None else read_topics(Path(topics))
    judged = Qrels(dataset.qrels()) if qrels is None else read_qrels(qrels, ids, told)
    if told and not trec_runs and judged.topics is None:
        raise InputError(f"--topics {topics} tells what TREC files call the queries, and none is given.")
    test = _test(dataset, settings.evaluate, judged.table)
    foreign = _foreign(test, [(name, Path(path)) for name, path in trec_runs], told or judged.topics)
    check_models(named, dataset)
    check_writable(out)
    given = [run.path for run in named]
    words = Bm25.of_fields(dataset.fields(dataset.text_fields), dataset.language) if test.options.bm25 else None
    ranked = [
        rank_run(
            run.path, run.name, dataset, test.judged.queries, test.task, test.options.controls, given, place, words
        )
        for run in named
    ]
    systems = name_systems(ranked, _bm25(test, words) + [System(run.name, run.ranked, None) for run in foreign])
    extra: list[tuple[str, object]] = [(run.name, run.note) for run in foreign]
    extra += [
        (group.row, f"{', '.join(group.runs)}: train.seed {', '.join(map(str, group.seeds))}") for group in groups
    ]
    extra += [("judgements of topics without a query, left out", judged.unknown)] if judged.unknown else []
    extra += [(f"{run.name}: no {row} row", why) for run in ranked for row, why in run.absent.items()]
    facts = report_facts(named, dataset, settings, test.judged, qrels, extra)
    findings = _find(test, ranked, systems, groups, facts, out)
    write_report(out, findings)
    if test.options.trec:
        write_trec(out, test.judged.queries, ids.to_pylist(), test.judged.relevance, _main(systems))
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


def _foreign(test: _Test, trec_runs: Sequence[tuple[str, Path]], topics: Mapping[str, str] | None) -> list[ForeignRun]:
    """Other systems' rankings. Topics that nobody named are the numbers of this report's topics.tsv."""
    queries, ids = test.judged.queries, test.dataset.items["item_id"]
    return [read_run(name, path, queries, topics, ids, test.task) for name, path in trec_runs]


def _bm25(test: _Test, index: Bm25 | None) -> list[System]:
    """The BM25 row, where it is asked for."""
    if index is None:
        return []
    blocks = bm25_blocks(index, test.judged.queries)
    return [System(BM25, rank_blocks(blocks, test.task)[BM25], None)]


def _find(
    test: _Test,
    runs: Sequence[RankedRun],
    systems: Sequence[System],
    groups: Sequence[SeedGroup],
    facts: Facts,
    out: Path,
) -> Findings:
    """Measure the systems and pick what the report shows; metrics by query and pictures go into the folder `out`."""
    shown = join_seeds(systems, groups)
    own = next((group.row for group in groups if runs[0].name in group.runs), runs[0].name)
    reference = _reference(shown, own)
    seeds = {system.name: system.mean_of for system in shown if system.mean_of}
    measured = _measure(test, systems, _families(shown, own), seeds, out)
    examples = _examples(test, runs[0], shown, reference)
    pictured = {hit.item for example in examples for hits in example.lists.values() for hit in hits}
    return Findings(
        rows=measured.rows,
        comparisons=measured.comparisons,
        facts=facts,
        controls=frozenset(system.name for system in (*systems, *shown) if system.control),
        seeds=seeds,
        own=own,
        reference=reference,
        left_out=test.slices.left_out,
        gates=_gates(test, runs),
        examples=examples,
        routed=_routed(test, runs[0]),
        pictures=save_pictures(test.dataset, pictured, out),
        categories=_category_column(test),
    )


def _measure(
    test: _Test, systems: Sequence[System], families: Sequence[Family], seeds: Mapping[str, Sequence[str]], out: Path
) -> Measured:
    judged, options = test.judged, test.options
    places = {system.name: system.ranked.places for system in systems}
    with per_query_file(out / PER_QUERY, judged.queries, options.k, test.dataset.pairs("test")) as sink:
        return measure(
            {system.name: system.ranked.ranking for system in systems},
            judged.relevance,
            test.slices.kept,
            options,
            families,
            Hidden(test.task.pairs, places) if len(test.task.pairs) else None,
            means=seeds,
            sink=sink,
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
        key=lambda s: (s.kind != "dpsr", s.run != own, s.run is None, s.kind == ALWAYS, s.kind.startswith(ZERO_SHOT)),
    ).name


def _families(systems: Sequence[System], own: str) -> list[Family]:
    """`own` against every other model, and, each corrected by itself, against its run's controls (bounds left out), and
    always multimodal against always text."""
    models = [system.name for system in systems if system.name != own and not system.control]
    controls = [system.name for system in systems if system.control and system.run == own and not system.bound]
    by_kind = {system.kind.partition(" (")[0]: system.name for system in systems if system.run == own}
    pictures = [by_kind[kind] for kind in (ALWAYS, WORDS_ONLY) if kind in by_kind]
    halves = [Family(pictures[0], pictures[1:])] if len(pictures) > 1 else []
    return [*(Family(own, others) for others in (models, controls) if others), *halves]


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
    lists = {(s.mean_of or [s.name])[0]: s.ranked.ranking for s in systems if not s.control}  # of seeds the first one
    other = next((s.mean_of or [s.name])[0] for s in systems if s.name == reference)
    compare = (run.name, other)
    return pick_examples(judged.queries, titles, lists, judged.relevance, test.options.k, compare, run.probability)


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
