"""What a report shows beside its figures: queries gained and lost, and where the gate asks for pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smar.evaluation.metrics import Floats, Integers, Relevance, grades_at, per_query
from smar.evaluation.slices import Slice


@dataclass(frozen=True)
class Hit:
    """A shown item: its title, and whether it is relevant."""

    title: str
    relevant: bool


@dataclass(frozen=True)
class Example:
    """A query, each model's recall and first hits, and the gate's probability (None: there is no gate)."""

    query: str
    recall: Mapping[str, float]
    lists: Mapping[str, Sequence[Hit]]
    probability: float | None


@dataclass(frozen=True)
class Gate:
    """The gate on the test queries.

    probability: [n_queries]; threshold: a query goes to the pictures above it; routed: slice -> share of its
    queries that do; needs_image: truth [n_queries], NaN where unknown, None where nothing is known.
    """

    probability: Floats
    threshold: float
    routed: Mapping[str, float]
    needs_image: Floats | None


def routed_shares(
    probability: Floats, threshold: float, relevance: Relevance, slices: Sequence[Slice]
) -> dict[str, float]:
    """Share of each slice's queries whose probability [n_queries] is above the threshold."""
    query = relevance.query
    return {s.name: float((probability[np.unique(query[s.entries])] > threshold).mean()) for s in slices}


def pick_examples(
    queries: Sequence[str],
    titles: Sequence[str],
    rankings: Mapping[str, Integers],
    relevance: Relevance,
    k: int,
    probability: Floats | None = None,
    compare: tuple[str, str] = ("smar", "dpsr"),
    count: int = 4,
    shown: int = 5,
) -> list[Example]:
    """The queries with the largest gain of recall of one model over another, then the largest losses.

    Args:
        queries: texts [n_queries]; titles: of the items, by row.
        rankings: model name -> item rows [n_queries, depth].
        relevance: of the same queries.
        k: recall's cut-off.
        probability: the gate's, [n_queries].
        compare: the two models; without both there are no examples.
        count: examples of each kind, fewer where fewer queries differ.
        shown: hits in a list.
    """
    if not {*compare} <= {*rankings}:
        return []
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
                Hit(titles[item], bool(grade))
                for item, grade in zip(ranked[row, :shown].tolist(), grades[model][row], strict=True)
                if item >= 0
            ]
            for model, ranked in rankings.items()
        }
        recall = {model: float(m.recall[at]) for model, m in metrics.items()}
        gate = None if probability is None else float(probability[row])
        examples.append(Example(queries[row], recall, lists, gate))
    return examples
