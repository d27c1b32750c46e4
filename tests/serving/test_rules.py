"""A shop's rules against doing the same to the answer without them, and a file that changes while it is served."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smar.cli import main
from smar.core.errors import InputError
from smar.search.expansion import Expansion
from smar.search.items import Items
from smar.search.local.arrange import search as search_index
from smar.search.local.build import build_index
from smar.search.local.fusion import Fusion
from smar.search.local.live import UpdatableIndex
from smar.search.local.open_version import EmbeddedIndex
from smar.search.protocol import Mode
from smar.serving.answers import as_json, result_out
from smar.serving.engine import Engine
from smar.serving.requests import SearchRequest
from smar.serving.routes import question_of
from smar.serving.rulebook import Rulebook
from smar.serving.search_schemas import SearchResponse
from tiny_index import vectors_of, write_embeddings
from tiny_service import address, becomes, run_service

Ask = Callable[..., dict]
HOUR = timedelta(hours=1)
PAGE = (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")


@pytest.fixture
def ask(engine: Engine, tmp_path: Path) -> Ask:
    """The answer to a search under rules, a text of YAML, None for none."""

    def ask(rules: str | None = None, **body: object) -> dict:
        book = None
        if rules is not None:
            (path := tmp_path / "rules.yaml").write_text(rules, encoding="utf-8")
            book = Rulebook.open(path, engine.index)
        question = question_of(SearchRequest.model_validate({"query": "red shirt", "k": 180} | body))
        result = next(Engine(engine.live, book).answer([question]))
        if isinstance(result, Exception):
            raise result
        answer = json.loads(as_json(result_out(result, question.fields, question.highlight)))
        SearchResponse.model_validate(answer | {"query_id": "q"})
        return answer

    return ask


def ids(answer: dict) -> list[str]:
    return [hit["item_id"] for hit in answer["hits"]]


def moved(answer: dict) -> dict[str, list[dict]]:
    return {hit["item_id"]: hit["moved"] for hit in answer["hits"]}


PINS = "rules: [{name: sale, when: {exact: Red  SHIRT}, pin: [{id: item/00002, place: 4}, {id: item/00007, place: 1}]}]"


def test_pinned(ask: Ask) -> None:
    plain = ids(ask())
    expected = [name for name in plain if name not in ("item/00002", "item/00007")]
    expected.insert(0, "item/00007")
    expected.insert(3, "item/00002")
    assert ids(ask(PINS)) == expected
    pages = [ids(ask(PINS, k=3, offset=offset)) for offset in range(0, 9, 3)]
    assert [name for page in pages for name in page] == expected[:9]
    assert ask(PINS, k=3)["total"] == ask(k=3)["total"]
    assert ids(ask(PINS, query="red shirts")) == ids(ask(query="red shirts")), "no rule is for it"
    shirts = ask(PINS, filter="category=Shirt")  # neither of them is one
    assert shirts == ask(filter="category=Shirt")
    by_price = ask(PINS, sort="price", k=180, candidates=10)
    assert {"item/00002", "item/00007"} < set(ids(by_price))
    prices = [hit["item"]["price"] for hit in by_price["hits"] if hit["item"]["price"] is not None]
    assert prices == sorted(prices), "a sort is the shopper's own order"
    told = moved(ask(PINS, k=5, explain=True))
    assert told["item/00002"] == [{"by": "pin", "rule": "sale", "place": 4}]
    assert told[expected[1]] == []


def test_pinned_where_they_are_not_found_with_their_own_scores(ask: Ask) -> None:
    for mode in ("adaptive", "text", "route"):
        whole = {hit["item_id"]: hit for hit in ask(mode=mode)["hits"]}
        hit = ask(PINS, mode=mode, k=2)["hits"][0]
        assert [hit[name] for name in ("score", "text_score", "multimodal_score")] == pytest.approx(
            [whole["item/00007"][name] for name in ("score", "text_score", "multimodal_score")], abs=1e-6
        )


def test_pinned_cards(ask: Ask) -> None:
    """The pinned variant is the one on its product's card; what diversify counts counts it, too."""
    answer = ask(PINS, collapse="brand", k=180)
    assert ids(answer)[0] == "item/00007"
    brands = [hit["item"]["brand"] for hit in answer["hits"] if hit["item"]["brand"]]
    assert len(brands) == len(set(brands))
    assert answer["total"] == ask(collapse="brand", k=180)["total"]
    pinned = ask(PINS)["hits"][3]["item"]["brand"]
    assert pinned is not None
    first = ask(PINS, diversify={"column": "brand", "most": 1, "among": 6}, k=6)["hits"]
    assert first[3]["item_id"] == "item/00002"
    assert [hit["item"]["brand"] for hit in first].count(pinned) == 1


def test_pinned_and_counted(ask: Ask) -> None:
    """What is on the page is counted, though the best candidates lack it."""
    facets = ask(PINS, k=4, candidates=4, facets=["category"])["facets"]["category"]["values"]
    assert sum(entry["count"] for entry in facets) == 6


BOOSTED = """
rules:
  - {name: nike, when: {contains: shirt}, boost: [{filter: brand = Nike, factor: 1.5}]}
  - {name: stock, bury: [{filter: in_stock = false, amount: 0.25}, {filter: price > 100, factor: 0.5}]}
"""


def expected_score(hit: dict, score: float) -> float:
    item = hit["item"]
    score += 0.5 * abs(score) * (item["brand"] == "Nike")
    score -= 0.25 * (item["in_stock"] is False)
    return score - 0.5 * abs(score) * ((item["price"] or 0) > 100)


@pytest.mark.parametrize("candidates", [20, 200])
def test_boosted_and_buried(ask: Ask, candidates: int) -> None:
    plain = ask()["hits"]
    scores = {hit["item_id"]: expected_score(hit, hit["score"]) for hit in plain[:candidates]}
    answer = ask(BOOSTED, candidates=candidates, explain=True)
    best = sorted(scores, key=lambda name: -scores[name])
    found = {hit["item_id"]: hit for hit in answer["hits"]}
    assert [found[name]["score"] for name in best] == pytest.approx([scores[name] for name in best], abs=1e-6)
    assert [found[name]["score"] for name in ids(answer)[:candidates]] == sorted(
        (found[name]["score"] for name in best), reverse=True
    )
    assert ids(answer)[candidates:] == [hit["item_id"] for hit in plain[candidates:]]
    assert answer["total"] == {"value": 180, "relation": "exact"}
    for hit in plain[:candidates]:
        told = found[hit["item_id"]]["moved"]
        assert hit["score"] + sum(entry["amount"] for entry in told) == pytest.approx(scores[hit["item_id"]], abs=1e-6)
        if hit["item"]["brand"] == "Nike":
            boost = {"by": "boost", "rule": "nike", "amount": pytest.approx(abs(hit["score"]) / 2, abs=1e-6)}
            assert told[0] == boost
    assert [entry["rule"] for entry in answer["rules"]] == ["nike", "stock"]
    pages = [ids(ask(BOOSTED, candidates=candidates, k=30, offset=offset)) for offset in range(0, 180, 30)]
    assert [name for page in pages for name in page] == ids(answer)


def test_boosted_beside_a_rank(ask: Ask) -> None:
    answer = ask(BOOSTED, rank="score - 0.1 * exists(price)", explain=True, k=20)
    for hit in answer["hits"]:
        by = [entry["by"] for entry in hit["moved"]]
        assert ("rank" in by) == (hit["item"]["price"] is not None)
        expected = expected_score(hit, hit["factors"]["score"] - 0.1 * (hit["item"]["price"] is not None))
        assert hit["score"] == pytest.approx(expected, abs=1e-6)
    alone = ask(rank="score - 0.1 * exists(price)", explain=True, k=20)
    assert all(hit["moved"] == [{"by": "rank", "amount": -0.1}] for hit in alone["hits"] if hit["item"]["price"])


HIDDEN = """
rules:
  - {name: recalled, hide: {ids: item/00141, filter: brand = Casio}}
  - {name: no kettles, when: {contains: [shirt]}, hide: {filter: category = Kettle}}
"""


def is_shown(hit: dict) -> bool:
    item = hit["item"]
    return hit["item_id"] != "item/00141" and item["brand"] != "Casio" and item["category"] != "Kettle"


def test_hidden_and_in_no_count(ask: Ask) -> None:
    shown = [hit["item_id"] for hit in ask()["hits"] if is_shown(hit)]
    answer = ask(HIDDEN, facets=["category", "brand"], candidates=180)
    assert ids(answer) == shown
    assert answer["total"] == {"value": len(shown), "relation": "exact"}
    counts = {name: facet["values"] for name, facet in answer["facets"].items()}
    assert {entry["value"] for entry in counts["category"]} == {"Shirt", "Watch"}
    assert "Casio" not in {entry["value"] for entry in counts["brand"]}
    chosen = ask(HIDDEN, filter="brand in (Casio, Nike)", facets={"columns": ["brand"], "of": "matches"})
    assert "Casio" not in {entry["value"] for entry in chosen["facets"]["brand"]["values"]}
    assert {hit["item"]["brand"] for hit in chosen["hits"]} == {"Nike"}
    others = ask(HIDDEN, collapse={"column": "category", "ids": True}, k=180)["hits"]
    assert sum(1 + hit["others"]["count"] for hit in others) == len(shown)
    assert all("item/00141" not in hit["others"]["ids"] for hit in others)
    assert ask(PINS.replace("}]}]", "}], hide: {ids: item/00007}}]"))["hits"][0]["item_id"] != "item/00007"


def test_browsed(ask: Ask) -> None:
    rules = """
    rules:
      - {pin: [{id: item/00010, place: 2}], boost: [{filter: brand = Casio, amount: 1}], hide: {filter: price > 100}}
      - {when: {category: Watch}, bury: [{filter: in_stock = false, amount: 2}]}
      - {when: {contains: watch}, pin: [{id: item/00013, place: 1}]}
    """
    plain = ask(query="", filter="category = Watch")["hits"]
    assert len(plain) == 60
    kept = [hit for hit in plain if (hit["item"]["price"] or 0) <= 100 and hit["item_id"] != "item/00010"]
    kept.sort(key=lambda hit: 2 * (hit["item"]["in_stock"] is False) - (hit["item"]["brand"] == "Casio"))
    expected = [hit["item_id"] for hit in kept]
    expected.insert(1, "item/00010")
    answer = ask(rules, query="", filter="category = Watch")
    assert ids(answer) == expected
    assert answer["total"]["value"] == len(expected)
    assert ids(ask(rules, query="", filter="category = Watch", k=2, offset=1)) == expected[1:3]
    everything = ask(rules, query="", sort="price", explain=True)  # no category has more than half of them
    assert [entry["rule"] for entry in everything["rules"]] == ["rule 1"]


def test_the_category_of_the_hits(ask: Ask) -> None:
    rules = """
    rules:
      - {name: shirts, when: {category: [shirt, Kettle]}, redirect: /shirts, hide: {filter: brand = Nike}}
      - {name: watches, when: {category: watch, contains: classic}, redirect: https://shop.example/watches}
    """
    first = [hit["item"]["category"] for hit in ask(k=10)["hits"]]
    assert first.count("Shirt") > 5
    for k in (1, 24):
        answer = ask(rules, k=k)
        assert answer["redirect"] == "/shirts"
        assert "Nike" not in {hit["item"]["brand"] for hit in answer["hits"]}
    assert answer["total"]["value"] == 180 - sum(hit["item"]["brand"] == "Nike" for hit in ask()["hits"])
    assert "redirect" not in ask(rules, query="new watch", k=1)
    assert ask(rules, query="classic watch", k=1)["redirect"] == "https://shop.example/watches"
    paged = ids(ask(rules, k=20))
    assert [*ids(ask(rules, k=5)), *ids(ask(rules, k=15, offset=5))] == paged


def test_synonyms(ask: Ask) -> None:
    rules = """
    rules:
      - {name: german, synonyms: {one_way: {Hemd: shirt, kleines hemd: [small shirt, cotton shirt]}}}
      - {name: kettles, synonyms: {two_way: [[kettle, tea pot]]}}
    """
    unknown = ask(query="red hemd")
    assert unknown["unknown"] > 0.4
    answer = ask(rules, query="red hemd", explain=True)
    assert answer["unknown"] == 0
    assert answer["rules"] == [{"rule": "german", "effects": ["synonyms"]}]
    before = {hit["item_id"]: hit["score"] for hit in unknown["hits"]}
    for hit in answer["hits"]:
        added = hit["score"] - before[hit["item_id"]]
        told = [{"by": "synonyms", "rule": "german", "amount": pytest.approx(added, abs=1e-6)}]
        assert hit["moved"] == (told if abs(added) > 1e-6 else hit["moved"])
    assert ids(answer) == ids(ask(query="red shirt")), "the vocabulary lacks the word that was typed"
    assert ids(ask(rules, query="shirt")) == ids(ask(query="shirt")), "one way"
    pots = ask(rules, query="Tea  POT", k=20, mode="hybrid", explain=True)
    assert {hit["item"]["category"] for hit in pots["hits"]} == {"Kettle"}
    assert pots["corrected"] == {}
    titles = [hit["item"]["title"] for hit in ask(rules, query="kleines hemd", k=5)["hits"]]
    assert any("mall" in title for title in titles)
    misspelt = ask(rules, query="kettel hemd", mode="hybrid", k=2)
    assert list(misspelt["corrected"]) == ["kettel"], "the other word has a synonym"
    mixed = ask(rules, query="hemd", mode="hybrid", k=60)  # words that no item holds are not read as anything else
    assert {hit["words_score"] > 0 for hit in mixed["hits"]} == {True}


def test_synonyms_have_one_weight(engine: Engine, ask: Ask) -> None:
    """What items hold counts as much by either name: BM25 of `kettle` for both, though `pot` is held by none."""
    rules = "rules: [{synonyms: {one_way: {pot: [kettle, watch]}}}]"
    found = {hit["item_id"]: hit["words_score"] for hit in ask(rules, query="pot", mode="hybrid")["hits"]}
    one = {hit["item_id"]: hit["words_score"] for hit in ask(query="kettle", mode="hybrid")["hits"]}
    other = {hit["item_id"]: hit["words_score"] for hit in ask(query="watch", mode="hybrid")["hits"]}
    base = engine.index.segments[0].words
    shared = base.idf("kettle", "watch") / base.idf("kettle")
    assert base.idf("kettle") == pytest.approx(base.idf("watch"))
    for name, score in found.items():
        assert score == pytest.approx(shared * max(one[name], other[name]), rel=1e-5)


def test_synonyms_in_a_weighted_fusion(engine: Engine) -> None:
    """What they add to words and vectors together is told as it is."""
    index = engine.index
    assert index.manifest.hybrid is not None
    fit = index.manifest.hybrid.model_copy(update={"fusion": Fusion.WEIGHTED, "weight": 0.5})
    manifest = index.manifest.model_copy(update={"hybrid": fit})
    weighted = EmbeddedIndex(index.path, manifest, index.segments, index.encoder)
    expansion = Expansion((("hemd", ("shirt", "steel kettle")),), ("red shirt", "red steel kettle"), ("german",))
    vectors = index.encoder.encode_expanded(["red hemd"], [expansion])
    (page,) = search_index(weighted, vectors, 20, Mode.HYBRID, None, True)
    (typed,) = weighted.rank(index.encoder.encode(["red hemd"]), 180, Mode.HYBRID)
    before = dict(zip(typed.rows.tolist(), typed.score.tolist(), strict=True))
    assert page.moved is not None
    for row, score, (told,) in zip(page.hits.rows.tolist(), page.hits.score.tolist(), page.moved, strict=True):
        assert told == {"by": "synonyms", "rule": "german", "amount": pytest.approx(score - before[row], abs=1e-5)}


def test_times_and_zones(ask: Ask) -> None:
    now = datetime.now(UTC)

    def holds(**when: str) -> bool:
        text = json.dumps({"rules": [{"when": {"exact": "red shirt"} | when, "redirect": "/"}]})
        return "redirect" in ask(text, k=1)

    assert holds()
    assert holds(**{"from": f"{now - HOUR:%Y-%m-%d %H:%M}"})
    assert not holds(**{"from": f"{now + HOUR:%Y-%m-%d %H:%M}"})
    assert not holds(until=f"{now - HOUR:%Y-%m-%dT%H:%M:%S}")
    assert holds(until=f"{now:%Y-%m-%d}"), "a date is all of its day"
    there = now + timedelta(hours=9)  # Tokyo's clock
    assert holds(**{"from": f"{there - HOUR:%Y-%m-%d %H:%M}", "zone": "Asia/Tokyo"})
    assert not holds(**{"from": f"{there - HOUR:%Y-%m-%d %H:%M}"})
    assert holds(**{"from": f"{there - HOUR:%Y-%m-%dT%H:%M}+09:00"})


def test_a_rule_begins_and_ends_by_itself(engine: Engine, tmp_path: Path) -> None:
    (path := tmp_path / "rules.yaml").write_text(
        f"rules: [{{when: {{until: {datetime.now(UTC) + timedelta(milliseconds=300)}}}, hide: {{ids: item/00001}}}}]"
    )
    book = Rulebook.open(path, engine.index)
    before = book.active(engine.index)
    assert before.everywhere.shown(None) is not None
    assert book.active(engine.index) is before
    assert becomes(lambda: book.active(engine.index) is not before)
    assert book.active(engine.index).everywhere.shown(None) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{", "rules.yaml cannot be read as YAML: "),
        ("- pin", "rules.yaml holds no rules; it begins with `rules:`"),
        ("rules: [{}]", "rule 1: it does nothing; give pin"),
        ("rules: [{redirect: /a, redirect: /b}]", "'redirect' comes twice"),
        ("rules: [{redirect: /sale}]", "rule 1: redirect without exact"),
        (
            "rules: [{hide: {ids: [a]}}, {hide: {ids: [7]}}]",
            "rule 2, hide.ids.1: Input should be a valid string (got 7)",
        ),
        (
            "rules: [{pin: [{id: a, place: 0}]}]",
            "rule 1, pin.1.place: Input should be greater than or equal to 1 (got 0)",
        ),
        (
            "rules: [{boost: [{filter: price>1, factor: 0.5}]}]",
            "rule 1, boost.1.factor: Input should be greater than 1",
        ),
        ("rules: [{bury: [{filter: price>1}]}]", "rule 1, bury.1: give either factor or amount"),
        (
            "rules: [{bury: [{filter: colour=red, factor: 0}]}]",
            "rule 1, bury.1.filter: filter, character 1: unknown col",
        ),
        ("rules: [{hide: {filter: price<}}]", "rule 1, hide.filter: filter, character 7: expected a value"),
        ("rules: [{hide: {filter: price<2}, when: {exact: ' '}}]", "rule 1, when.exact.1: there is no word in it"),
        ("rules: [{redirect: 'javascript:x', when: {exact: a}}]", "rule 1, redirect: give https://..."),
        ("rules: [{when: {from: morning}, pin: []}]", "rule 1, when.from: Invalid isoformat string: 'morning'"),
        ("rules: [{when: {from: 2026-02-02, until: 2026-01-01}}]", "rule 1, when: from 2026-02-02 is not before"),
        ("zone: Mars\nrules: []", "zone: there is no such zone"),
        ("category: colour\nrules: [{when: {category: red}, redirect: /}]", "rule 1, when.category: the index has no"),
        ("category: price\nrules: [{when: {category: red}, redirect: /}]", "rule 1, when.category: the index has no"),
        ("rules: [{when: {category: a}, synonyms: {two_way: [[a, b]]}}]", "rule 1: synonyms say what is searched for"),
        ("rules: [{name: a, hide: {ids: a}}, {name: a, hide: {ids: b}}]", "several rules are called 'a'"),
        ("rules: [{hides: {ids: a}}]", "rule 1, hides: Extra inputs are not permitted"),
    ],
)
def test_wrong_files(engine: Engine, tmp_path: Path, text: str, message: str) -> None:
    (path := tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        Rulebook.open(path, engine.index)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_the_file_of_the_documentation(engine: Engine, tmp_path: Path, ask: Ask) -> None:
    text, request = re.findall(r"```(?:yaml|http\nPOST /v1/search)\n(.*?)```", PAGE, re.DOTALL)
    assert ask(text, query="gift card", k=1)["redirect"] == "https://shop.example/gift-cards"
    pots = ask(text, query="水壶", k=20, mode="hybrid")
    assert {hit["item"]["category"] for hit in pots["hits"]} == {"Kettle"}
    answer = ask(text, **json.loads(request))
    assert "recalled" in [entry["rule"] for entry in answer["rules"]]
    assert all("moved" in hit for hit in answer["hits"])


def test_a_worker_that_starts_beside_a_wrong_file_has_the_rules_before(engine: Engine, tmp_path: Path) -> None:
    path, kept = tmp_path / "rules.yaml", tmp_path / "kept.yaml"
    path.write_text(PINS)
    Rulebook.open(path, engine.index, kept)
    path.write_text("rules: [{}]")
    book = Rulebook.open(path, engine.index, kept)
    assert "rule 1: it does nothing" in (book.problem or "")
    assert book.active(engine.index).told("red shirt").influence.pins
    with pytest.raises(InputError):
        Rulebook.open(path, engine.index)


def test_what_concerns_no_query_is_one_and_the_same_search(engine: Engine, tmp_path: Path) -> None:
    """Searches that no rule is for take the way that they take without rules."""
    (path := tmp_path / "rules.yaml").write_text(PINS)
    active = Rulebook.open(path, engine.index).active(engine.index)
    nothing = active.told("blue shirt")
    assert (nothing.influence.rules, nothing.expansion) == ((), None)
    assert active.told("red kettle") is nothing
    assert active.told("red shirt").influence is active.told("red shirt").influence


def test_served_and_changed(index_path: Path, tmp_path: Path) -> None:
    (path := tmp_path / "rules.yaml").write_text(PINS)
    with (
        run_service(index_path, "--rules", str(path), "--workers", "2") as process,
        httpx.Client(base_url=address(process), timeout=20, headers={"Connection": "close"}) as client,
    ):

        def answers(**body: object) -> list[dict]:
            """Of several connections, which either worker may take."""
            asked = {"query": "red shirt", "k": 3} | body
            return [client.post("/v1/search", json=asked).json() for _ in range(8)]

        assert {ids(answer)[0] for answer in answers()} == {"item/00007"}
        both = client.post("/v1/search/batch", json={"searches": [{"query": "red shirt", "k": 1}, {"query": "red"}]})
        assert ids(both.json()["answers"][0]) == ["item/00007"]
        path.write_text("rules: [{when: {exact: red shirt}, pin: [{id: item/00004, place: 1}]}]")
        assert becomes(lambda: {ids(answer)[0] for answer in answers()} == {"item/00004"})
        path.write_text("rules: [{hide: {ids: [item/00004]}}, {pin: 7}]")
        assert becomes(lambda: "rule 2, pin" in client.get("/readyz").json().get("rules", ""))
        assert client.get("/readyz").status_code == 200
        assert {ids(answer)[0] for answer in answers()} == {"item/00004"}, "the rules before"
        assert becomes(lambda: '\nsmar_rules_unreadable{index="default"} 1.0' in client.get("/metrics").text)
        path.write_text("rules: [{hide: {ids: [item/00004]}}]")
        assert becomes(lambda: '\nsmar_rules_unreadable{index="default"} 0.0' in client.get("/metrics").text)
        assert becomes(lambda: "rules" not in client.get("/readyz").json())
        assert {answer["total"]["value"] for answer in answers()} == {179}
        assert client.get("/v1/facets").json()["items"] == 179
        similar = client.get("/v1/items/item%2F00001/similar?k=200").json()
        assert "item/00004" not in ids(similar)
        assert client.get("/v1/items/item%2F00004").status_code == 200, "it is still there"
        process.terminate()
        assert process.stderr is not None
        assert "rule 2, pin" in process.stderr.read()


def test_on_the_command_line(index_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path := tmp_path / "rules.yaml").write_text(PINS)
    assert main(["search", str(index_path), "red shirt", "-k", "1", "--json", "--rules", str(path)]) == 0
    assert ids(json.loads(capsys.readouterr().out)) == ["item/00007"]
    path.write_text("rules: [{when: {exact: red shirt}, redirect: /sale}]")
    assert main(["search", str(index_path), "red shirt", "--rules", str(path)]) == 0
    assert "a rule sends the shopper to /sale" in capsys.readouterr().out
    path.write_text("rules: [{}]")
    assert main(["search", str(index_path), "red shirt", "--rules", str(path)]) == 2
    assert "rule 1: it does nothing" in capsys.readouterr().err
    with run_service(index_path, "--rules", str(path)) as process:
        assert process.stderr is not None
        assert "rule 1: it does nothing" in process.stderr.read()
        assert process.wait(20) == 2


def test_items_that_were_written_since(index_path: Path, tmp_path: Path) -> None:
    """Rules count in what changed as in what is built: pins, boosts and what is hidden lie in other segments."""
    live = UpdatableIndex.open(Path(shutil.copytree(index_path, tmp_path / "index")))
    columns = {"title": ["Red shirt", "Blue watch"], "brand": ["Adidas", "Nike"], "category": ["Shirt", "Watch"]}
    payload = pa.table({"item_id": ["new/1", "item/00002"], **columns})
    text, multimodal = (np.stack([half] * 2) for half in vectors_of(live.snapshot, "item/00010"))
    live.upsert(Items(live.snapshot.fingerprint, payload, multimodal, text, [None] * 2))
    (path := tmp_path / "rules.yaml").write_text(
        "rules: [{pin: [{id: item/00002, place: 1}, {id: gone, place: 1}], hide: {filter: brand = Adidas},"
        " boost: [{filter: brand = Nike, amount: 9}]}]"
    )
    engine = Engine(live, Rulebook.open(path, live.snapshot))
    result = engine.search("red shirt", k=180)
    assert result.page.total.value == 180
    found = [hit.payload for hit in result.hits]
    assert (found[0]["item_id"], found[0]["title"]) == ("item/00002", "Blue watch")
    assert "new/1" not in [item["item_id"] for item in found]
    brands = [item["brand"] for item in found[1:]]
    assert brands == sorted(brands, key=lambda brand: brand != "Nike")


def test_rules_that_do_not_fit_a_new_index(engine: Engine, tmp_path: Path) -> None:
    """The others hold, and what is wrong is told, until the index or the file is mended."""
    folder = write_embeddings(tmp_path / "embeddings", items=30, shards=1)
    pq.write_table(pq.read_table(folder / "payload.parquet").drop_columns(["brand"]), folder / "payload.parquet")
    build_index(folder, tmp_path / "index")
    other = Engine.open(tmp_path / "index").index
    (path := tmp_path / "rules.yaml").write_text("rules: [{hide: {filter: brand = Nike}}, {hide: {filter: price > 9}}]")
    book = Rulebook.open(path, engine.index)
    both = book.active(engine.index)
    assert [rule.number for rule in both.everywhere.rules] == [0, 1]
    assert [rule.number for rule in book.active(other).everywhere.rules] == [1]
    assert "rule 1, hide.filter: filter, character 1: unknown column 'brand'" in (book.problem or "")
    assert [rule.number for rule in book.active(engine.index).everywhere.rules] == [0, 1]
    assert book.problem is None
