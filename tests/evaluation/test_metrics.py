"""Metrics against slow twins, against ir_measures, and against the paper's definitions."""

import math

import hypothesis.strategies as st
import ir_measures
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from smar.core.errors import InputError
from smar.evaluation.metrics import Relevance, f1, grades_at, metric_names, per_query, read_judgements

Judged = dict[int, dict[int, int]]


def slow(ranking: list[int], grades: dict[int, int], k: int) -> tuple[float, float, float, float]:
    """Recall, precision, nDCG, reciprocal rank of one query, by the definitions."""
    wanted = {item for item, grade in grades.items() if grade > 0}
    hits = len([item for item in ranking[:k] if item in wanted])
    gain = sum((2 ** grades.get(item, 0) - 1) / math.log2(place + 2) for place, item in enumerate(ranking[:k]))
    best = sorted(grades.values(), reverse=True)[:k]
    ideal = sum((2**grade - 1) / math.log2(place + 2) for place, grade in enumerate(best))
    first = next((place for place, item in enumerate(ranking) if item in wanted), None)
    return hits / len(wanted), hits / k, gain / ideal, 0.0 if first is None else 1 / (first + 1)


def build(judged: Judged, queries: int) -> Relevance:
    rows = [(q, item, grade) for q, grades in judged.items() for item, grade in grades.items()]
    columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
    return Relevance.from_pairs(*columns, queries=queries)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Judged, int]:
    queries, pool = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    depth = draw(st.integers(1, pool))
    rankings = [draw(st.permutations(range(pool)))[:depth] for _ in range(queries)]
    grades = st.dictionaries(st.integers(0, pool + 3), st.integers(0, 3), max_size=pool)
    return np.array(rankings), {q: draw(grades) for q in range(queries)}, draw(st.integers(1, 15))


@given(cases())
@settings(max_examples=200, deadline=None)
def test_per_query_equals_its_slow_twin(case: tuple[np.ndarray, Judged, int]) -> None:
    ranked, judged, k = case
    got = per_query(ranked, build(judged, len(ranked)), k)
    counted = [q for q in range(len(ranked)) if any(judged[q].values())]
    assert got.rows.tolist() == counted
    want = np.array([slow(ranked[q].tolist(), judged[q], k) for q in counted]).reshape(-1, 4)
    np.testing.assert_allclose(np.column_stack([got.recall, got.precision, got.ndcg, got.rr]), want, atol=1e-12)


@given(cases())
@settings(max_examples=50, deadline=None)
def test_every_metric_is_between_0_and_1(case: tuple[np.ndarray, Judged, int]) -> None:
    ranked, judged, k = case
    got = per_query(ranked, build(judged, len(ranked)), k)
    for values in (got.recall, got.precision, got.ndcg, got.rr):
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()


def test_agrees_with_ir_measures() -> None:
    rng = np.random.default_rng(0)
    queries, pool, depth, k = 60, 300, 80, 50
    ranked = np.array([rng.permutation(pool)[:depth] for _ in range(queries)])
    judged = {
        q: {int(i): int(rng.integers(1, 4)) for i in rng.permutation(pool)[: rng.integers(1, 70)]}
        for q in range(queries)
    }
    got = per_query(ranked, build(judged, queries), k)
    qrels = [ir_measures.Qrel(str(q), str(i), g) for q, grades in judged.items() for i, g in grades.items()]
    run = [ir_measures.ScoredDoc(str(q), str(i), float(-n)) for q in range(queries) for n, i in enumerate(ranked[q])]
    gains = {0: 0, 1: 1, 2: 3, 3: 7}
    measures = {
        ir_measures.R @ k: got.recall,
        ir_measures.P @ k: got.precision,
        ir_measures.nDCG(cutoff=k, gains=gains): got.ndcg,
        ir_measures.RR: got.rr,
    }
    theirs = {m: {} for m in measures}
    for metric in ir_measures.iter_calc(list(measures), qrels, run):
        theirs[metric.measure][int(metric.query_id)] = metric.value
    for measure, ours in measures.items():
        want = [theirs[measure][q] for q in range(queries)]
        np.testing.assert_allclose(ours, want, atol=1e-6, err_msg=str(measure))


def test_f1_is_of_the_means_and_gives_the_papers_figures() -> None:
    # docs/paper.md: R .349 P .018, R .641 P .031, R .690 P .033
    got = f1(np.array([0.018, 0.031, 0.033]), np.array([0.349, 0.641, 0.690]))
    np.testing.assert_allclose(got, [0.034, 0.059, 0.063], atol=5e-4)
    assert f1(np.zeros(1), np.zeros(1)) == 0


def test_names() -> None:
    assert metric_names(50) == ("R@50", "P@50", "F1@50", "nDCG@50", "MRR")


def test_from_pairs_keeps_the_highest_grade_and_drops_grade_0() -> None:
    got = Relevance.from_pairs([2, 0, 0, 2, 0], [5, 9, 1, 5, 4], [1, 1, 2, 3, 0], queries=4)
    assert got.offsets.tolist() == [0, 2, 2, 3, 3]
    assert (got.items.tolist(), got.grades.tolist()) == ([1, 9, 5], [2, 1, 3])
    assert got.query.tolist() == [0, 0, 2]


def test_restrict_keeps_query_numbers() -> None:
    got = Relevance.from_pairs([0, 0, 1, 2], [1, 2, 3, 4], [1, 1, 1, 1], queries=3)
    cut = got.restrict(np.array([False, True, False, True]))
    assert (cut.offsets.tolist(), cut.items.tolist()) == ([0, 1, 1, 2], [2, 4])


def test_a_rank_of_minus_one_is_nothing() -> None:
    # -1 next to query 0's last item must not be taken for it
    relevance = Relevance.from_pairs([0, 1], [7, 3], [1, 1], queries=2)
    assert grades_at(np.array([[7, -1], [-1, 3]]), relevance).tolist() == [[1, 0], [0, 1]]


def test_nothing_relevant_counts_nothing() -> None:
    empty = Relevance.from_pairs([], [], [], queries=2)
    assert len(per_query(np.zeros((2, 3), dtype=np.int64), empty, 3).rows) == 0


def test_a_ranking_of_other_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="3 queries"):
        per_query(np.zeros((2, 3), dtype=np.int64), Relevance.from_pairs([0], [0], [1], queries=3), 3)


def test_read_judgements() -> None:
    qrels = pa.table({"query": ["b", "a", "b", "c"], "item_id": ["x", "y", "gone", "gone"], "relevance": [1, 2, 1, 1]})
    got = read_judgements(qrels, pa.chunked_array([["y"], ["x"]]))
    assert (got.queries, got.unknown) == (["b", "a"], 2)
    assert got.relevance.items.tolist() == [1, 0]
    assert got.relevance.grades.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": ["a"], "item_id": ["x"]}, "need query, item_id, relevance"),
        ({"query": ["a"], "item_id": ["nope"], "relevance": [1]}, "another dataset"),
        ({"query": [None], "item_id": ["x"], "relevance": [1]}, "nulls"),
    ],
)
def test_wrong_qrels_are_refused(columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_judgements(pa.table(columns), ["x"])
