"""Rankings and places from blocks of scores, against slow twins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smar.evaluation.metrics import Relevance
from smar.evaluation.scores import Catalogue, Task, choose, mix, mixed_blocks, places, rank, rank_blocks

SCORES = st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=5)


@given(scores=SCORES, depth=st.integers(1, 8))
def test_rank_sorts_by_score_then_row(scores, depth):
    block = np.array(scores, np.float32)
    got = rank(block, depth)
    slow = [sorted(range(6), key=lambda item: (-row[item], item))[:depth] for row in block]
    values = np.take_along_axis(block, got, 1)
    assert values.tolist() == [[row[item] for item in order] for row, order in zip(block, slow, strict=True)]
    assert all(len(set(row)) == len(row) for row in got.tolist())


def test_what_is_not_retrieved_has_no_rank():
    assert rank(np.array([[-np.inf, 2, -np.inf, 3]], np.float32), 3).tolist() == [[3, 1, -1]]


@given(
    scores=SCORES, wanted=st.sets(st.tuples(st.integers(0, 4), st.integers(0, 5)), min_size=1), lost=st.integers(0, 3)
)
def test_places_equal_the_ranking_without_the_other_relevant_items(scores, wanted, lost):
    block = np.array(scores, np.float32)
    block[block < lost] = -np.inf
    relevance = Relevance.from_pairs(*zip(*sorted(wanted), strict=True), [1] * len(wanted), queries=5)
    first = 5 - len(block)  # a block in the middle of the queries
    pairs = np.arange(relevance.offsets[first], relevance.offsets[5])
    got = places(block, first, relevance, pairs)
    for place, entry in zip(got, pairs, strict=True):
        query, item = relevance.query[entry], relevance.items[entry]
        others = {i for q, i in wanted if q == query} - {item}
        row = block[query - first]
        order = [i for i in sorted(range(6), key=lambda i: (-row[i], i)) if i not in others and row[i] > -np.inf]
        assert place == (order.index(item) + 1 if item in order else 7)


def test_the_gate_mixes_the_two_scores_per_query_and_per_item():
    rng = np.random.default_rng(0)
    text, multimodal, query = (rng.normal(size=(n, 4)).astype(np.float32) for n in (6, 6, 3))
    p = np.array([[0.0], [0.25], [1.0]], np.float32)
    each = rng.random((1, 6)).astype(np.float32)
    catalogue = Catalogue(text, text, multimodal)
    blocks = list(mixed_blocks(query, catalogue, {"query": p, "item": each, "always": p[2:]}, size=2))
    assert [first for first, _ in blocks] == [0, 2]
    got = {name: np.concatenate([scores[name] for _, scores in blocks]) for name in ("query", "item", "always")}
    for q in range(3):
        for i in range(6):
            f_m, f_t = multimodal[i] @ query[q], text[i] @ query[q]
            assert got["query"][q, i] == pytest.approx(p[q, 0] * f_m + (1 - p[q, 0]) * f_t, abs=1e-5)
            assert got["item"][q, i] == pytest.approx(each[0, i] * f_m + (1 - each[0, i]) * f_t, abs=1e-5)
            assert got["always"][q, i] == pytest.approx(f_m, abs=1e-5)


def test_a_model_of_one_vector_an_item_ignores_the_gate():
    rng = np.random.default_rng(1)
    text, query = rng.normal(size=(6, 4)).astype(np.float32), rng.normal(size=(2, 4)).astype(np.float32)
    ((_, scores),) = mixed_blocks(query, Catalogue(text, text, text), {"a": np.full((2, 1), 0.3, np.float32)})
    assert scores["a"] == pytest.approx(mix(np.float32(0.3), query @ text.T, query @ text.T), abs=1e-6)


def test_blocks_are_put_together_in_order():
    rng = np.random.default_rng(2)
    scores = rng.random((5, 8)).astype(np.float32)
    relevance = Relevance.from_pairs([0, 0, 2, 3, 4, 4], [1, 5, 2, 7, 0, 3], [1] * 6, queries=5)
    task = Task(relevance, k=2, depth=3, pairs=np.array([1, 3, 4]))
    whole = rank_blocks(iter([(0, {"a": scores})]), task)["a"]
    parts = rank_blocks(((start, {"a": scores[start : start + 2]}) for start in (0, 2, 4)), task)["a"]
    assert parts.ranking.tolist() == whole.ranking.tolist() == rank(scores, 3).tolist()
    assert parts.places.tolist() == whole.places.tolist() == places(scores, 0, relevance, task.pairs).tolist()
    other = rank_blocks(iter([(0, {"a": -scores})]), task)["a"]
    chosen = choose(np.array([True, False, True, False, True]), whole, other, task)
    assert chosen.ranking[[0, 2, 4]].tolist() == whole.ranking[[0, 2, 4]].tolist()
    assert chosen.ranking[[1, 3]].tolist() == other.ranking[[1, 3]].tolist()
    assert chosen.places.tolist() == [whole.places[0], other.places[1], whole.places[2]]
