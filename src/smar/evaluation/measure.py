"""Rankings, judgements and slices -> the rows of the report: figures with intervals, comparisons with corrected p."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from smar.core.sections.evaluation import EvaluateSettings
from smar.evaluation.bootstrap import Resampled, resample, resample_recall
from smar.evaluation.hidden import HIDDEN, Hidden, hidden_metrics
from smar.evaluation.metrics import (
    Floats,
    Hits,
    Integers,
    QueryMetrics,
    Relevance,
    ideal_gain,
    metric_names,
    score_hits,
)
from smar.evaluation.significance import flips_for, holm, sign_flip
from smar.evaluation.slices import Slice


@dataclass(frozen=True)
class MetricRow:
    """One figure of one model on one slice, with its 95 % interval: a row of metrics.json.

    Of several seeds `value` is the mean and `sd` the sample standard deviation (n - 1).
    """

    model: str
    slice: str
    metric: str
    value: float
    low: float
    high: float
    queries: int
    seeds: int = 1
    sd: float | None = None


@dataclass(frozen=True)
class ComparisonRow:
    """Paired difference `model` minus `baseline` of one metric on one slice, with its 95 % interval.

    p: of the paired randomisation test; p_holm: corrected for all comparisons of the family.
    """

    model: str
    baseline: str
    slice: str
    metric: str
    value: float
    low: float
    high: float
    queries: int
    p: float = 1.0
    p_holm: float = 1.0

    @property
    def significant(self) -> bool:
        """Whether the corrected p is below 0.05."""
        return self.p_holm < 0.05


@dataclass(frozen=True)
class Family:
    """Comparisons that are corrected together: one model with each of the others, on every slice."""

    model: str
    others: Sequence[str]


@dataclass(frozen=True)
class Measured:
    """All rows, by slice, then model, then metric; comparisons by family, then slice."""

    rows: list[MetricRow]
    comparisons: list[ComparisonRow]


@dataclass(frozen=True)
class _Part:
    """One slice measured: the resampled figures, and every model's recall per query [queries of the slice]."""

    name: str
    resampled: Resampled
    recall: Mapping[str, Floats]


Sink = Callable[[str, Mapping[str, QueryMetrics]], None]
"""Takes a slice's name and the metrics of its queries, by model."""


def measure(
    rankings: Mapping[str, Integers],
    relevance: Relevance,
    slices: Sequence[Slice],
    settings: EvaluateSettings,
    families: Sequence[Family] = (),
    hidden: Hidden | None = None,
    seed: int = 0,
    means: Mapping[str, Sequence[str]] = MappingProxyType({}),
    sink: Sink | None = None,
) -> Measured:
    """Measure every model on every slice, and compare.

    Args:
        rankings: model name -> item rows by falling score, [n_queries, depth].
        relevance: the relevant items of the same queries.
        slices: from `build_slices`; each has at least one query.
        settings: k and the number of resamples.
        families: comparisons of R@k, each family corrected by itself.
        hidden: places of the hidden items, which make one more slice that has R@k only.
        seed: of the resampling and of the flips.
        means: rows that are means of several models (name -> their names), query by query; each has the models' mean
            figures, and their standard deviation.
        sink: gets the metrics of every query, slice by slice; of the models only.
    """
    parts = []
    for name, metrics in _metrics(rankings, relevance, slices, settings.k, hidden):
        if sink is not None:
            sink(name, metrics)
        parts.append(_part(name, metrics, means, settings, seed))
    rows = [_row(part, model, metric, means) for part in parts for model, metric in part.resampled.measured]
    return Measured(rows, [row for family in families for row in _compare(parts, family, settings.k, seed)])


def _row(part: _Part, model: str, metric: str, means: Mapping[str, Sequence[str]]) -> MetricRow:
    i, measured = part.resampled.interval(model, metric), part.resampled.measured
    row = MetricRow(model, part.name, metric, i.value, i.low, i.high, part.resampled.queries)
    if model not in means:
        return row
    sd = float(np.std([measured[member, metric] for member in means[model]], ddof=1))
    return replace(row, seeds=len(means[model]), sd=sd)


def _part(
    name: str,
    metrics: Mapping[str, QueryMetrics],
    means: Mapping[str, Sequence[str]],
    settings: EvaluateSettings,
    seed: int,
) -> _Part:
    recall = {model: found.recall for model, found in metrics.items()}
    k, draws = settings.k, settings.bootstrap
    drawn = resample_recall(recall, k, draws, seed) if name == HIDDEN else resample(metrics, k, draws, seed)
    averages = {mean: np.mean([recall[member] for member in of], axis=0) for mean, of in means.items()}
    return _Part(name, drawn.with_means(means), recall | averages)


def _metrics(
    rankings: Mapping[str, Integers],
    relevance: Relevance,
    slices: Sequence[Slice],
    k: int,
    hidden: Hidden | None,
) -> Iterator[tuple[str, dict[str, QueryMetrics]]]:
    """Metrics of every model, slice by slice, the hidden items' last."""
    hits = {model: Hits.of(ranked, relevance) for model, ranked in rankings.items()}
    for part in slices:
        wanted = relevance.restrict(part.entries)
        counts, ideal = wanted.counts, ideal_gain(wanted, k)
        grades = relevance.grades
        yield part.name, {m: score_hits(h.only(part.entries), grades, counts, ideal, k) for m, h in hits.items()}
    if hidden is not None:
        yield HIDDEN, {m: hidden_metrics(found, hidden.pairs, relevance, k) for m, found in hidden.places.items()}


def _compare(parts: Sequence[_Part], family: Family, k: int, seed: int) -> list[ComparisonRow]:
    """All comparisons of a family, corrected together."""
    metric, flips = metric_names(k)[0], flips_for(len(parts) * len(family.others))
    rows: list[ComparisonRow] = []
    for part in parts if family.others else ():
        own = part.recall[family.model]
        raw = sign_flip(np.column_stack([own - part.recall[other] for other in family.others]), flips, seed)
        for other, p in zip(family.others, raw.tolist(), strict=True):
            i, queries = part.resampled.difference(family.model, other, metric), part.resampled.queries
            rows.append(ComparisonRow(family.model, other, part.name, metric, i.value, i.low, i.high, queries, p))
    corrected = holm([row.p for row in rows]).tolist()
    return [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]
