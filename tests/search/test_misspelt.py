"""Words that no item holds: what stands in for them, how much it counts, and that known words are left alone."""

import json
import random
import shutil
import string
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smar.core.errors import InputError
from smar.data.words import words
from smar.search.items import Items
from smar.search.local.build import build_index
from smar.search.local.fallback import Part, ask
from smar.search.local.live import UpdatableIndex
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.postings import Entries, WordQuery, best_rows, word_scores
from smar.search.local.word_index import WordIndex, write_words
from smar.search.protocol import Mode
from smar.serving.answered import identified
from smar.serving.answers import as_json, result_out
from smar.serving.engine import Engine
from smar.serving.search_schemas import SearchResponse
from tiny_index import DIM, FINGERPRINT, write_embeddings

HOME_DEPOT = Path(__file__).parents[3] / "shared" / "data" / "homedepot"
SHOP = (
    "white canvas sneakers",
    "leather sneakers for running",
    "blue sommerkleider",
    "ceiling fan with light",
    "ceiling paint",
    "cordless drill dcd791",
    "stainless dishwasher",
    "curtain rod",
    "curtain linen",
    "linen curtain grey",
    "curtin",
    "pantalones vaqueros",
    "красное платье",
    "kahvinkeitin musta",
    "赤い ワンピース 连衣 衣裙",
    "chandelier brass",
    "refrigerator",
    "cup cop cap",
)
Indexed = Callable[[Sequence[str]], WordIndex]


@pytest.fixture
def indexed(tmp_path: Path) -> Indexed:
    return lambda titles: write_words(pa.table({"title": list(titles)}), ["title"], tmp_path / "words")


def read(index: WordIndex, query: str) -> dict[str, list[str]]:
    return {word: list(found) for word, found in asked(index, query).corrected().items()}


def asked(index: WordIndex, query: str) -> WordQuery:
    return ask([Part(index, None)], query)


def titles_of(index: WordIndex, query: str, titles: Sequence[str] = SHOP) -> list[str]:
    return [titles[row] for row in best_rows(Entries.of(index, asked(index, query)), 5, None)[0]]


@pytest.mark.parametrize(
    ("query", "likeliest", "title"),
    [
        ("sneekers", "sneakers", "white canvas sneakers"),
        ("snekers", "sneakers", "white canvas sneakers"),
        ("snaekers", "sneakers", "white canvas sneakers"),
        ("refridgerater", "refrigerator", "refrigerator"),
        ("chandalier", "chandelier", "chandelier brass"),
        ("kleid", "sommerkleider", "blue sommerkleider"),
        ("sommerkleid", "sommerkleider", "blue sommerkleider"),
        ("winterpantalones", "pantalones", "pantalones vaqueros"),
        ("ceilingfan", "ceiling fan", "ceiling fan with light"),
        ("dish washer", "dishwasher", "stainless dishwasher"),
        ("dishwaser", "dishwasher", "stainless dishwasher"),
        ("pantelones", "pantalones", "pantalones vaqueros"),
        ("платья", "платье", "красное платье"),
        ("kahvinkeittimen", "kahvinkeitin", "kahvinkeitin musta"),
        ("fann", "fan", "ceiling fan with light"),
        ("pait", "paint", "ceiling paint"),
        ("rd drll", "drill", "cordless drill dcd791"),
    ],
)
def test_what_stands_in(indexed: Indexed, query: str, likeliest: str, title: str) -> None:
    index = indexed(SHOP)
    assert likeliest in [found[0] for found in read(index, query).values()]
    assert titles_of(index, query)[0] == title


def test_a_compound_is_found_by_its_words_and_the_words_by_the_compound(indexed: Indexed) -> None:
    index = indexed(["kleid rot", "hose blau", "sommer"])
    assert best_rows(Entries.of(index, asked(index, "sommerkleider")), 5, None)[0].tolist() == [2, 0]
    assert best_rows(Entries.of(index, asked(index, "sommerkleid")), 5, None)[0].tolist() == [2, 0]


@pytest.mark.parametrize("query", ["dcd771", "dcd79", "x9", "ab", "连裙", "赤ワ", "qqqqqqq", "a_b", "", "🙂", "1/2"])
def test_nothing_stands_in(indexed: Indexed, query: str) -> None:
    """For model numbers, pieces of scripts without blanks, one or two letters, and what is like nothing."""
    assert read(indexed(SHOP), query) == {}


def test_known_words_are_left_alone(indexed: Indexed) -> None:
    index = indexed(SHOP)
    assert asked(index, "cap sneakers curtin") == index.query("cap sneakers curtin")
    assert list(read(index, "curtin rodd cap")) == ["rodd"]


def test_every_single_edit_is_undone(indexed: Indexed) -> None:
    known = sorted({word for title in SHOP for word in words(title) if word.isascii() and word.isalpha()})
    index = indexed([" ".join(known)])
    for word in [word for word in known if len(word) >= 4][::3]:
        places = range(len(word))
        made = {word[:at] + word[at + 1 :] for at in places}
        made |= {word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :] for at in places}
        for letter in string.ascii_lowercase[::5]:
            made |= {word[:at] + letter + word[at + 1 :] for at in places}
            made |= {word[:at] + letter + word[at:] for at in range(len(word) + 1)}
        for other in sorted(made - set(known)):
            assert word in index.likes(other), (word, other)


def test_what_many_items_hold_is_likelier_and_a_rare_one_does_not_win(indexed: Indexed) -> None:
    index = indexed([*["curtain"] * 50, "certan", "rug"])
    query = asked(index, "curtan")
    assert query.corrected() == {"curtan": ["curtain", "certan"]}
    scores = word_scores(Entries.of(index, query), np.arange(52))
    assert scores[0] > scores[50] > 0


def test_a_stand_in_counts_less_than_the_word_itself(indexed: Indexed) -> None:
    index = indexed(SHOP)
    rows = np.arange(len(SHOP))
    written, misspelt = (word_scores(Entries.of(index, asked(index, one)), rows) for one in ("sneakers", "sneekers"))
    assert np.all(misspelt[:2] < written[:2])
    assert np.all(misspelt[:2] > 0.9 * written[:2])
    assert asked(index, "sneekers").unit == index.query("sneakers").unit


@settings(max_examples=40)
@given(data=st.data())
def test_an_item_gets_the_best_of_the_readings(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Rows and scores against the definition, with words that stand in for each other by the dozen."""
    word = st.text("ab", min_size=3, max_size=6)
    texts = data.draw(st.lists(st.lists(word, max_size=4).map(" ".join), min_size=1, max_size=30))
    query_text = data.draw(st.lists(word, max_size=3).map(" ".join))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    index = write_words(pa.table({"title": texts}), ["title"], tmp_path_factory.mktemp("words") / "words")
    query = asked(index, query_text)

    def weight(name: str, row: int) -> float:
        rows, weights = index.posting(name)
        return float(dict(zip(rows.tolist(), weights.tolist(), strict=True)).get(row, 0))

    expected = np.zeros(len(texts))
    for name, count in query.counts.items():
        readings = query.readings.get(name, [((name, 1.0),)])
        for row in range(len(texts)):
            best = max(sum(factor * weight(one, row) for one, factor in reading) for reading in readings)
            expected[row] += count * best
    entries = Entries.of(index, query)
    np.testing.assert_allclose(word_scores(entries, np.arange(len(texts))), expected, rtol=1e-5)
    for allowed in (None, mask):
        found, _ = best_rows(entries, 5, allowed)
        kept = [row for row in range(len(texts)) if expected[row] > 0 and (allowed is None or allowed[row])]
        best = sorted(expected[kept], reverse=True)[:5]
        np.testing.assert_allclose(expected[found], best, rtol=1e-5)
    assert not any(map(index.holding, query.readings))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("misspelt")
    build_index(write_embeddings(path / "embeddings", 60), path / "index")
    return path / "index"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "index"))


def new_items(titles: dict[str, str]) -> Items:
    vectors = np.eye(DIM, dtype=np.float32)[: len(titles)]
    columns = pa.table({"item_id": list(titles), "title": list(titles.values())})
    return Items(FINGERPRINT, columns, vectors, vectors, [None] * len(titles))


def corrected(index: EmbeddedIndex, query: str) -> dict[str, Sequence[str]]:
    (ranked,) = index.rank(index.encoder.encode([query]), 10, Mode.HYBRID)
    return dict(ranked.corrected)


def first_hit(index: EmbeddedIndex, query: str) -> str:
    hits = index.search(index.encoder.encode([query]), 100, Mode.HYBRID)[0]
    return max(hits, key=lambda hit: hit.words_score or 0).item_id


def test_updates_are_read_and_deleted_words_are_forgotten(copied: Path) -> None:
    index = UpdatableIndex.open(copied)
    assert corrected(index.snapshot, "wacth") == {"wacth": ["watch"]}
    before = index.snapshot
    index.upsert(new_items({"new/1": "Umbrella", "new/2": "Wacth strap", "new/3": "Regenschirm"}))
    assert corrected(index.snapshot, "wacth") == {}  # an item of the update log holds it
    assert first_hit(index.snapshot, "wacth") == "new/2"
    assert corrected(index.snapshot, "umbrela schirm") == {"umbrela": ["umbrella"], "schirm": ["regenschirm"]}
    assert first_hit(index.snapshot, "umbrela") == "new/1"
    assert corrected(before, "umbrela") == {}
    index.delete(["new/2", "new/3"])
    reopened = UpdatableIndex.open(copied)
    for snapshot in (index.snapshot, reopened.snapshot):
        assert corrected(snapshot, "wacth") == {"wacth": ["watch"]}
        assert corrected(snapshot, "schirm") == {}
    index.compact()
    assert corrected(index.snapshot, "umbrela wacth") == {"umbrela": ["umbrella"], "wacth": ["watch"]}


def test_a_word_of_the_version_whose_items_are_gone_is_unknown(copied: Path) -> None:
    index = UpdatableIndex.open(copied)
    kettles = [row["item_id"] for row in index.snapshot.catalogue.table.to_pylist() if "kettle" in row["title"].lower()]
    assert index.snapshot.unheld("kettle") == 0
    index.delete(kettles)
    assert index.snapshot.unheld("kettle") == 1
    assert corrected(index.snapshot, "kettle ketle") == {}
    index.upsert(new_items({"new/1": "Kettles"}))
    assert corrected(index.snapshot, "kettle") == {"kettle": ["kettles"]}


def test_the_vectors_read_the_likeliest_word(folder: Path) -> None:
    index = EmbeddedIndex.open(folder)
    written, misspelt = (index.search(index.encoder.encode([query]), 60, Mode.HYBRID)[0] for query in ("red", "redd"))
    plain = index.search(index.encoder.encode(["redd"]), 60, Mode.ADAPTIVE)[0]
    scores = [{hit.item_id: hit.text_score for hit in hits} for hits in (written, misspelt, plain)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)
    assert scores[2] != pytest.approx(scores[1], abs=1e-2)


def test_the_answer_says_what_was_read(folder: Path) -> None:
    engine = Engine.open(folder)
    result = engine.search("Yelow WATCH", 5, Mode.HYBRID)
    answer = SearchResponse.model_validate_json(identified(as_json(result_out(result)))[1])
    assert answer.query == "yelow watch"
    assert answer.corrected == {"yelow": ["yellow"]}
    for query, mode in (("yelow watch", Mode.ADAPTIVE), ("yellow watch", Mode.HYBRID)):
        assert json.loads(as_json(result_out(engine.search(query, 5, mode))))["corrected"] == {}


def test_files_of_n_grams_that_do_not_fit_each_other_are_refused(copied: Path) -> None:
    np.save(copied / "v0001" / "words" / "grams.npy", np.zeros(3, np.int32))
    with pytest.raises(InputError, match=r"the files of n-grams in .*words do not fit each other"):
        EmbeddedIndex.open(copied, check=False)


@pytest.mark.skipif(not HOME_DEPOT.is_dir(), reason="real queries (../shared/data/homedepot) are not here")
def test_real_queries_with_one_edit_each(tmp_path: Path) -> None:
    """By words alone; benchmarks/misspelt.py measures hybrid search, too, which needs a trained model."""
    items, rng = pq.read_table(HOME_DEPOT / "items.parquet"), random.Random(0)
    index, ids = write_words(items, ["title"], tmp_path / "words"), np.array(items["item_id"].to_pylist())
    wanted: dict[str, list[str]] = {}
    for row in pq.read_table(HOME_DEPOT / "qrels-valid.parquet").to_pylist():
        if row["relevance"] >= 2:
            wanted.setdefault(row["query"], []).append(row["item_id"])
    recalls = []
    for query in rng.sample(sorted(wanted), 200):
        if (other := misspelt(query, rng)) is not None:
            best = [ids[best_rows(Entries.of(index, asked(index, text)), 50, None)[0]] for text in (query, other)]
            recalls.append([np.isin(wanted[query], found).mean() for found in best])
    written, edited = np.mean(recalls, axis=0)
    assert written > 0.6
    assert edited > 0.93 * written


def misspelt(query: str, rng: random.Random) -> str | None:
    """With one edit in one word of four letters or more, as the benchmark makes them."""
    places = [at for at, word in enumerate(query.split()) if len(word) >= 4 and word.isascii() and word.isalpha()]
    if not places:
        return None
    found, place = query.split(), rng.choice(places)
    word, letter = found[place], rng.choice(string.ascii_lowercase)
    at = rng.randrange(len(word))
    swapped = word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :]
    found[place] = rng.choice([word[:at] + word[at + 1 :], word[:at] + letter + word[at:], swapped])
    return " ".join(found)
