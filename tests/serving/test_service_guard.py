"""What surrounds every answer: ids, headers, keys, limits, figures, logs, cache."""

import asyncio
import json
import logging
import re
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from starlette.types import ASGIApp, Message

from smar.core.logs import ACCESS, JsonLines
from smar.search.local.live import UpdatableIndex
from smar.search.protocol import Mode
from smar.serving.answers import Cache
from smar.serving.app import create_app
from smar.serving.engine import Engine
from smar.serving.guard import SECURITY_HEADERS
from smar.serving.options import ServiceOptions
from smar.serving.prometheus import flush
from smar.serving.question import Question, RequestError
from tiny_service import nameless

KEY = "0123456789abcdef"
RED = {"query": "red shirt", "k": 3}


def service(engine: Engine, **options: object) -> TestClient:
    return TestClient(create_app(engine, ServiceOptions(**options)), raise_server_exceptions=False)  # type: ignore[arg-type]


def code_of(response: object) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]  # type: ignore[attr-defined]


def figure(name: str, **labels: str) -> float:
    flush()
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_every_answer_has_headers_and_an_id(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    client = service(engine, keys=(KEY,))
    answers = [
        client.post("/v1/search", json=RED),
        client.get("/nothing"),
        client.post("/v1/search", content=b"x" * 100_000),
        client.delete("/v1/items/item%2F00001"),
    ]
    monkeypatch.setattr("smar.serving.answers.hits_out", lambda *_: 1 / 0)
    answers.append(client.post("/v1/search", json=RED | {"k": 4}))
    assert [answer.status_code for answer in answers] == [200, 404, 413, 401, 500]
    for answer in answers:
        assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert len(answer.headers["x-request-id"]) == 32
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_request_ids_of_the_proxy_are_kept(engine: Engine) -> None:
    client = service(engine)
    assert client.get("/healthz", headers={"X-Request-ID": "shop-1:a.b_c"}).headers["x-request-id"] == "shop-1:a.b_c"
    for wrong in ("", "a b", "x" * 65, "{}"):
        assert client.get("/healthz", headers={"X-Request-ID": wrong}).headers["x-request-id"] != wrong


def test_writes_need_a_key(engine: Engine) -> None:
    client = service(engine)
    assert code_of(client.delete("/v1/items/a")) == (403, "writes_are_off")
    client = service(engine, keys=(KEY,))
    assert code_of(client.put("/v1/items/a", json={"title": "a"})) == (401, "unauthorised")
    for headers in ({"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Basic {KEY}"}, {"X-API-Key": KEY[1:]}):
        answer = client.put("/v1/items/a", json={"title": "a"}, headers=headers)
        assert code_of(answer) == (401, "unauthorised")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post("/v1/search", json=RED).status_code == 200


def test_reads_can_need_a_key(engine: Engine) -> None:
    client = service(engine, keys=(KEY,), protect_reads=True)
    assert code_of(client.post("/v1/search", json=RED)) == (401, "unauthorised")
    assert code_of(client.get("/v1/facets")) == (401, "unauthorised")
    assert client.post("/v1/search", json=RED, headers={"Authorization": f"bearer {KEY}"}).status_code == 200
    assert client.get("/v1/facets", headers={"X-API-Key": KEY}).status_code == 200
    assert client.get("/readyz").status_code == client.get("/").status_code == 200


def test_rates(engine: Engine, tmp_path: Path) -> None:
    client = service(engine, rate=0.001, burst=3, shared=tmp_path)
    assert [client.post("/v1/search", json=RED).status_code for _ in range(4)] == [200, 200, 200, 429]
    answer = client.get("/v1/facets")
    assert code_of(answer) == (429, "too_many_requests")
    assert 0 < int(answer.headers["retry-after"]) <= 1001
    assert client.get("/readyz").status_code == client.get("/metrics").status_code == 200
    for free in ("/static/app.js", "/v1/items/item%2F00001/picture"):
        assert [client.get(free).status_code for _ in range(5)] == [200] * 5
    assert client.post("/v1/search/picture", content=b"x").status_code == 429


def test_sizes(engine: Engine) -> None:
    client = service(engine, body_bytes=2000, upload_bytes=5000, keys=(KEY,))
    assert code_of(client.post("/v1/search", content=b" " * 2001)) == (413, "body_too_large")
    assert client.post("/v1/search", content=json.dumps(RED).encode() + b" " * 1900).status_code == 200

    def parts() -> Iterator[bytes]:  # no Content-Length: found out while it is read
        yield from [b" " * 500] * 5

    answer = client.post("/v1/search", content=parts())
    assert code_of(answer) == (413, "body_too_large")
    assert answer.headers["connection"] == "close"
    assert client.put("/v1/items/a", content=b" " * 4000, headers={"X-API-Key": KEY}).status_code != 413
    assert code_of(client.put("/v1/items/a", content=b" " * 5001, headers={"X-API-Key": KEY}))[0] == 413


def test_cache(engine: Engine, index_path: Path, tmp_path: Path) -> None:
    engine = Engine.open(Path(shutil.copytree(index_path, tmp_path / "index")))
    client = service(engine)
    first = client.post("/v1/search", json=RED)
    hits = figure("smar_cache_total", result="hit")
    again = client.post("/v1/search", json=RED | {"query": " RED  shirt"})
    assert figure("smar_cache_total", result="hit") == hits + 1
    assert nameless(again.json()) == nameless(first.json())
    assert re.fullmatch(r"cache;dur=0\.\d{3}", again.headers["server-timing"])
    for other in ({"k": 4}, {"mode": "text"}, {"filter": "price<50"}, {"explain": True}):
        assert "search;dur" in client.post("/v1/search", json=RED | other).headers["server-timing"]
    best = first.json()["hits"][0]["item_id"]
    UpdatableIndex.open(engine.live.folder).delete([best])
    engine.refresh()
    assert best not in client.post("/v1/search", json=RED).text
    client = service(engine, cache_bytes=0)
    assert all("search;dur" in client.post("/v1/search", json=RED).headers["server-timing"] for _ in range(2))


def test_a_crowd_is_told_to_come_back(engine: Engine) -> None:
    app = create_app(engine)
    client = TestClient(app)
    app.crowded = lambda: True
    answer = client.post("/v1/search", json=RED)
    assert code_of(answer) == (503, "too_many_connections")
    assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
    assert len(answer.headers["x-request-id"]) == 32
    assert client.get("/readyz").status_code == client.get("/metrics").status_code == 200
    app.crowded = lambda: False
    assert client.post("/v1/search", json=RED).status_code == 200


def ask_in_parts(app: ASGIApp, path: str, *messages: Message) -> list[Message]:
    """One POST whose body comes as `messages`; returns what is sent."""
    sent: list[Message] = []
    left = iter(messages)
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}

    async def receive() -> Message:
        return next(left)

    async def send(message: Message) -> None:
        sent.append(message)

    async def ask() -> None:
        await app({**scope, "headers": [], "client": ("127.0.0.1", 1), "state": {}}, receive, send)
        flush()

    asyncio.run(ask())
    return sent


@pytest.mark.parametrize("path", ["/v1/search", "/v1/search/picture"])
def test_a_client_that_leaves_is_no_fault_of_the_service(engine: Engine, tmp_path: Path, path: str) -> None:
    app = create_app(engine, ServiceOptions(shared=tmp_path, writer=True))
    before = figure("smar_requests_total", method="POST", route=path, status="499")
    part: Message = {"type": "http.request", "body": b'{"query"', "more_body": True}
    ask_in_parts(app, path, part, {"type": "http.disconnect"})
    assert figure("smar_requests_total", method="POST", route=path, status="499") == before + 1


def test_room_is_given_back(engine: Engine, tmp_path: Path) -> None:
    app = create_app(engine, ServiceOptions(shared=tmp_path, writer=True, upload_bytes=1024))
    part: Message = {"type": "http.request", "body": b"x" * 1000, "more_body": True}
    for _ in range(9):  # twice of what has room
        sent = ask_in_parts(app, "/v1/search/picture", part, part)
        assert sent[0]["status"] == 413
        ask_in_parts(app, "/v1/search/picture", part, {"type": "http.disconnect"})
    app.rooms["pictures"].take(4 * 1024)
    assert ask_in_parts(app, "/v1/search/picture", part, part)[0]["status"] == 429
    for path in ("/v1/search", "/v1/items/x"):  # pictures of anybody's take nothing from words and changes
        whole: Message = {"type": "http.request", "body": b"{}", "more_body": False}
        assert ask_in_parts(app, path, whole)[0]["status"] != 429


def test_what_can_be_read_has_a_head(engine: Engine) -> None:
    client = service(engine)
    for path in ("/", "/docs", "/healthz", "/readyz", "/v1/about", "/v1/facets", "/static/app.js"):
        assert client.head(path).status_code == client.get(path).status_code == 200
    assert client.head("/v1/search/batch").status_code == 405


def test_a_head_is_logged_as_one(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, ACCESS):
        service(engine).head("/healthz")
    (record,) = caplog.records
    assert json.loads(JsonLines().format(record))["method"] == "HEAD"


def test_nobody_is_sent_where_the_client_says(engine: Engine) -> None:
    """A redirect would be made of the request's own Host header."""
    answer = service(engine).get("/v1/about/", headers={"Host": "evil.example"}, follow_redirects=False)
    assert code_of(answer) == (404, "not_found")


@pytest.mark.parametrize(("text", "least"), [("", 0.5), ("🙂" * 3900, 0.9)])
def test_the_cache_counts_what_it_keeps(engine: Engine, text: str, least: float) -> None:
    """Not the answers alone: those of filters that nothing passes are small, their questions may not be."""
    size, index = 1_000_000, engine.index
    cache = Cache(size)
    assert cache.get(index, Question("red")) is None
    tracemalloc.start()
    for number in range(5000):
        cache.keep(index, Question("red", filter=f"brand in ({text}{number})"), b"{}" * 20)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert least * size < grown < 1.1 * size
    assert cache.get(index, Question("red", filter=f"brand in ({text}4999)")) == b"{}" * 20


def test_a_blank_filter_is_none_and_a_long_one_is_refused_unread() -> None:
    assert Question.of("red", 3, Mode.TEXT, " \n ") == Question.of("red", 3, Mode.TEXT, None)
    for filter in (" " * 4001, "price<1" + "0" * 4000):
        with pytest.raises(RequestError, match="at most 4,000"):
            Question.of("red", 3, Mode.TEXT, filter)


def test_figures(engine: Engine) -> None:
    client = service(engine, cache_bytes=0)
    searched = {"method": "POST", "route": "/v1/search", "status": "200"}
    names = ["smar_stage_seconds_count", "smar_gate_total", "smar_requests_total", "smar_batch_size_count"]
    labels = [{"stage": "encode"}, {"decision": "pictures"}, searched, {}]
    before = [figure(name, **chosen) for name, chosen in zip(names, labels, strict=True)]
    timing = client.post("/v1/search", json=RED).headers["server-timing"]
    assert [part.split(";")[0] for part in timing.split(", ")] == [
        "tokenise", "encode", "gate", "filter", "search", "fetch",
    ]  # fmt: skip
    after = [figure(name, **chosen) for name, chosen in zip(names, labels, strict=True)]
    assert [late - early for early, late in zip(before, after, strict=True)] == [1, 1, 1, 1]
    client.get("/v1/items/" + "never-the-same/" * 3)
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert 'smar_requests_total{method="GET",route="/v1/items/{item_id:path}",status="404"}' in answer.text
    assert "never-the-same" not in answer.text


def test_logs_hold_no_query_unless_asked(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    for log in ("requests", "queries"):
        caplog.clear()
        with caplog.at_level(logging.INFO, "smar.access"):
            service(engine, log=log).post("/v1/search", json=RED, headers={"X-Request-ID": "r1"})
        (line,) = [JsonLines().format(record) for record in caplog.records if record.name == "smar.access"]
        told = json.loads(line)
        assert told["request_id"] == "r1"
        assert (told["route"], told["status"], told["hits"], told["k"], told["cached"]) == (
            "/v1/search",
            200,
            3,
            3,
            False,
        )
        assert told["ms"] > 0
        assert ("red shirt" in line) == (log == "queries")


@pytest.mark.parametrize("path", ["/v1/search", "/v1/items/nope/similar"])
def test_a_failure_is_logged_once_with_the_request_it_belongs_to(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    monkeypatch.setattr("smar.serving.answers.hits_out", lambda *_: 1 / 0)
    monkeypatch.setattr("smar.serving.change_routes.row_of", lambda *_: 1 / 0)
    client = service(engine)
    answer = client.post(path, json=RED | {"query": "secret wish"}) if path == "/v1/search" else client.get(path)
    assert code_of(answer) == (500, "internal")
    (record,) = [record for record in caplog.records if record.exc_info]
    line = json.loads(JsonLines().format(record))
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["route"] == ("/v1/search" if path == "/v1/search" else "/v1/items/{item_id:path}/similar")
    assert "ZeroDivisionError" in line["traceback"]
    assert "secret wish" not in json.dumps(line)


def test_a_failure_is_logged_with_its_traceback() -> None:
    try:
        raise ValueError('a "quoted"\nreason')
    except ValueError:
        import sys

        record = logging.LogRecord("smar", logging.ERROR, "", 0, "failed %s", ("here",), sys.exc_info())
    told = json.loads(JsonLines().format(record))
    assert told["message"] == "failed here"
    assert 'a "quoted"\nreason' in told["traceback"]


def test_an_endless_id_is_refused(engine: Engine, tmp_path: Path) -> None:
    """Each dot becomes three characters on the way to the model worker, whose client has a limit of its own."""
    client = service(engine, keys=(KEY,), shared=tmp_path, writer=True)
    for ask in (client.delete, client.put):
        answer = ask("/v1/items/" + "." * 25_000 + "x", headers={"X-API-Key": KEY})
        assert code_of(answer) == (422, "invalid_item")
        assert "25,001 characters; allowed: 1,000" in answer.json()["error"]["message"]


def test_any_content_type_is_passed_on(engine: Engine, tmp_path: Path) -> None:
    client = service(engine, keys=(KEY,), shared=tmp_path, writer=True)
    headers = {b"X-API-Key": KEY.encode(), b"Content-Type": b"application/json; charset=\xe9"}
    answer = client.put("/v1/items/a", content=b"{}", headers=headers)
    assert code_of(answer) == (503, "model_worker_down")  # there is none; it was not the header that failed
