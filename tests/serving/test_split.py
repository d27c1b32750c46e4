"""Two indexes compared: shares of the sessions, team-draft interleaving, answers that tell who gave them."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from smar.commands.parser import parser
from smar.evaluation.compare import compare
from smar.search.local.build import build_index
from smar.serving.app import create_service
from smar.serving.engine import Engine
from smar.serving.options import ServiceOptions
from smar.serving.search_schemas import SearchResponse
from smar.serving.several import Opening
from smar.serving.split import coins, share_of, team_draft
from tiny_index import write_embeddings

rankings = st.lists(st.integers(0, 40).map(str), unique=True, max_size=30)


def draft(first: object, second: object, length: int, *throws: int) -> list[tuple[object, int | None]]:
    coin = iter(throws)
    picks = team_draft(list(first), list(second), length, lambda: next(coin))  # type: ignore[call-overload]
    lists = (list(first), list(second))  # type: ignore[call-overload]
    return [(lists[pick.ranking][pick.place], pick.team) for pick in picks]


def test_the_example_of_a_published_library() -> None:
    """README of github.com/mpkato/interleaving: 1, 4, 2, 3, 5; clicks on 1 and 2 are the first's, on 4 and 3 not."""
    drafted = draft([1, 2, 3, 4, 5], [4, 3, 5, 1, 2], 5, 0, 0, 0)
    assert [item for item, _ in drafted] == [1, 4, 2, 3, 5]
    teams = dict(drafted)
    assert (teams[1], teams[2]) == (0, 0)
    assert (teams[4], teams[3]) == (1, 1)


@pytest.mark.parametrize(
    ("first", "second", "length", "outcomes"),
    [  # of the tests of that library
        ([1, 2], [2, 3], 2, {(1, 2), (2, 1)}),
        ([1, 2], [2, 3], 3, {(1, 2, 3), (2, 1, 3)}),
        ([1, 2], [3, 4], 2, {(1, 3), (3, 1)}),
        ([1, 2], [3, 4], 3, {(1, 3, 2), (1, 3, 4), (3, 1, 2), (3, 1, 4)}),
    ],
)
def test_all_outcomes_and_no_others(first: list[int], second: list[int], length: int, outcomes: set) -> None:
    throws = [(a, b) for a in (0, 1) for b in (0, 1)]
    assert {tuple(item for item, _ in draft(first, second, length, *both)) for both in throws} == outcomes


@given(first=rankings, second=rankings, seed=st.integers())
def test_a_draft_is_fair_whole_and_begins_as_a_shorter_one(first: list[str], second: list[str], seed: int) -> None:
    chance = random.Random(seed)
    throws = [chance.getrandbits(1) for _ in range(80)]
    whole = draft(first, second, 100, *throws)
    assert sorted(item for item, _ in whole) == sorted({*first, *second})
    for length in (1, 5, 20):
        part = draft(first, second, length, *throws)
        assert part == whole[:length]
        sizes = Counter(team for _, team in part if team is not None)
        assert abs(sizes[0] - sizes[1]) <= 1


def test_coins_are_even_and_their_own() -> None:
    throws = [[coins("a", "b", str(session))() for session in range(2000)], [coins("b", "a", "x")() for _ in range(3)]]
    assert 900 < sum(throws[0]) < 1100
    assert len(set(throws[1])) == 1


def test_shares_are_kept_and_move_few_sessions_when_they_change() -> None:
    sessions = [f"session-{at}" for at in range(4000)]
    before = {session: share_of({"a": 50, "b": 50}, session) for session in sessions}
    after = {session: share_of({"a": 60, "b": 40}, session) for session in sessions}
    assert 1850 < Counter(before.values())["a"] < 2150
    moved = Counter((before[session], after[session]) for session in sessions if before[session] != after[session])
    assert set(moved) == {("b", "a")}
    assert 320 < moved["b", "a"] < 480


@pytest.mark.parametrize("wrong", ["a", "a:x,b:1", "a:50;b:50"])
def test_wrong_shares_are_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["serve", "a=x", "b=y", "--split", wrong])
    assert "is not NAME:SHARE,NAME:SHARE" in capsys.readouterr().err


@pytest.fixture(scope="module")
def engines(index_path: Path, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Opening]:
    root = tmp_path_factory.mktemp("second")
    build_index(write_embeddings(root / "embeddings", items=120), root / "index")
    options = ServiceOptions()
    second = Opening(root / "index", Engine.open(root / "index"), options)
    return {"a": Opening(index_path, engine, options), "b": second}


def served(engines: dict[str, Opening], **named: object) -> TestClient:
    options = ServiceOptions(**named)
    own = {name: opening._replace(options=options) for name, opening in engines.items()}
    return TestClient(create_service(own, options), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def split(engines: dict[str, Opening]) -> Iterator[TestClient]:
    with served(engines, split=(("a", 50.0), ("b", 50.0))) as client:
        yield client


@pytest.fixture(scope="module")
def interleaved(engines: dict[str, Opening]) -> Iterator[TestClient]:
    with served(engines, interleave=("a", "b")) as client:
        yield client


def ask(client: TestClient, path: str = "/v1/search", **body: object) -> dict:
    answer = client.post(path, json={"query": "red shirt"} | body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    SearchResponse.model_validate(told)
    assert len(told.pop("query_id")) == 32  # of each answer another one
    return told


def test_a_split_answer_is_the_one_of_its_index(split: TestClient) -> None:
    seen = set()
    for session in range(8):
        answer = ask(split, session=str(session))
        seen.add(variant := answer.pop("variant"))
        assert answer == ask(split, f"/v1/indexes/{variant}/search")
        by_address = split.get(f"/v1/search?q=red+shirt&session={session}")
        assert by_address.json()["variant"] == variant
        assert by_address.headers["vary"].lower() == "x-session-id"
        headed = split.post("/v1/search", json={"query": "red shirt"}, headers={"X-Session-ID": str(session)})
        assert headed.json()["variant"] == variant
        batch = split.post("/v1/search/batch", json={"searches": [{"query": "kettle", "session": str(session)}]})
        assert batch.json()["answers"][0]["variant"] == variant
    assert seen == {"a", "b"}
    assert "variant" not in ask(split, "/v1/indexes/a/search")
    assert split.get("/v1/about").json()["compared"] == ["a", "b"]


def test_without_a_session_the_query_decides(split: TestClient) -> None:
    variants = {
        query: ask(split, query=query)["variant"] for query in ("red", "blue", "kettle", "watch", "steel", "new")
    }
    assert set(variants.values()) == {"a", "b"}
    for query, variant in variants.items():
        assert ask(split, query=query, offset=20)["variant"] == variant


def test_interleaved_pages_are_one_list(interleaved: TestClient) -> None:
    whole = ask(interleaved, k=60, session="s")
    assert whole["interleaved"] == ["a", "b"]
    assert whole["total"] == {"value": 180, "relation": "at_least"}
    pages = [ask(interleaved, k=20, offset=offset, session="s")["hits"] for offset in (0, 20, 40)]
    assert [hit for page in pages for hit in page] == whole["hits"]
    assert [hit["rank"] for hit in whole["hits"]] == list(range(1, 61))
    assert len({hit["item_id"] for hit in whole["hits"]}) == 60
    assert Counter(hit["team"] for hit in whole["hits"]) == {"a": 30, "b": 30}
    for hit in whole["hits"]:
        assert hit["picture"] is None or hit["picture"].startswith(f"/v1/indexes/{hit['team']}/items/")
    by_address = interleaved.get("/v1/search?q=red+shirt&k=60&session=s").json()
    assert by_address["hits"] == whole["hits"]


def test_each_team_drafts_from_its_own_ranking(interleaved: TestClient) -> None:
    own = {
        name: [hit["item_id"] for hit in ask(interleaved, f"/v1/indexes/{name}/search", k=50)["hits"]] for name in "ab"
    }
    hits = ask(interleaved, k=20, session="s")["hits"]
    taken: set[str] = set()
    for hit in hits:
        assert hit["item_id"] == next(item for item in own[hit["team"]] if item not in taken)
        taken.add(hit["item_id"])


def test_sessions_see_other_drafts_of_the_same_query(interleaved: TestClient) -> None:
    firsts = {ask(interleaved, session=str(session))["hits"][0]["team"] for session in range(12)}
    assert firsts == {"a", "b"}


def test_what_has_no_ranking_is_answered_by_the_first(interleaved: TestClient) -> None:
    for body in ({"sort": "price"}, {"collapse": "brand"}, {"query": "", "filter": "price<50"}):
        answer = ask(interleaved, **body)
        assert answer == ask(interleaved, "/v1/indexes/a/search", **body)
        assert "interleaved" not in answer


def test_ranked_explained_and_counted_drafts(interleaved: TestClient) -> None:
    body = {"rank": "score + log1p(price)", "explain": True, "facets": ["brand"], "fields": ["title"], "k": 10}
    body["highlight"] = ["title"]
    answer = ask(interleaved, **body)
    titles = [(hit["highlight"]["title"], hit["item"]["title"]) for hit in answer["hits"]]
    assert [re.sub("</?em>", "", marked or title) for marked, title in titles] == [title for _, title in titles]
    assert any("<em>" in (marked or "") for marked, _ in titles)
    assert all(set(hit["item"]) == {"title"} and "price" in hit["factors"] for hit in answer["hits"])
    assert answer["facets"] == ask(interleaved, "/v1/indexes/a/search", **body)["facets"]
    assert {hit["team"] for hit in answer["hits"]} == {"a", "b"}


def test_the_end_of_one_ranking(interleaved: TestClient) -> None:
    """What only one of them has left is shown, and nobody's."""
    hits = ask(interleaved, k=200)["hits"]
    assert len(hits) == 180
    assert hits[-1]["team"] is None
    assert Counter(hit["team"] for hit in hits)["b"] <= 120


@pytest.mark.parametrize("design", ["split", "interleaved"])
def test_events_of_both_designs_are_compared(engines: dict[str, Opening], tmp_path: Path, design: str) -> None:
    """Shoppers who click what `b` found, and hardly what `a` did, make it the winner."""
    how: dict[str, object] = {"split": (("a", 50.0), ("b", 50.0))} if design == "split" else {"interleave": ("a", "b")}
    with served(engines, events=tmp_path, events_sessions=True, **how) as client:
        for session in map(str, range(80)):
            answer = client.post("/v1/search", json={"query": "red shirt", "k": 10, "session": session}).json()
            liked = "a" if int(session) % 4 == 0 else "b"
            chosen = [hit for hit in answer["hits"] if hit.get("team", answer.get("variant")) == liked][:2]
            told = [
                {
                    "action_name": "click",
                    "query_id": answer["query_id"],
                    "session_id": session,
                    "event_attributes": {
                        "object": {"object_id": hit["item_id"]},
                        "position": {"ordinal": hit["rank"]},
                        **({"variant": hit["team"]} if "team" in hit else {}),
                    },
                }
                for hit in chosen
            ]
            if told:
                assert client.post("/v1/events", json=told).json()["accepted"] == len(told)
    done = compare([tmp_path], design=design)  # type: ignore[arg-type]
    assert sum(done.sessions.values()) == 80  # those without a click, too
    assert done.notes == []
    assert [(row.action, row.winner) for row in done.rows] == [("click", "b")]
