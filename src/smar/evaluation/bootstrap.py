"""How sure a figure is: percentile bootstrap over queries, and the paired bootstrap of two models'
difference.

The queries of a slice are drawn with replacement, many times; each draw gives every model's means, and F1
from the drawn means. All models see the same draws, so the difference of two models is paired: queries that
are hard for both cancel out. 95 % intervals are the 2.5th and 97.5th percentile.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smar.evaluation.metrics import Floats, Integers, QueryMetrics, f1, metric_names

_BLOCK = 4_000_000
"""Draw counts held at once (resamples x queries); bounds the memory."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Resampled:
    """Figures per (model, metric) of one slice: as measured, and in each resample [resamples]."""

    queries: int
    measured: Mapping[tuple[str, str], float]
    draws: Mapping[tuple[str, str], Floats]

    def interval(self, model: str, metric: str) -> Interval:
        """A model's figure."""
        return interval_of(self.measured[model, metric], self.draws[model, metric])

    def difference(self, first: str, second: str, metric: str) -> Interval:
        """Paired difference `first` minus `second`."""
        value = self.measured[first, metric] - self.measured[second, metric]
        return interval_of(value, self.draws[first, metric] - self.draws[second, metric])

    def with_means(self, means: Mapping[str, Sequence[str]]) -> "Resampled":
        """With rows that are means of others (name -> their names), each before the first of them."""
        first = {members[0]: name for name, members in means.items()}
        parts: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for model in dict.fromkeys(model for model, _ in self.measured):
            metrics = [metric for name, metric in self.measured if name == model]
            for row in filter(None, (first.get(model), model)):
                members = means.get(row, [model])
                parts |= {(row, metric): [(member, metric) for member in members] for metric in metrics}
        measured = {key: float(np.mean([self.measured[of] for of in keys])) for key, keys in parts.items()}
        draws = {key: np.mean([self.draws[of] for of in keys], axis=0) for key, keys in parts.items()}
        return Resampled(self.queries, measured, draws)


def interval_of(value: float, draws: Floats) -> Interval:
    """The measured value with the 2.5th and 97.5th percentile of its draws [resamples]."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(float(value), float(low), float(high))


def draw_counts(queries: int, resamples: int, seed: int) -> Iterator[Integers]:
    """How often each query is drawn, in blocks of resamples: [block, queries]."""
    rng = np.random.default_rng(seed)
    size = max(_BLOCK // queries, 1)
    for start in range(0, resamples, size):
        picks = rng.integers(queries, size=(min(size, resamples - start), queries))
        picks += np.arange(len(picks))[:, None] * queries
        yield np.bincount(picks.ravel(), minlength=picks.size).reshape(picks.shape)


def resample_means(values: Floats, resamples: int, seed: int) -> Floats:
    """Column means of `values` [queries, columns] over drawn queries: [resamples, columns]."""
    queries = len(values)
    return np.concatenate([counts @ values / queries for counts in draw_counts(queries, resamples, seed)])


def resample(metrics: Mapping[str, QueryMetrics], k: int, resamples: int, seed: int = 0) -> Resampled:
    """Bootstrap every metric of every model over the same queries.

    Args:
        metrics: model name -> metrics of one slice; all of the same queries, at least one.
        k: cut-off in the metric names.
        resamples: number of draws.
        seed: the same seed gives the same intervals.
    """
    rows = next(iter(metrics.values())).rows
    if not len(rows) or any(not np.array_equal(rows, other.rows) for other in metrics.values()):
        raise ValueError("the models of a slice must share its queries, and there must be one")
    values = np.column_stack([x for m in metrics.values() for x in (m.recall, m.precision, m.ndcg, m.rr)])
    draws = resample_means(values, resamples, seed)
    measured = values.mean(axis=0, keepdims=True)
    return Resampled(
        len(rows),
        {key: float(x[0]) for key, x in _named(metrics, measured, k)},
        dict(_named(metrics, draws, k)),
    )


def resample_recall(recall: Mapping[str, Floats], k: int, resamples: int, seed: int = 0) -> Resampled:
    """The same for a slice of which only the recall is known: model -> recall of the same queries [n]."""
    values = np.column_stack(list(recall.values()))
    draws = resample_means(values, resamples, seed)
    names = [(model, metric_names(k)[0]) for model in recall]
    return Resampled(
        len(values),
        dict(zip(names, values.mean(axis=0).tolist(), strict=True)),
        dict(zip(names, draws.T, strict=True)),
    )


def _named(metrics: Mapping[str, QueryMetrics], means: Floats, k: int) -> list[tuple[tuple[str, str], Floats]]:
    """Columns of means [n, 4 x models] -> (model, metric) with F1 added."""
    named = []
    for number, model in enumerate(metrics):
        recall, precision, ndcg, rr = means[:, 4 * number : 4 * number + 4].T
        columns = (recall, precision, f1(precision, recall), ndcg, rr)
        named += [((model, name), column) for name, column in zip(metric_names(k), columns, strict=True)]
    return named
