"""Words and vectors together, against BM25 and fusion written down word by word and item by item."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smar.commands.search_command import MODES
from smar.core.errors import InputError
from smar.data.text import normalise
from smar.data.words import words
from smar.search.embeddings import DEFAULT_FIELDS, sample_clicks
from smar.search.filter_parser import parse_filter
from smar.search.items import Items
from smar.search.local import postings as postings_module
from smar.search.local.build import build_index
from smar.search.local.candidates import RANK_OFFSET
from smar.search.local.fitting import WEIGHTS, choose_weight
from smar.search.local.fusion import DEPTH, Fusion, HybridFit
from smar.search.local.live import UpdatableIndex
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.postings import Entries, best_rows, word_scores
from smar.search.local.word_index import write_words
from smar.search.protocol import Mode
from smar.search.query import QueryVectors
from smar.serving.answered import identified
from smar.serving.answers import as_json, result_out
from smar.serving.engine import Engine
from smar.serving.search_schemas import SearchResponse
from tiny_index import DIM, FINGERPRINT, catalogue, reseal_manifest, rewrite_manifest, write_embeddings

ITEMS = 400
FIELDS = ("title", "brand", "category")
QUERIES = ("red shirt", "nike", "small pink watch small", "Le Coq, watch?", "unheard of", "🙂")
WEIGHTED = HybridFit(fields=FIELDS, mean_length=4, fusion=Fusion.WEIGHTED, weight=0.3)
RANKS = HybridFit(fields=FIELDS, mean_length=4)
FILES = ("vocabulary.arrow", "starts.npy", "rows.npy", "weights.npy", "grams.npy", "gram_starts.npy")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings with validation clicks: shoppers click what has their colour, whether or not the title says so."""
    folder = write_embeddings(tmp_path_factory.mktemp("hybrid") / "embeddings", ITEMS)
    rewrite_manifest(folder, text_fields=FIELDS)
    items, rng, rows = catalogue(ITEMS).to_pylist(), np.random.default_rng(3), []
    for query in (f"{colour} {word}" for colour in ("red", "blue", "pink") for word in ("shirt", "watch", "nike")):
        fits = [r["item_id"] for r in items if query.split()[0] == r["colour"] and query.split()[1] in text(r)]
        rows += [{"query": query, "item_id": i, "weight": 1.0} for i in rng.choice(fits, 3, replace=False)]
    rows.append({"query": "green watch", "item_id": "gone", "weight": 1.0})
    pq.write_table(pa.Table.from_pylist(rows), folder / "valid.parquet")
    return folder


@pytest.fixture(scope="module")
def folder(source: Path) -> Path:
    build_index(source, source.parent / "index")
    return source.parent / "index"


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "index"))


def text(row: Mapping[str, object]) -> str:
    return " ".join(str(row[name] or "") for name in FIELDS).lower()


class Bm25:
    """The formula; `known` are the texts that idf and mean length are taken from."""

    def __init__(self, known: Sequence[str]) -> None:
        self.known = [words(one) for one in known]
        self.mean = sum(map(len, self.known)) / len(self.known)

    def idf(self, word: str) -> float:
        holding = sum(word in one for one in self.known)
        return math.log(1 + (len(self.known) - holding + 0.5) / (holding + 0.5))

    def score(self, query: str, of: str) -> float:
        found, total = words(of), 0.0
        for word in words(query):
            count = found.count(word)
            total += self.idf(word) * count / (count + 1.5 * (1 - 0.75 + 0.75 * len(found) / self.mean))
        return total


def slow_fusion(
    adaptive: dict[str, float], by_words: dict[str, float], unit: float, fit: HybridFit, depth: int
) -> dict[str, float]:
    """Score of each candidate by item id."""
    vectors_best = sorted(adaptive, key=lambda i: -adaptive[i])[:depth]
    words_best = sorted((i for i in by_words if by_words[i] > 0), key=lambda i: -by_words[i])[:depth]
    fused = {}
    for item in {*vectors_best, *words_best}:
        if fit.fusion is Fusion.WEIGHTED:
            fused[item] = adaptive[item] + fit.weight * by_words[item] / unit
        else:
            places = [ranking.index(item) + 1 for ranking in (vectors_best, words_best) if item in ranking]
            fused[item] = sum(1 / (RANK_OFFSET + place) for place in places)
    return fused


def check(index: EmbeddedIndex, fit: HybridFit, known: Sequence[str], k: int, chosen: str | None = None) -> None:
    """Every query's answer against the twin; `known` are the texts that the version was built of."""
    index = EmbeddedIndex(index.path, index.manifest.model_copy(update={"hybrid": fit}), index.segments, index.encoder)
    filter = None if chosen is None else parse_filter(chosen, index.schema)
    queries, bm25 = index.encoder.encode(QUERIES), Bm25(known)
    everything = index.search(queries, 1000, Mode.ADAPTIVE, filter)
    for query, all_hits, hits in zip(QUERIES, everything, index.search(queries, k, Mode.HYBRID, filter), strict=True):
        adaptive = {hit.item_id: hit.score for hit in all_hits}
        by_words = {hit.item_id: bm25.score(query, text(hit.payload)) for hit in sorted(all_hits, key=lambda h: h.row)}
        assert len(hits) == min(k, len(all_hits))
        shown = set[str]()
        for some, depth in ((hits[:DEPTH], DEPTH), (hits[DEPTH:], 1000)):  # the first ones are the same on every page
            fused = slow_fusion(adaptive, by_words, bm25.idf("in no item"), fit, depth)
            expected = sorted((fused[item] for item in fused.keys() - shown), reverse=True)[: len(some)]
            np.testing.assert_allclose([hit.score for hit in some], expected, atol=1e-5)
            for hit in some:
                assert hit.score == pytest.approx(fused[hit.item_id], abs=1e-5)
                assert hit.words_score == pytest.approx(by_words[hit.item_id], abs=1e-4)
            shown |= {hit.item_id for hit in some}


def texts_of(index: EmbeddedIndex) -> list[str]:
    return [text(row) for row in index.segments[0].catalogue.table.to_pylist()]


@pytest.mark.parametrize("fit", [WEIGHTED, RANKS], ids=lambda fit: fit.fusion.value)
@pytest.mark.parametrize("chosen", [None, "category=Shirt and price<100", "brand=Bosch", "price<6", "price<0"])
@pytest.mark.parametrize("k", [5, 50, 1000])
def test_answers_equal_the_twin(folder: Path, fit: HybridFit, chosen: str | None, k: int) -> None:
    index = EmbeddedIndex.open(folder)
    check(index, fit, texts_of(index), k, chosen)


@pytest.mark.parametrize("fit", [WEIGHTED, RANKS], ids=lambda fit: fit.fusion.value)
def test_a_longer_answer_begins_with_the_shorter_one(folder: Path, fit: HybridFit) -> None:
    """So that pages neither repeat an item nor lack one."""
    index = EmbeddedIndex.open(folder)
    index = EmbeddedIndex(index.path, index.manifest.model_copy(update={"hybrid": fit}), index.segments, index.encoder)
    queries = index.encoder.encode(QUERIES)
    whole = [ranked.rows.tolist() for ranked in index.rank(queries, 1000, Mode.HYBRID)]
    for k in (10, 199, 200, 201, 250, 399):
        assert [ranked.rows.tolist() for ranked in index.rank(queries, k, Mode.HYBRID)] == [rows[:k] for rows in whole]


def test_the_words_bring_in_what_the_vectors_miss(folder: Path) -> None:
    """Brands are in no vector here."""
    index = EmbeddedIndex.open(folder)
    fit = WEIGHTED.model_copy(update={"weight": 2.0})
    index = EmbeddedIndex(index.path, index.manifest.model_copy(update={"hybrid": fit}), index.segments)
    queries = index.encoder.encode(["nike shirt"])
    share = [
        np.mean([hit.payload["brand"] == "Nike" for hit in index.search(queries, 20, mode)[0]])
        for mode in (Mode.ADAPTIVE, Mode.HYBRID)
    ]
    assert share[0] < 0.9
    assert share[1] == 1.0


def new_items(titles: Mapping[str, str], brand: str, seed: int = 0) -> Items:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(2, len(titles), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    columns = {"item_id": list(titles), "title": list(titles.values()), "brand": [brand] * len(titles)}
    return Items(FINGERPRINT, pa.table(columns), vectors[0], vectors[1], [None] * len(titles))


def test_the_index_knows_the_language_of_its_words(source: Path, tmp_path: Path) -> None:
    """For the version, for what is added to it, and for what a compaction makes of both."""
    embeddings = Path(shutil.copytree(source, tmp_path / "embeddings"))
    rewrite_manifest(embeddings, language="german")
    build_index(embeddings, tmp_path / "index")
    index = UpdatableIndex.open(tmp_path / "index")
    index.upsert(new_items({"new": "Rote Sommerkleider 红色"}, "Müller"))
    for _ in range(2):
        for query in ("Sommerkleid", "SOMMERKLEIDERN", "muller", "红"):
            (hits,) = index.snapshot.search(index.snapshot.encoder.encode([normalise(query)]), 1000, Mode.HYBRID)
            assert {hit.item_id for hit in hits if hit.words_score} == {"new"}
        index.compact()
    assert index.snapshot.manifest.hybrid
    assert index.snapshot.manifest.hybrid.language == "german"


@pytest.mark.parametrize("fit", [WEIGHTED, RANKS], ids=lambda fit: fit.fusion.value)
def test_updates_take_part_at_once(copied: Path, fit: HybridFit) -> None:
    index, other = UpdatableIndex.open(copied), UpdatableIndex.open(copied)
    known = texts_of(index.snapshot)
    index.upsert(new_items({f"new/{at}": f"Unheard thing {at} red red" for at in range(30)}, "Nike"))
    before = index.snapshot
    index.upsert(new_items({"item/00001": "A pink pink watch", "new/3": "small kettle", "new/x": ""}, "Le Coq", 1))
    index.delete(["item/00002", "item/00003", "new/4"])
    other.refresh()
    reopened = UpdatableIndex.open(copied)
    for snapshot in (index.snapshot, other.snapshot, reopened.snapshot, before):
        check(snapshot, fit, known, 1000)
        check(snapshot, fit, known, 5, "brand in (Nike, 'Le Coq')")
    (hits,) = index.snapshot.search(index.snapshot.encoder.encode(["unheard"]), 1000, Mode.HYBRID)
    assert {hit.item_id for hit in hits if hit.words_score} == {f"new/{at}" for at in range(30)} - {"new/3", "new/4"}
    index.compact()
    assert index.snapshot.manifest.hybrid is not None
    assert index.snapshot.manifest.hybrid.fields == FIELDS
    check(index.snapshot, fit, texts_of(index.snapshot), 50)


def test_updates_of_a_version_without_any_word(source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "embeddings"))
    rewrite_manifest(folder, text_fields=["colour"])  # the items lack it
    build_index(folder, tmp_path / "index")
    index = UpdatableIndex.open(tmp_path / "index")
    queries = index.snapshot.encoder.encode(["red shirt"])
    hits, plain = (index.snapshot.search(queries, 30, mode)[0] for mode in (Mode.HYBRID, Mode.ADAPTIVE))
    assert [hit.item_id for hit in hits] == [hit.item_id for hit in plain]
    assert {hit.words_score for hit in hits} == {0.0}
    index.upsert(new_items({"new/1": "red shirt"}, "Nike"))
    assert len(index.snapshot.search(queries, 1000, Mode.HYBRID)[0]) == ITEMS + 1


@given(data=st.data())
def test_best_rows_equal_the_twin(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """With blocks and samples so small that every short cut is taken."""
    letters = st.lists(st.sampled_from("aaaaaabbbcd"), max_size=6).map(" ".join)
    texts = data.draw(st.lists(letters, min_size=1, max_size=60))
    query = data.draw(letters)
    k = data.draw(st.integers(1, 8))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts))))
    index = write_words(pa.table({"title": texts}), ["title"], tmp_path_factory.mktemp("words") / "words")
    scores = word_scores(Entries.of(index, index.query(query)), np.arange(len(texts)))
    if any(texts):
        bm25 = Bm25(texts)
        np.testing.assert_allclose(scores, [bm25.score(query, one) for one in texts], atol=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"_FIRST": 2, "_BLOCK": 3, "_SAMPLE": 4}.items():
            patch.setattr(postings_module, name, value)
        for allowed in (None, mask):
            kept = [row for row in range(len(texts)) if scores[row] > 0 and (allowed is None or allowed[row])]
            expected = sorted(kept, key=lambda row: (-scores[row], row))[:k]
            rows, found = best_rows(Entries.of(index, index.query(query)), k, allowed)
            assert rows.tolist() == expected
            np.testing.assert_array_equal(found, scores[expected])


def test_threads_do_not_meet(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{at}" for at in rng.zipf(1.3, 8) % 50) for _ in range(20_000)]
    index = write_words(pa.table({"title": texts}), ["title"], tmp_path / "words")
    queries = [Entries.of(index, index.query(f"w{at % 50} w{at % 7}")) for at in range(200)]
    alone = [best_rows(query, 50, None)[0].tolist() for query in queries]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda query: best_rows(query, 50, None)[0].tolist(), queries)) == alone


def test_the_manifest_tells_the_gain(folder: Path, source: Path) -> None:
    """Every figure again, by searching."""
    index = EmbeddedIndex.open(folder)
    fit = index.manifest.hybrid
    assert fit is not None
    assert fit.recall is not None
    clicked = sample_clicks(pq.read_table(source / "valid.parquet"), 1000)
    del clicked["green watch"]  # what was clicked is not in the catalogue
    assert fit.recall.queries == len(clicked) == 9

    def recall(mode: Mode, fit: HybridFit | None) -> np.ndarray:
        asked = EmbeddedIndex(index.path, index.manifest.model_copy(update={"hybrid": fit}), index.segments)
        found = asked.search(index.encoder.encode(list(clicked)), 50, mode)
        shares = [
            len(wanted & {hit.item_id for hit in hits}) / len(wanted)
            for hits, wanted in zip(found, clicked.values(), strict=True)
        ]
        return np.array(shares)

    assert fit.recall.adaptive == pytest.approx(recall(Mode.ADAPTIVE, fit).mean())
    assert fit.recall.reciprocal_ranks == pytest.approx(recall(Mode.HYBRID, RANKS).mean())
    by_weight = [recall(Mode.HYBRID, WEIGHTED.model_copy(update={"weight": weight})) for weight in WEIGHTS]
    means = [[half.mean() for half in (one[::2], one[1::2])] for one in by_weight]
    first, second = (max(range(len(WEIGHTS)), key=lambda at: means[at][half]) for half in (0, 1))
    crossed = np.empty(len(clicked))
    crossed[::2], crossed[1::2] = by_weight[second][::2], by_weight[first][1::2]
    fair = crossed.mean()
    assert fit.recall.weighted == pytest.approx(fair)
    assert fit.fusion is (Fusion.WEIGHTED if fair > fit.recall.reciprocal_ranks else Fusion.RANKS)
    chosen = crossed if fit.fusion is Fusion.WEIGHTED else recall(Mode.HYBRID, RANKS)
    gain = chosen - recall(Mode.ADAPTIVE, fit)
    assert fit.recall.gain == pytest.approx(gain.mean())
    assert fit.recall.gain_error == pytest.approx(np.sqrt(gain.var() / len(gain)))
    if fit.fusion is Fusion.WEIGHTED:
        assert fit.weight == WEIGHTS[int(np.argmax([one.mean() for one in by_weight]))]
    assert 0 < fit.recall.words < 1


def test_weights_are_judged_on_the_other_half() -> None:
    recall = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 1.0]])
    best, fair = choose_weight(recall)
    assert best == 1  # 3.0 against 2.5
    assert fair.tolist() == [0.0, 0.0, 0.0, 0.0, 0.5]  # each half gets what is best for the other
    best, fair = choose_weight(np.array([[0.25, 0.5]]))
    assert (best, fair.tolist()) == (1, [0.5])


def test_without_clicks_the_ranks_decide(embeddings: Path, tmp_path: Path) -> None:
    summary = build_index(embeddings, tmp_path / "index")
    fit = EmbeddedIndex.open(tmp_path / "index").manifest.hybrid
    assert fit == HybridFit(fields=("title",), mean_length=fit.mean_length if fit else 0)
    assert "no validation clicks" in summary.hybrid


def test_the_summary_tells_the_gain(source: Path, tmp_path: Path) -> None:
    summary = build_index(source, tmp_path / "index")
    fit = EmbeddedIndex.open(tmp_path / "index").manifest.hybrid
    assert fit is not None
    assert fit.recall is not None
    for figure in (fit.recall.adaptive, fit.recall.words, fit.recall.reciprocal_ranks, fit.recall.weighted):
        assert 0 < figure <= 1
        assert f"{figure:.4f}" in summary.hybrid
    assert "9 validation queries" in summary.hybrid


def test_default_fields_are_those_of_the_dataset(source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "embeddings"))
    rewrite_manifest(folder, text_fields=[])
    build_index(folder, tmp_path / "index")
    fit = EmbeddedIndex.open(tmp_path / "index").manifest.hybrid
    assert fit is not None
    assert fit.fields == DEFAULT_FIELDS


def test_vectors_without_texts_are_refused(folder: Path) -> None:
    index = EmbeddedIndex.open(folder)
    queries = replace(index.encoder.encode(["red shirt"]), texts=None)
    assert index.search(queries, 5, Mode.ADAPTIVE)[0]
    with pytest.raises(InputError, match="hybrid search needs the queries' words"):
        index.search(queries, 5, Mode.HYBRID)
    nothing = QueryVectors(np.empty((0, DIM), np.float32), np.empty(0, np.float32), texts=())
    assert index.search(nothing, 5, Mode.HYBRID) == []


def test_a_version_from_before_gets_words_by_compaction(copied: Path) -> None:
    version = copied / "v0001"
    shutil.rmtree(version / "words")
    manifest = json.loads((version / "manifest.json").read_text())
    kept = {name: entry for name, entry in manifest["files"].items() if not name.startswith("words/")}
    reseal_manifest(version, files=kept, hybrid=None)
    index = UpdatableIndex.open(copied)
    queries = index.snapshot.encoder.encode(["red shirt"])
    index.upsert(new_items({"new/1": "red shirt"}, "Nike"))
    assert index.snapshot.search(queries, 5, Mode.ADAPTIVE)[0]
    with pytest.raises(InputError, match=r"built without words.*--compact"):
        index.snapshot.search(queries, 5, Mode.HYBRID)
    index.compact()
    assert index.snapshot.search(queries, 5, Mode.HYBRID)[0][0].words_score is not None


@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused_by_name(copied: Path, name: str) -> None:
    file = copied / "v0001" / "words" / name
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=f"{name} is damaged"):
        EmbeddedIndex.open(copied)
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=f"{name} has"):
        EmbeddedIndex.open(copied)
    with pytest.raises(InputError, match=name):
        EmbeddedIndex.open(copied, check=False)
    file.unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        EmbeddedIndex.open(copied)


def test_files_that_do_not_fit_each_other_are_refused(copied: Path) -> None:
    words_folder = copied / "v0001" / "words"
    np.save(words_folder / "weights.npy", np.zeros(3, np.float32))
    with pytest.raises(InputError, match="words do not fit each other"):
        EmbeddedIndex.open(copied, check=False)
    np.save(words_folder / "weights.npy", np.zeros(3, np.float64))
    with pytest.raises(InputError, match=r"weights.npy holds float64 \(3,\), not float32"):
        EmbeddedIndex.open(copied, check=False)


def test_service_and_command_line(folder: Path) -> None:
    assert tuple(Mode) == MODES
    engine = Engine.open(folder)
    result = engine.search("  Red   SHIRT ", 7, Mode.HYBRID, "price>20")
    answer = SearchResponse.model_validate_json(identified(as_json(result_out(result)))[1])
    assert answer.mode is Mode.HYBRID
    assert [hit.words_score for hit in answer.hits] == pytest.approx([hit.words_score for hit in result.hits], abs=1e-7)
    assert len(result.hits) == 7
    assert all(hit.words_score is not None for hit in result.hits)
    (many,) = engine.search_many(["red shirt"], 7, Mode.HYBRID, "price>20")
    assert many == result.hits
    assert [hit.words_score for hit in engine.search("red shirt", 3).hits] == [None] * 3


def test_explain_works_with_words(folder: Path) -> None:
    index = EmbeddedIndex.open(folder)
    queries = index.encoder.encode(["red shirt"])
    ranks = {hit.item_id: place for place, hit in enumerate(index.search(queries, 1000, Mode.TEXT)[0], start=1)}
    for hit in index.search(queries, 20, Mode.HYBRID, explain=True)[0]:
        assert hit.rank_text == ranks[hit.item_id]
