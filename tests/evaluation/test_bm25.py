"""BM25 against the formula, word for word."""

import math

import bm25s
import numpy as np
import pytest

from smar.data import word_matrix
from smar.data.bm25 import Bm25, build
from smar.data.words import words
from smar.evaluation.word_baseline import bm25_blocks, with_hybrid

TEXTS = ["Red dress, 2 pockets", "blue DRESS", "kettle 1.7 L red red", "", "Ärmelloses Kleid"]


def slow(query: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
    documents = [words(text) for text in TEXTS]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        total = 0.0
        for word in words(query):
            holding = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
            count = document.count(word)
            total += idf * count / (count + k1 * (1 - b + b * len(document) / mean))
        scores.append(total)
    return scores


def test_scores_follow_the_formula_up_to_its_constant() -> None:
    index = Bm25(TEXTS)
    for query in ("red dress", "KETTLE red", "1 7", "ärmelloses kleid", "red red dress"):
        want, got = np.array(slow(query)), index.scores(query)
        found = want > 0
        assert (got > 0).tolist() == found.tolist()
        ratio = got[found] / want[found]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)  # Lucene leaves out the factor k1 + 1, others do not


@pytest.mark.parametrize("together", [64, 1 << 20])
def test_the_matrix_is_the_librarys_own_however_many_texts_are_counted_at_a_time(
    together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(word_matrix, "_WORDS", together)
    random = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in random.zipf(1.5, random.integers(0, 9)).clip(max=50)) for _ in range(300)]
    ours = build(texts)
    assert ours is not None
    vocabulary = {word: number for word, number in ours.vocab_dict.items() if word}
    ids = [[vocabulary[word] for word in words(text)] for text in texts]
    library = bm25s.BM25(k1=1.5, b=0.75, method="lucene", backend="numpy")
    library.index((ids, dict(vocabulary)), show_progress=False)
    mean = word_matrix.word_matrix(texts).mean_length
    assert (mean, ours.vocab_dict) == (sum(map(len, ids)) / len(ids), library.vocab_dict)
    for name in ("indptr", "indices"):
        np.testing.assert_array_equal(ours.scores[name], library.scores[name])
    np.testing.assert_allclose(ours.scores["data"], library.scores["data"], rtol=1e-6)


def test_no_known_word_finds_nothing() -> None:
    for query in ("", "zebra", "?!"):
        assert not Bm25(TEXTS).scores(query).any()
    assert not Bm25(["", "..."]).scores("red").any()


def test_a_text_without_a_word_of_the_query_is_not_retrieved() -> None:
    ((first, scores),) = bm25_blocks(Bm25(["red dress", "blue"]), ["dress", "blue", "none"])
    assert first == 0
    assert (scores["bm25"] > -np.inf).tolist() == [[True, False], [False, True], [False, False]]


def test_hybrid_adds_reciprocal_ranks_up_and_lists_what_either_lists() -> None:
    queries, index = ["red dress", "kettle", "nowhere"], Bm25(TEXTS)
    vectors = np.random.default_rng(0).normal(size=(3, len(TEXTS))).astype(np.float32)
    vectors[:, 4] = -np.inf
    ((first, scores),) = with_hybrid(iter([(0, {"dpsr": vectors})]), "dpsr", "hybrid", index, queries)
    assert (first, list(scores)) == (0, ["dpsr", "hybrid"])
    for row, query in enumerate(queries):
        lists = [slow(query), vectors[row].tolist()]
        want = [0.0] * len(TEXTS)
        for listed, least in zip(lists, (0, -np.inf), strict=True):
            order = sorted((n for n in range(len(TEXTS)) if listed[n] > least), key=lambda n: -listed[n])
            for place, n in enumerate(order, 1):
                want[n] += 1 / (60 + place)
        np.testing.assert_allclose(scores["hybrid"][row], [value or -np.inf for value in want], rtol=1e-6)


def test_without_words_there_is_no_hybrid() -> None:
    ((_, scores),) = with_hybrid(iter([(0, {"dpsr": np.ones((1, 2), np.float32)})]), "dpsr", "hybrid", None, ["red"])
    assert list(scores) == ["dpsr"]
