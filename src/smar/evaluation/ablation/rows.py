"""Rows of the ablation's table: figures of finished variants, and their differences to the base.

A variant's figures are means over its seeds, query by query; intervals and differences resample queries, the same for
all variants, so the difference to the base is paired, as its test is. They do not cover chance in training: several
seeds show that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smar.evaluation.ablation.questions import Answers
from smar.evaluation.ablation.variants import BASE, Plan, Variant
from smar.evaluation.ablation.variants_run import Job, Row, read_answers
from smar.evaluation.bootstrap import Interval, Resampled, resample
from smar.evaluation.hidden import HIDDEN
from smar.evaluation.measure import ComparisonRow
from smar.evaluation.metrics import QueryMetrics, metric_names
from smar.evaluation.significance import flips_for, holm, sign_flip
from smar.evaluation.slices import ALL

ADAPTIVE = "adaptive"


@dataclass(frozen=True)
class TableRow:
    """A variant with its finished seeds, and its figures: (slice, mode, metric) -> interval; slice -> queries.

    `difference`: slice -> adaptive recall minus the base's, paired, with p; empty for the base and where the base has
    no row.
    `spread`: standard deviation of adaptive recall on all queries between seeds, None with one seed.
    """

    variant: Variant
    seeds: tuple[Row, ...]
    figures: Mapping[tuple[str, str, str], Interval]
    queries: Mapping[str, int]
    difference: Mapping[str, ComparisonRow]
    spread: float | None

    @property
    def cpu_seconds(self) -> float:
        """Training's CPU seconds, mean over seeds."""
        return float(np.mean([row.cpu_seconds for row in self.seeds]))


def collect_rows(plan: Plan, jobs: Sequence[Job]) -> list[TableRow]:
    """Rows of all variants that have a finished seed, in the plan's order."""
    done: dict[str, list[tuple[Row, Answers]]] = {}
    for job in jobs:
        if row := job.finished():
            done.setdefault(row.variant, []).append((row, read_answers(job.folder / "queries.parquet")))
    means = {name: _mean([answers for _, answers in found]) for name, found in done.items()}
    pieces = list(dict.fromkeys(piece for answers in means.values() for piece, _ in answers))
    options = plan.settings.evaluate
    drawn = {piece: resample(_of_slice(means, piece), options.k, options.bootstrap) for piece in pieces}
    compared = _compare(means, drawn, options.k)
    return [
        _row(v, [row for row, _ in done[v.name]], means, drawn, options.k, compared.get(v.name, {}))
        for v in plan.variants
        if v.name in done
    ]


def _compare(
    means: Mapping[str, Answers], drawn: Mapping[str, Resampled], k: int
) -> dict[str, dict[str, ComparisonRow]]:
    """Variant -> slice -> adaptive recall minus the base's. Two families: all queries; every other slice."""
    others = [name for name in means if name != BASE]
    if BASE not in means or not others:
        return {}
    compared: dict[str, dict[str, ComparisonRow]] = {name: {} for name in others}
    for family in ([ALL], [piece for piece in drawn if piece != ALL]):
        rows = [row for piece in family for row in _differences(means, others, piece, drawn[piece], k, len(family))]
        for row, p in zip(rows, holm([row.p for row in rows]).tolist(), strict=True):
            compared[row.model][row.slice] = replace(row, p_holm=p)
    return compared


def _differences(
    means: Mapping[str, Answers], others: Sequence[str], piece: str, drawn: Resampled, k: int, slices: int
) -> Iterator[ComparisonRow]:
    """The variants' differences to the base on one of `slices` slices, p not yet corrected."""
    key, metric = (piece, ADAPTIVE), metric_names(k)[0]
    base = means[BASE][key].recall
    flips = flips_for(slices * len(others))
    raw = sign_flip(np.column_stack([means[name][key].recall - base for name in others]), flips).tolist()
    for name, p in zip(others, raw, strict=True):
        i = drawn.difference(f"{name}/{ADAPTIVE}", f"{BASE}/{ADAPTIVE}", metric)
        yield ComparisonRow(name, BASE, piece, metric, i.value, i.low, i.high, drawn.queries, p)


def _of_slice(means: Mapping[str, Answers], piece: str) -> dict[str, QueryMetrics]:
    return {
        f"{name}/{mode}": metrics
        for name, answers in means.items()
        for (at, mode), metrics in answers.items()
        if at == piece
    }


def _mean(seeds: Sequence[Answers]) -> Answers:
    """Metrics of every query, averaged over seeds."""
    out = {}
    for key, first in seeds[0].items():
        names = ("recall", "precision", "ndcg", "rr")
        values = (np.mean([getattr(answers[key], name) for answers in seeds], axis=0) for name in names)
        out[key] = QueryMetrics(first.rows, *values)
    return out


def _row(
    variant: Variant,
    seeds: Sequence[Row],
    means: Mapping[str, Answers],
    drawn: Mapping[str, Resampled],
    k: int,
    difference: Mapping[str, ComparisonRow],
) -> TableRow:
    name = variant.name
    figures = {
        (piece, mode, metric): drawn[piece].interval(f"{name}/{mode}", metric)
        for piece, mode in means[name]
        for metric in (metric_names(k)[:1] if piece.endswith(HIDDEN) else metric_names(k))
    }
    recalls = [row.recall[ADAPTIVE][ALL] for row in seeds]
    spread = float(np.std(recalls, ddof=1)) if len(recalls) > 1 else None
    queries = {piece: found.queries for piece, found in drawn.items()}
    return TableRow(variant, tuple(seeds), figures, queries, difference, spread)
