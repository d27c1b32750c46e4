"""``POST /v1/events``: what is taken, what is refused, and that what was acknowledged survives."""

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import httpx
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from smar.data.event_tables import open_events
from smar.data.journals import EVENTS, QUERIES
from smar.serving.app import create_app
from smar.serving.engine import Engine
from smar.serving.options import ServiceOptions
from tiny_service import address, becomes, run_service


def event(action: str = "click", item: object = "item/00001", **more: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {"object": {"object_id": item}, "position": {"ordinal": more.pop("position", 1)}}
    told = {"action_name": action, "query_id": "q", "timestamp": datetime.now(UTC).isoformat()}
    return {**told, "event_attributes": attributes, **more}


def options(folder: Path, **more: Any) -> ServiceOptions:
    return ServiceOptions(events=folder, **more)


def read(folder: Path, kind: str = "events") -> list[dict[str, Any]]:
    files = sorted(folder.glob(f"{kind}-*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files]).to_pylist() if files else []


def search(client: TestClient, **body: Any) -> dict[str, Any]:
    answer: dict[str, Any] = client.post("/v1/search", json={"query": "red shirt"} | body).json()
    return answer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("events") / "made"


@pytest.fixture(scope="module")
def client(engine: Engine, folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(engine, options(folder)), raise_server_exceptions=False) as client:
        yield client


def test_every_search_has_an_id_of_its_own(client: TestClient) -> None:
    first, again = search(client), search(client)
    by_address = client.get("/v1/search?q=red+shirt")
    batch = client.post("/v1/search/batch", json={"searches": [{"query": "red"}, {"query": ""}, {"query": "red"}]})
    similar = client.get("/v1/items/item%2F00001/similar").json()
    one, wrong, other = batch.json()["answers"]
    assert "query_id" not in wrong
    linked = by_address.json()
    assert len({answer.pop("query_id") for answer in (first, again, linked, one, other, similar)}) == 6
    assert first == again == linked
    same = client.get("/v1/search?q=red+shirt", headers={"If-None-Match": by_address.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")


PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text(encoding="utf-8")


def test_the_request_of_the_documentation(client: TestClient) -> None:
    (request,) = re.findall(r"^```http\nPOST /v1/events\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (answer,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert client.post("/v1/events", content=request).json() == json.loads(answer)
    assert all(f"`{name}`" in PAGE for name in (*EVENTS.names, *QUERIES.names))


ONE, TWO = event(), event("impression", 7)


@pytest.mark.parametrize(
    ("kind", "body", "accepted"),
    [
        ("text/plain;charset=UTF-8", json.dumps([ONE, TWO]), 2),
        ("application/json", json.dumps(ONE, indent=2), 1),
        ("application/x-ndjson", f"{json.dumps(ONE)}\n\n{json.dumps(TWO)}\n", 2),
        ("text/plain", json.dumps(ONE), 1),
    ],
)
def test_what_a_beacon_sends_is_taken(client: TestClient, kind: str, body: str, accepted: int) -> None:
    answer = client.post("/v1/events", content=body, headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()) == (200, {"accepted": accepted, "rejected": 0, "errors": []})


LONG_AGO = (datetime.now(UTC) - timedelta(days=3)).isoformat()
SOON = (datetime.now(UTC) + timedelta(days=1)).isoformat()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({**ONE, "colour": "red"}, "unknown field `colour`"),
        ({**ONE, "action_name": "hover"}, "action_name is 'hover'; allowed: view, click_through, watch"),
        ({**ONE, "timestamp": LONG_AGO}, "48 h behind"),
        ({**ONE, "timestamp": SOON}, "300 s ahead"),
        ({**ONE, "timestamp": "2026-01-01T10:00:00"}, "timezone component"),
        ({**ONE, "query_id": "q" * 101}, "length <= 100"),
        ({key: value for key, value in ONE.items() if key != "query_id"}, "missing required field `query_id`"),
        ({**ONE, "event_attributes": {"object": {}}}, "missing required field `object_id`"),
        (event(position=0), ">= 1"),
        ("click", "Expected `object`, got `str`"),
    ],
)
@pytest.mark.parametrize("lines", [False, True])
def test_what_is_wrong_is_told_and_harms_no_other(client: TestClient, wrong: Any, said: str, lines: bool) -> None:
    some = [ONE, wrong, TWO]
    body = "\n".join(map(json.dumps, some)) if lines else json.dumps(some)
    answer = client.post("/v1/events", content=body)
    assert answer.status_code == 200
    seen = answer.json()
    assert (seen["accepted"], seen["rejected"], [one["number"] for one in seen["errors"]]) == (2, 1, [2])
    assert said in seen["errors"][0]["error"]["message"]
    alone = client.post("/v1/events", content=json.dumps(wrong))
    assert (alone.status_code, alone.json()["error"]["code"]) == (422, "invalid_events")
    assert said in alone.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 422, "holds no event"),
        (b"[]", 422, "holds no event"),
        (b"[{", 422, "no JSON array"),
        (b"\xff\xfe", 422, "event 1"),
        (b" " * 70_000, 413, "more than 65,536 bytes"),
    ],
)
def test_bodies_that_are_no_events(client: TestClient, body: bytes, status: int, said: str) -> None:
    answer = client.post("/v1/events", content=body)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_without_a_folder_no_events(engine: Engine) -> None:
    with TestClient(create_app(engine)) as client:
        answer = client.post("/v1/events", json=ONE)
        assert client.get("/v1/about").json()["events"] is False
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_events")


def told(folder: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect() as con:
        open_events(con, [folder])
        return con.execute(
            "SELECT action_name, query, object_id, position, session_id FROM event ORDER BY 1"
        ).fetchall()


def test_parts_have_the_layout_and_the_words_of_the_search(engine: Engine, tmp_path: Path) -> None:
    with TestClient(create_app(engine, options(tmp_path))) as client:
        found = search(client, k=7)
        again = search(client, k=7)  # a kept answer
        sent = [
            event(name, 7, query_id=found["query_id"], session_id="me", position=3) for name in ("view", "purchase")
        ]
        sent += [event("cart", query_id=again["query_id"]), event("click", query_id="strange", user_query="Shirt")]
        assert client.post("/v1/events", json=sent).json()["accepted"] == 4
        assert not list(tmp_path.glob("*.parquet"))
        assert len(list(tmp_path.glob("*.journal"))) == 1
    assert not list(tmp_path.glob("*.journal"))
    (part,) = tmp_path.glob("events-*.parquet")
    assert pq.read_schema(part).equals(EVENTS)
    (queries,) = tmp_path.glob("queries-*.parquet")
    assert pq.read_schema(queries).equals(QUERIES)
    assert told(tmp_path) == [
        ("cart", "red shirt", "item/00001", 1, None),
        ("click", "Shirt", "item/00001", 1, None),
        ("impression", "red shirt", "7", 3, None),
        ("order", "red shirt", "7", 3, None),
    ]
    for row, answer in zip(read(tmp_path, "queries"), (found, again), strict=True):
        assert row["query_id"] == answer["query_id"]
        assert row["image_probability"] == pytest.approx(answer["image_probability"])
        seen = {name: row[name] for name in ("query", "hits", "total", "routed", "mode", "offset", "session_id")}
        assert seen == {"query": "red shirt", "hits": 7, "total": 180, "routed": True, "mode": "adaptive", "offset": 0,
                        "session_id": None}  # fmt: skip


def test_sessions_are_hashes_that_stay(engine: Engine, tmp_path: Path) -> None:
    for _ in range(2):
        with TestClient(create_app(engine, options(tmp_path, events_sessions=True))) as client:
            client.post("/v1/search", json={"query": "red"}, headers={"X-Session-Id": "me"})
            client.post("/v1/events", json=[event(session_id="me", client_id="me", user_id="me"), event()])
    rows = read(tmp_path)
    ids = {row["session_id"] for row in rows} - {None}
    assert len(rows) == 4
    assert len(ids) == 1, "one session over two starts"
    assert {row["session_id"] for row in read(tmp_path, "queries")} == ids
    assert not ids & {row["client_id"] for row in rows}, "a client's id is hashed apart"
    assert b'"me"' not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert (tmp_path / "sessions.key").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_is_told_and_nothing_half_is_kept(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TestClient(create_app(engine, options(tmp_path))) as client:
        assert client.post("/v1/events", json=[ONE]).status_code == 200
        real = os.fsync

        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        refused = client.post("/v1/events", json=[TWO])
        monkeypatch.setattr(os, "fsync", real)
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "events_not_written")
        assert client.post("/v1/events", json=[ONE]).status_code == 200
    assert [row["action_name"] for row in read(tmp_path)] == ["click", "click"]


def test_a_journal_becomes_a_part_by_size_and_by_age(engine: Engine, tmp_path: Path) -> None:
    by_size, by_age = tmp_path / "size", tmp_path / "age"
    with TestClient(create_app(engine, options(by_size, events_part_bytes=1024))) as client:
        for _ in range(2):
            client.post("/v1/events", json=[ONE] * 20)
        assert becomes(lambda: len(read(by_size)) == 40)
    assert len(list(by_size.glob("events-*"))) == 2
    with TestClient(create_app(engine, options(by_age, events_part_seconds=0.1))) as client:
        client.post("/v1/events", json=[ONE])
        assert becomes(lambda: len(read(by_age)) == 1)


def test_a_client_has_a_rate_of_its_own(engine: Engine, tmp_path: Path) -> None:
    """30 events at once, then 10 a second, beside a rate of requests that does not count them."""
    limits: dict[str, Any] = {"events_rate": 10, "events_burst": 30, "rate": 1, "burst": 2, "shared": tmp_path}
    with TestClient(create_app(engine, options(tmp_path / "events", **limits))) as client:
        answers = [client.post("/v1/events", json=[ONE] * 10) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert client.get("/v1/search?q=red").status_code == 200
    assert len(read(tmp_path / "events")) == 30


def test_what_was_acknowledged_survives_kill(index_path: Path, tmp_path: Path) -> None:
    """Workers are killed while clients send; each event that was acknowledged is in the parts, once."""
    folder, acknowledged, stop = tmp_path / "events", set[str](), threading.Event()
    with run_service(
        index_path,
        "--events",
        str(folder),
        "--workers",
        "2",
        "--set",
        "events_rate=0",
        "--set",
        "events_part_bytes=8192",
    ) as process:
        url = address(process)

        def send(client: int) -> None:
            number = 0
            while not stop.is_set():
                names = [f"{client}-{number + at}" for at in range(10)]
                number += 10
                try:
                    answer = httpx.post(f"{url}/v1/events", json=[event(item=name) for name in names])
                except httpx.HTTPError:
                    continue
                if answer.status_code == 200:
                    acknowledged.update(names)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        assert becomes(lambda: len(acknowledged) > 50)
        workers = [child for child in psutil.Process(process.pid).children() if "serving.worker" in child.cmdline()[2]]
        assert len(workers) == 2
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
        before = len(acknowledged)
        assert becomes(lambda: len(acknowledged) > before + 50), "they are started again and go on"
        stop.set()
        for thread in threads:
            thread.join()
    rows = [row["object_id"] for row in read(folder)]
    assert len(rows) == len(set(rows)), "an event is there twice"
    assert acknowledged <= set(rows)
    assert not list(folder.glob("*.journal"))
