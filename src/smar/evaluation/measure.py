"""Rankings, judgements and slices -> the rows of the report, each with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smar.evaluation.bootstrap import Resampled, resample
from smar.evaluation.metrics import Integers, Relevance, metric_names, per_query
from smar.evaluation.slices import Slice
from smar.settings import EvaluateSettings


@dataclass(frozen=True)
class MetricRow:
    """One figure of one model on one slice, with its 95 % interval: a row of metrics.json."""

    model: str
    slice: str
    metric: str
    value: float
    low: float
    high: float
    queries: int


@dataclass(frozen=True)
class DifferenceRow:
    """Paired difference `model` minus `baseline` of one metric on one slice, with its 95 % interval."""

    model: str
    baseline: str
    slice: str
    metric: str
    value: float
    low: float
    high: float
    queries: int

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Measured:
    """All rows, by slice, then model, then metric; differences by slice, then metric."""

    rows: list[MetricRow]
    differences: list[DifferenceRow]


def measure(
    rankings: Mapping[str, Integers],
    relevance: Relevance,
    slices: Sequence[Slice],
    settings: EvaluateSettings,
    compare: tuple[str, str] = ("smar", "dpsr"),
    seed: int = 0,
) -> Measured:
    """Measure every model on every slice.

    Args:
        rankings: model name -> item rows by falling score, [n_queries, depth].
        relevance: the relevant items of the same queries.
        slices: from `build_slices`; each has at least one query.
        settings: k and the number of resamples.
        compare: the two models whose paired difference is reported, where both are there.
        seed: of the resampling.
    """
    rows: list[MetricRow] = []
    differences: list[DifferenceRow] = []
    for part in slices:
        wanted = relevance.restrict(part.entries)
        metrics = {model: per_query(ranked, wanted, settings.k) for model, ranked in rankings.items()}
        resampled = resample(metrics, settings.k, settings.bootstrap, seed)
        rows += _rows(resampled, part.name, list(rankings), settings.k)
        if {*compare} <= {*rankings}:
            differences += _differences(resampled, part.name, compare, settings.k)
    return Measured(rows, differences)


def _rows(resampled: Resampled, name: str, models: Sequence[str], k: int) -> list[MetricRow]:
    return [
        MetricRow(model, name, metric, i.value, i.low, i.high, resampled.queries)
        for model in models
        for metric in metric_names(k)
        for i in (resampled.interval(model, metric),)
    ]


def _differences(resampled: Resampled, name: str, compare: tuple[str, str], k: int) -> list[DifferenceRow]:
    first, second = compare
    return [
        DifferenceRow(first, second, name, metric, i.value, i.low, i.high, resampled.queries)
        for metric in metric_names(k)
        for i in (resampled.difference(first, second, metric),)
    ]
