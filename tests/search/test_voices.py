"""Words, text vectors and multimodal vectors with a share each: the index against the sum over all items."""

import math
from pathlib import Path

import numpy as np
import pytest

from smar.core.errors import InputError
from smar.data.bm25 import Bm25
from smar.data.voices import FEATURES, VOICES_FILE, Voices, most_typed, query_features
from smar.data.words import words
from smar.search.filter_parser import parse_filter
from smar.search.local.build import build_index
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.postings import Entries, best_rows, word_scores
from smar.search.protocol import Mode
from smar.search.query import QueryVectors
from tiny_index import rewrite_manifest, write_embeddings

ITEMS, FIELDS = 300, ("title", "brand", "category")
QUERIES = ["red shirt", "nike", "small pink watch small", "blue", "casio unheardof"]
VOICES = Voices(
    typed=("nike", "red", "watch"),
    mean=(0.5, 1.0, 0.3, 0.2, 0.1, 0.5),
    scale=(2.0, 0.5, 0.3, 0.2, 0.4, 0.5),
    words=(-0.3, 0.4, 0.9, -0.5, -1.0, 0.3, -0.2),
    pictures=(0.8, 0.1, -0.2, 0.3, 0.0, 0.2, 0.4),
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> EmbeddedIndex:
    folder = write_embeddings(tmp_path_factory.mktemp("voices") / "embeddings", ITEMS)
    rewrite_manifest(folder, text_fields=FIELDS)
    build_index(folder, folder.parent / "index")
    opened = EmbeddedIndex.open(folder.parent / "index")
    opened.encoder.voices = VOICES
    return opened


def slow_shares(query: str, bm25: Bm25, p: float) -> tuple[float, float, float]:
    own = words(query)
    rarity = {word: bm25.idf(word) / bm25.unit for word in own}
    total = sum(rarity.values())
    x = [
        math.log(p / (1 - p)),
        math.log(1 + len(own)),
        max(rarity.values()),
        total / len(rarity),
        sum(value for value in rarity.values() if value == 1) / total,
        sum(value for word, value in rarity.items() if word in VOICES.typed) / total,
    ]
    x = [(value - mean) / scale for value, mean, scale in zip(x, VOICES.mean, VOICES.scale, strict=True)]
    logits = (sum(map(math.prod, zip(x, w[:-1], strict=True))) + w[-1] for w in (VOICES.words, VOICES.pictures))
    a, c = (1 / (1 + math.exp(-logit)) for logit in logits)
    return a, (1 - a) * (1 - c), (1 - a) * c


@pytest.mark.parametrize("chosen", [None, "category=Shirt", "price<20"])
@pytest.mark.parametrize("query", QUERIES[:4])
def test_adaptive_is_the_sum_of_the_three_scores_over_all_items(index: EmbeddedIndex, query: str, chosen: str | None):
    filter = None if chosen is None else parse_filter(chosen, index.schema)
    rows = index.segments[0].catalogue.table.to_pylist()
    bm25 = Bm25([" ".join(str(row[name] or "") for name in FIELDS) for row in rows])
    vectors = index.encoder.encode([query])
    share = slow_shares(query, bm25, float(vectors.image_probability[0]))
    every = {hit.row: hit for hit in index.search(vectors, 1000, Mode.TEXT, filter)[0]}
    by_words = bm25.scores(query) / bm25.unit
    score = {
        row: share[0] * by_words[row] + share[1] * hit.text_score + share[2] * hit.multimodal_score
        for row, hit in every.items()
    }
    hits = index.search(vectors, 40, Mode.ADAPTIVE, filter)[0]
    expected = sorted(score.values(), reverse=True)[:40]
    np.testing.assert_allclose([hit.score for hit in hits], expected, atol=1e-5)
    for hit in hits:
        assert hit.score == pytest.approx(score[hit.row], abs=1e-5)
        assert hit.words_score == pytest.approx(by_words[hit.row] * bm25.unit, abs=1e-4)


def test_queries_that_are_vectors_alone_are_asked_in_two_ways(index: EmbeddedIndex):
    vectors = index.encoder.encode(QUERIES)
    bare = QueryVectors(vectors.embedding, vectors.image_probability)
    p = vectors.image_probability
    for at, hits in enumerate(index.search(bare, 5, Mode.ADAPTIVE)):
        for hit in hits:
            assert hit.words_score is None
            assert hit.score == pytest.approx(p[at] * hit.multimodal_score + (1 - p[at]) * hit.text_score, abs=1e-5)


def test_a_word_that_no_item_holds_is_read_as_another(index: EmbeddedIndex):
    written, misspelt = (index.rank(index.encoder.encode([query]), 5)[0] for query in ("yellow watch", "yelow watch"))
    assert misspelt.corrected == {"yelow": ["yellow"]}
    assert written.corrected == {}
    assert set(misspelt.rows[:3].tolist()) == set(written.rows[:3].tolist())


def test_shares_add_up_and_follow_their_features():
    bm25 = Bm25(["red shirt", "blue shirt", "kettle"])
    features = query_features(QUERIES, bm25, frozenset({"red"}), np.array([0, 0.2, 0.5, 0.9, 1], np.float32))
    assert features.shape == (5, len(FEATURES))
    assert np.isfinite(features).all()
    np.testing.assert_allclose(VOICES.shares(features).sum(1), 1)
    never = Voices(mean=(0,) * 6, scale=(1,) * 6, words=(0,) * 7, pictures=(0,) * 6 + (-30,))
    assert never.shares(features)[:, 2].max() < 1e-12


def test_the_file_is_read_back_or_refused(tmp_path: Path):
    assert Voices.read(tmp_path) is None
    VOICES.write(tmp_path)
    assert Voices.read(tmp_path) == VOICES
    text = (tmp_path / VOICES_FILE).read_text()
    for damage in (text[:-9], text.replace('"mean":[0.5,', '"mean":[')):
        (tmp_path / VOICES_FILE).write_text(damage)
        with pytest.raises(InputError, match="damaged"):
            Voices.read(tmp_path)


def test_the_words_of_most_queries():
    assert most_typed([["b", "a"], ["b", "b"], ["c"]], most=2) == ["a", "b"]


def test_rows_above_a_floor_are_all_found(index: EmbeddedIndex):
    base = index.segments[0].words
    for query in (*QUERIES, "small classic cotton shirt new", "steel"):
        entries = Entries.of(base, base.query(query))
        every, scores = best_rows(entries, ITEMS, None)
        np.testing.assert_array_equal(word_scores(entries, every), scores)
        for floor in (0.0, *np.quantile(scores, [0.2, 0.5, 0.9]), scores[0] + 1):
            found, scored = best_rows(entries, ITEMS, None, float(floor))
            above = every[scores >= floor]
            assert set(above.tolist()) <= set(found.tolist()) <= set(every.tolist())
            np.testing.assert_array_equal(scored, np.sort(word_scores(entries, found))[::-1])
