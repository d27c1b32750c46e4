"""What a report shows beside its figures: queries gained and lost, and queries at both ends of the gate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smar.evaluation.metrics import Floats, Integers, Relevance, grades_at, per_query


@dataclass(frozen=True)
class ShownItem:
    """A shown item: its row in the catalogue, its title, and whether it is relevant."""

    item: int
    title: str
    relevant: bool


@dataclass(frozen=True)
class Example:
    """A query, each model's recall and first hits, and the gate's probability (None: there is no gate)."""

    query: str
    recall: Mapping[str, float]
    lists: Mapping[str, Sequence[ShownItem]]
    probability: float | None


def pick_examples(
    queries: Sequence[str],
    titles: Sequence[str],
    rankings: Mapping[str, Integers],
    relevance: Relevance,
    k: int,
    compare: tuple[str, str],
    probability: Floats | None = None,
    count: int = 4,
    shown: int = 5,
) -> list[Example]:
    """The queries with the largest gain of recall of one model over another, then the largest losses.

    Args:
        queries: texts [n_queries]; titles: of the items, by row.
        rankings: model name -> item rows [n_queries, depth].
        relevance: of the same queries.
        k: recall's cut-off.
        compare: the two models.
        probability: the gate's, [n_queries].
        count: examples of each kind, fewer where fewer queries differ.
        shown: hits in a list.
    """
    metrics = {model: per_query(ranked, relevance, k) for model, ranked in rankings.items()}
    rows = metrics[compare[0]].rows
    gain = metrics[compare[0]].recall - metrics[compare[1]].recall
    # Of equal gains, the one with more relevant items tells more.
    order = np.lexsort((rows, -relevance.counts[rows], -np.abs(gain)))
    chosen = [*[at for at in order if gain[at] > 0][:count], *[at for at in order if gain[at] < 0][:count]]
    grades = {model: grades_at(ranked[:, :shown], relevance) for model, ranked in rankings.items()}
    examples = []
    for at in chosen:
        row = int(rows[at])
        lists = {
            model: [
                ShownItem(item, titles[item], bool(grade))
                for item, grade in zip(ranked[row, :shown].tolist(), grades[model][row], strict=True)
                if item >= 0
            ]
            for model, ranked in rankings.items()
        }
        recall = {model: float(m.recall[at]) for model, m in metrics.items()}
        gate = None if probability is None else float(probability[row])
        examples.append(Example(queries[row], recall, lists, gate))
    return examples


@dataclass(frozen=True)
class RoutedQuery:
    """A query at one end of the gate: its probability, and the recall of text and of multimodal vectors."""

    query: str
    probability: float
    text: float
    multimodal: float


def pick_routed(
    queries: Sequence[str], probability: Floats, text: Floats, multimodal: Floats, rows: Integers, count: int = 8
) -> tuple[list[RoutedQuery], list[RoutedQuery]]:
    """The queries that the gate sends to the pictures most surely, and those that it keeps to the words.

    Args:
        queries: texts [n_queries]; probability: the gate's [n_queries].
        text, multimodal: recall with either vectors, [rows].
        rows: numbers of the queries that have a recall.
        count: queries of either end; no query is at both.
    """
    order = np.argsort(-probability[rows], kind="stable")
    count = min(count, len(order) // 2)
    shown = [
        RoutedQuery(queries[rows[at]], float(probability[rows[at]]), float(text[at]), float(multimodal[at]))
        for at in (*order[:count], *order[::-1][:count])
    ]
    return shown[:count], shown[count:]
