"""The cut-off: fitted where there are validation queries, and what an answer looks like with it."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from smar.search.embeddings import VALID_FILE
from smar.search.local import Shape, UpdatableIndex, build_index
from smar.search.local.cutoff import FEATURES, Measured
from smar.search.local.cutoff_fit import KEPT, LEAST_QUERIES, _fit, _logistic, _Trial
from smar.search.local.nonsense import nonsense
from smar.search.protocol import Mode
from smar.serving.app import create_app
from smar.serving.engine import Engine
from smar.serving.question import Question
from tiny_index import catalogue, write_embeddings
from tiny_line import smar
from tiny_service import nameless, search

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
NOTHING = "xqv zzkw"


def valid_pairs(queries: int, items: int = 180) -> pa.Table:
    """Queries of some words of an item, its colour among them, and all items that have these as their clicks."""
    random, rows = np.random.default_rng(0), catalogue(items).to_pylist()
    words = [{*row["title"].lower().split(), row["colour"]} for row in rows]
    asked: dict[str, set[str]] = {}
    while len(asked) < queries:
        own = sorted(words[random.integers(items)])
        some = random.permutation(own)[: random.integers(1, 4)].tolist()
        asked[" ".join(some)] = {row["item_id"] for row, has in zip(rows, words, strict=True) if has >= set(some)}
    pairs = [{"query": query, "item_id": one, "weight": 1.0} for query, ids in asked.items() for one in sorted(ids)]
    return pa.Table.from_pylist(pairs)


@pytest.fixture(scope="module")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cut")
    write_embeddings(root / "embeddings")
    pq.write_table(valid_pairs(120), root / "embeddings" / VALID_FILE)
    build_index(root / "embeddings", root / "index")
    return root / "index"


@pytest.fixture(scope="module")
def engine(index_path: Path) -> Engine:
    return Engine.open(index_path)


@pytest.fixture(scope="module")
def client(engine: Engine) -> TestClient:
    return TestClient(create_app(engine))


def ids(hits: list[dict]) -> list[str]:
    return [hit["item_id"] for hit in hits]


def test_figures_are_of_queries_that_it_was_not_fitted_to(engine: Engine) -> None:
    cutoff = engine.index.manifest.cutoff
    assert cutoff is not None
    assert cutoff.queries == 120
    assert {Mode.TEXT, Mode.MULTIMODAL, Mode.ADAPTIVE} <= set(cutoff.modes)
    assert set(cutoff.modes) | set(cutoff.refused) == set(Mode)
    fit = cutoff.modes[Mode.ADAPTIVE]
    assert min(fit.precision, fit.recall) > 0.9
    assert abs(fit.kept - KEPT) < 0.1
    made = nonsense(["red shirt", "steel kettle", "classic watch", "blue"] * 25, engine.index.unheld, seed=7)
    texts = [one.text for one in made if not one.mixed]
    answers = engine.answer([Question.of(text, 1, Mode.ADAPTIVE, None, shape=Shape(cutoff=True)) for text in texts])
    answered = [answer.page.total.value > 0 for answer in answers if not isinstance(answer, Exception)]
    assert len(answered) == len(texts)
    assert np.mean(answered) < 1 - fit.precision + 0.1


def test_hits_below_are_left_out_and_counted_out(client: TestClient) -> None:
    whole, cut = search(client, k=180), search(client, k=180, cutoff=True)
    score, total = cut["cutoff"]["score"], cut["total"]["value"]
    assert 0 < total < 180
    assert cut["total"]["relation"] == "exact"
    assert cut["hits"] == whole["hits"][:total]
    assert cut["hits"][-1]["score"] >= score > whole["hits"][total]["score"]
    assert "near" not in cut
    assert "cutoff" not in whole
    pages = [search(client, k=5, offset=at, cutoff=True) for at in range(0, total + 5, 5)]
    assert [hit for page in pages for hit in page["hits"]] == cut["hits"]
    assert {page["total"]["value"] for page in pages} == {total}
    assert nameless(client.get("/v1/search?q=red+shirt&k=180&cutoff=true").json()) == cut
    batch = {"searches": [{"query": "red shirt", "k": 180, "cutoff": True}]}
    (only,) = client.post("/v1/search/batch", json=batch).json()["answers"]
    assert nameless(only) == cut


def test_nothing_is_nothing_and_what_is_near_is_said(client: TestClient) -> None:
    cut = search(client, query=NOTHING, k=6, cutoff=True, facets=["category"], sort="price")
    assert (cut["total"], cut["hits"]) == ({"value": 0, "relation": "exact"}, [])
    assert cut["cutoff"]["score"] is None
    assert cut["near"] == search(client, query=NOTHING, k=6)["hits"]
    assert cut["facets"]["category"]["values"] == []
    assert "near" not in search(client, query=NOTHING, offset=6, cutoff=True)


@pytest.mark.parametrize("query", ["?!", "...", "€", "\N{SNOWMAN}"])
def test_a_query_without_words_is_cut_off_too(client: TestClient, query: str) -> None:
    cut = search(client, query=query, k=6, cutoff=True, mode="text")
    assert cut["total"]["value"] == len(cut["hits"]) == 0
    assert len(cut["near"]) == 6


def test_it_is_the_same_under_a_filter_and_in_every_arrangement(client: TestClient) -> None:
    cut = search(client, k=180, cutoff=True)
    total = cut["total"]["value"]
    some = search(client, k=180, cutoff=True, filter="category=Shirt and price<100")
    assert some["cutoff"] == cut["cutoff"]
    wanted = [hit for hit in cut["hits"] if hit["item"]["category"] == "Shirt" and (hit["item"]["price"] or 999) < 100]
    assert ids(some["hits"]) == ids(wanted)
    by_price = search(client, k=180, cutoff=True, sort="price")
    assert by_price["sorted"] == {"by": ["price"], "items": total, "all": True}
    assert set(ids(by_price["hits"])) == set(ids(cut["hits"]))
    ranked = search(client, k=180, cutoff=True, rank="0 - score")
    assert ids(ranked["hits"]) == ids(cut["hits"])[::-1]
    counted = search(client, k=1, cutoff=True, facets=["category"])["facets"]["category"]
    assert sum(value["count"] for value in counted["values"]) == total
    cards = search(client, k=180, cutoff=True, collapse="brand")
    assert sum(1 + hit["others"]["count"] for hit in cards["hits"]) == total
    assert cards["total"]["value"] == len(cards["hits"])
    few = search(client, k=5, cutoff=True, candidates=3)
    assert few["total"] == {"value": 3, "relation": "at_least"}


def test_items_of_the_update_log_are_cut_off_alike(index_path: Path, tmp_path: Path) -> None:
    shutil.copytree(index_path, tmp_path / "index")
    live = UpdatableIndex.open(tmp_path / "index")
    cut = search(TestClient(create_app(Engine(live))), cutoff=True, k=180)
    gone = ids(cut["hits"])[:3]
    live.delete(gone)
    live.refresh()
    less = search(TestClient(create_app(Engine(live))), cutoff=True, k=180)
    assert not set(gone) & set(ids(less["hits"]))
    live.compact()
    fitted = UpdatableIndex.open(tmp_path / "index").snapshot.manifest.cutoff
    assert fitted is not None
    assert Mode.ADAPTIVE in fitted.modes


def test_the_command_line(index_path: Path) -> None:
    found = smar("search", index_path, "red shirt", "--cutoff", "-k", 50)
    assert re.search(r"relevant hits: [1-9]\d*$", found.out.strip())
    nothing = smar("search", index_path, NOTHING, "--cutoff")
    assert nothing.out.count("no exact match; similar:") == 1
    assert "item/" in nothing.out
    built = smar("index", index_path.parent / "embeddings", "--out", index_path.parent / "again")
    assert built.says("cutoff", "precision", "recall", "of clicked hits kept", "120 validation queries")


@pytest.mark.parametrize(
    ("pairs", "asked", "message"),
    [
        (0, {}, f"0 validation queries have a clicked item here, and {LEAST_QUERIES} are needed"),
        (30, {}, "30 validation queries have a clicked item here"),
        (120, {"query": "", "filter": "category=Shirt"}, "nothing is typed"),
    ],
)
def test_refused(client: TestClient, tmp_path: Path, pairs: int, asked: dict[str, str], message: str) -> None:
    if pairs < LEAST_QUERIES:
        write_embeddings(tmp_path / "embeddings", items=60)
        if pairs:
            pq.write_table(valid_pairs(pairs, 60), tmp_path / "embeddings" / VALID_FILE)
        build_index(tmp_path / "embeddings", tmp_path / "index")
        client = TestClient(create_app(Engine.open(tmp_path / "index")))
    answer = client.post("/v1/search", json={"query": "red shirt", "cutoff": True} | asked)
    assert answer.status_code == 422
    assert message in answer.json()["error"]["message"]


def test_a_mode_without_one_says_why(client: TestClient, engine: Engine) -> None:
    cutoff = engine.index.manifest.cutoff
    assert cutoff is not None
    assert client.get("/v1/about").json()["cutoffs"] == list(cutoff.modes)
    for mode in Mode:
        answer = client.post("/v1/search", json={"query": "red shirt", "cutoff": True, "mode": mode})
        assert answer.status_code == (200 if mode in cutoff.modes else 422)
        assert mode in cutoff.modes or cutoff.refused[mode] in answer.json()["error"]["message"]


def test_requests_of_the_documentation(client: TestClient) -> None:
    requests = [
        body for body in re.findall(r"^```http\nPOST /v1/search\n(.*?)^```", PAGE, re.M | re.S) if "cutoff" in body
    ]
    assert requests
    for body in requests:
        assert "cutoff" in client.post("/v1/search", content=body).json()


@pytest.mark.parametrize(("apart", "least", "most"), [(8, 0.98, 1), (1, 0.96, 0.975)])
def test_more_queries_pass_where_made_up_ones_lie_far_from_them(apart: float, least: float, most: float) -> None:
    random = np.random.default_rng(0)
    real, scores = np.arange(2000) % 2 == 0, -np.sort(-random.random((2000, 20)))
    features = random.normal(size=(2000, len(FEATURES)))
    features[:, 0] += apart * real
    measured = Measured(scores.mean(axis=1), scores.std(axis=1), scores[:, 0], features)
    fit = _fit(_Trial(real, np.zeros(2000, np.bool_), scores, scores > 0.9, measured))
    passes = measured.answered(fit) >= 0
    assert least <= passes[real].mean() <= most
    assert passes[~real].mean() <= 0.01 or apart == 1


def test_the_logistic_fit_finds_the_weights_that_made_the_data() -> None:
    random = np.random.default_rng(0)
    x = random.normal(3, [1, 5], (40_000, 2))
    odds = 2 * x[:, 0] - 0.5 * x[:, 1] - 4
    y = random.random(len(x)) < 1 / (1 + np.exp(-odds))
    even = np.full(len(x), 1 / len(x))
    assert np.allclose(_logistic(x, y, even, np.ones(2, np.bool_)), [2, -0.5, -4], atol=0.3)
    held = _logistic(x, y, even, np.array([True, False]))
    assert held[1] == 0


def test_made_up_queries_are_no_queries(engine: Engine) -> None:
    queries = ["red shirt", "classic steel watch", "blue kettle", "cotton shirt"] * 4
    made = nonsense(queries, engine.index.unheld, seed=1)
    assert made == nonsense(queries, engine.index.unheld, seed=1)
    assert [len(one.text.split()) for one in made] == [len(query.split()) for query in queries]
    unheld = {mixed: [engine.index.unheld(one.text) for one in made if one.mixed is mixed] for mixed in (True, False)}
    assert [len(unheld[True]), max(unheld[True])] == [4, 0]
    assert np.mean(unheld[False]) > 0.8
