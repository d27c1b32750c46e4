"""The HTTP API over a real index, in process."""

import gzip
import io
import json
import re
import shutil
import zlib
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from smar.search.items import Items
from smar.search.local.live import UpdatableIndex
from smar.serving.app import create_app
from smar.serving.engine import Engine
from tiny_index import draw, vectors_of
from tiny_service import search


def error_of(response: object, status: int) -> dict:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message"}
    return body["error"]


def test_search(client: TestClient) -> None:
    response = client.post("/v1/search", json={"query": " Red SHIRT ", "k": 5, "explain": True})
    body = response.json()
    assert body["query"] == "red shirt"
    assert body["mode"] == "adaptive"
    assert body["routed"] is True
    assert 0.5 < body["image_probability"] <= 1
    assert [hit["rank"] for hit in body["hits"]] == [1, 2, 3, 4, 5]
    for hit in body["hits"]:
        p = body["image_probability"]
        assert hit["score"] == pytest.approx(p * hit["multimodal_score"] + (1 - p) * hit["text_score"], abs=1e-5)
        assert hit["rank_text"] >= 1
        assert {"title", "category", "brand", "price"} <= set(hit["item"])
        assert "picture_offset" not in hit["item"]
        assert (hit["picture"] is None) == (hit["item"]["image_status"] == "missing")
    assert re.fullmatch(r"(\w+;dur=[\d.]+(, )?)+", response.headers["server-timing"])


@pytest.mark.parametrize("mode", ["adaptive", "route", "text", "multimodal", "hybrid"])
def test_the_answer_says_how_much_of_the_query_is_unknown(client: TestClient, mode: str) -> None:
    asked = {
        query: search(client, query=query, mode=mode)["unknown"] for query in ("red shirt", "红色连衣裙", "red 红色")
    }
    assert asked == pytest.approx({"red shirt": 0, "红色连衣裙": 1, "red 红色": 0.4}, abs=1e-6)


def test_modes_and_filter(client: TestClient) -> None:
    words = search(client, mode="text", k=30)
    pictures = search(client, mode="multimodal", k=30)
    assert [hit["item_id"] for hit in words["hits"]] != [hit["item_id"] for hit in pictures["hits"]]
    assert all(hit["rank_text"] == hit["rank"] for hit in words["hits"])
    assert all(hit["rank_text"] is None for hit in pictures["hits"])
    for hit in search(client, k=200, filter="brand in (Nike, 'Le Coq') and price<=80")["hits"]:
        assert hit["item"]["brand"] in ("Nike", "Le Coq")
        assert hit["item"]["price"] <= 80
    assert search(client, filter="price<0")["hits"] == []


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"query": ""}, "empty_query", "the query is empty"),
        ({"query": " \n "}, "empty_query", "the query is empty"),
        ({"query": "x" * 10_000}, "query_too_long", "10,000 characters; at most 1,000"),
        ({"query": "red", "k": 0}, "invalid_request", "k: "),
        ({"query": "red", "k": 201}, "invalid_request", "k: "),
        ({"query": "red", "k": "10"}, "invalid_request", "k: "),
        ({"query": "red", "mode": "magic"}, "invalid_request", "mode: "),
        ({"query": "red", "filter": "colour=red"}, "invalid_filter", "unknown column 'colour'"),
        ({"query": "red", "filter": "price<"}, "invalid_filter", "character 7"),
        ({"query": "red", "limit": 3}, "invalid_request", "limit: "),
        ({"query": ["red"]}, "invalid_request", "query: "),
        ({}, "empty_query", "give a filter or a sort to browse"),
        ([], "invalid_request", "body: "),
    ],
)
def test_wrong_requests(client: TestClient, body: object, code: str, message: str) -> None:
    error = error_of(client.post("/v1/search", json=body), 422)
    assert error["code"] == code
    assert message in error["message"]
    assert len(error["message"]) < 500


QUERY = '{"query": "red shirt"}'
GZIPPED = gzip.compress(QUERY.encode(), mtime=0)


@pytest.mark.parametrize(
    ("content", "headers", "status", "message"),
    [
        (b"", {}, 422, "the body is empty; a JSON object is wanted."),
        (b" \n", {}, 422, "the body is empty; a JSON object is wanted."),
        (b'{"query":', {}, 422, "the body is not JSON: EOF while parsing a value at line 1 column 9."),
        (b'{"query": "red}', {}, 422, "the body is not JSON: EOF while parsing a string at line 1 column 15."),
        (b'{"query": "red",}', {}, 422, "the body is not JSON: trailing comma at line 1 column 17."),
        (b"{'query': 'red'}", {}, 422, "the body is not JSON: key must be a string at line 1 column 2."),
        (b'{"query": "\\ud83d"}', {}, 422, "the body is not JSON: unexpected end of hex escape at line 1 column 18."),
        (b'{"query": "\\ude00"}', {}, 422, "the body is not JSON: lone leading surrogate in hex escape"),
        (b'{"query": "\xed\xa0\xbd"}', {}, 422, "the body is not JSON in UTF-8: byte 12 (ED) begins a lone UTF-16"),
        (b'{"query": "caf\xe9"}', {}, 422, "the body is not JSON in UTF-8: byte 15 (E9) begins no UTF-8 character."),
        (QUERY.encode("utf-16"), {}, 422, "the body is not JSON but UTF-16 or UTF-32 (it begins with the byte order"),
        (QUERY.encode("utf-16-be"), {}, 422, "the body is not JSON in UTF-8: it holds zero bytes, as UTF-16"),
        (QUERY.encode("utf-16-le"), {}, 422, "the body is not JSON in UTF-8: it holds zero bytes, as UTF-16"),
        (QUERY.encode("utf-8-sig"), {}, 422, "the body is not JSON but UTF-8 with a byte order mark (EF BB BF); leave"),
        (GZIPPED, {}, 422, "the body is not JSON but compressed with gzip; send it as it is."),
        (GZIPPED, {"content-encoding": "gzip"}, 415, "the body has Content-Encoding: gzip,"),
        (zlib.compress(QUERY.encode()), {"content-encoding": "deflate"}, 415, "the body has Content-Encoding: deflate"),
        (b"query=red", {"content-type": "application/x-www-form-urlencoded"}, 422,
         "the body is not JSON (it was sent as application/x-www-form-urlencoded): expected value at line 1 column 1."),
        (b"\xff\xd8\xff\xe0", {"content-type": "image/jpeg"}, 422, "the body is not JSON but a JPEG picture."),
        (b"[]", {}, 422, "body: Input should be an object"),
        (b"null", {}, 422, "body: Input should be an object"),
        (b"[" * 9999, {}, 422, "the body is not JSON: recursion limit exceeded"),
        (b"[" * 99_999, {}, 413, "the request's body has"),
    ],
)  # fmt: skip
def test_broken_bodies_are_called_what_they_are(
    client: TestClient, content: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    sent = {"content-type": "application/json"} | headers
    error = error_of(client.post("/v1/search", content=content, headers=sent), status)
    assert error["message"].startswith(message), error
    assert error["code"] == {413: "body_too_large", 415: "unsupported_media_type", 422: "invalid_request"}[status]


def test_what_a_client_calls_a_good_body_does_not_matter(client: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"):
        assert client.post("/v1/search", content=QUERY, headers={"content-type": kind}).status_code == 200


def test_other_routes_and_methods(client: TestClient) -> None:
    assert error_of(client.post("/v1/facets"), 405)["code"] == "method_not_allowed"
    assert error_of(client.get("/nothing"), 404)["code"] == "not_found"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(max_size=60), filter=st.none() | st.text(max_size=30))
def test_no_text_breaks_it(client: TestClient, query: str, filter: str | None) -> None:
    response = client.post("/v1/search", content=json.dumps({"query": query, "filter": filter, "k": 2}))
    assert response.status_code in (200, 422), response.text


def test_items(client: TestClient) -> None:
    hit = search(client, k=1)["hits"][0]
    body = client.get("/v1/items/" + quote(hit["item_id"], safe="")).json()
    assert body == {"item_id": hit["item_id"], "picture": hit["picture"], "item": hit["item"]}
    assert client.get("/v1/items/" + hit["item_id"]).json() == body
    for name in ("nope", "%00", "..%2f..%2fetc%2fpasswd", "🙂", "x" * 5000):
        assert error_of(client.get(f"/v1/items/{name}"), 404)["code"] == "unknown_item"


@pytest.mark.parametrize("ending", ["picture", "similar"])
def test_an_id_may_end_as_a_route_does(index_path: Path, tmp_path: Path, ending: str) -> None:
    live = UpdatableIndex.open(Path(shutil.copytree(index_path, tmp_path / "index")))
    text, multimodal = vectors_of(live.snapshot, "item/00001")
    names = ["x", f"x/{ending}"]
    payload = pa.table({"item_id": names, "title": names})
    vectors = (np.stack([half, half]) for half in (text, multimodal))
    live.upsert(Items(live.snapshot.fingerprint, payload, *vectors, [draw("Shirt", "red"), draw("Watch", "blue")]))
    client = TestClient(create_app(Engine(live)))
    for name in names:
        address = f"/v1/items/{quote(name, safe='')}"
        assert client.get(address).json()["item"]["title"] == name
        assert client.get(f"{address}/picture").content == live.snapshot.catalogue.picture(
            live.snapshot.catalogue.row_of(name) or 0
        )
        assert name not in [hit["item_id"] for hit in client.get(f"{address}/similar?k=3").json()["hits"]]


def test_pictures(client: TestClient) -> None:
    seen = set()
    for hit in search(client, k=200)["hits"]:
        address = f"/v1/items/{quote(hit['item_id'], safe='')}/picture"
        response = client.get(address)
        if hit["picture"] is None:
            assert error_of(response, 404)["code"] == "no_picture"
            continue
        assert hit["picture"] == address
        kind = Image.open(io.BytesIO(response.content)).format
        assert response.headers["content-type"] == f"image/{kind.lower()}"
        assert "max-age" in response.headers["cache-control"]
        seen.add(kind)
        again = client.get(address, headers={"If-None-Match": response.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert seen == {"JPEG", "PNG"}
    assert error_of(client.get("/v1/items/nope/picture"), 404)["code"] == "unknown_item"


def test_facets(client: TestClient, engine: Engine) -> None:
    body = client.get("/v1/facets").json()
    payload = engine.index.catalogue.table.to_pylist()
    assert body["items"] == len(payload) == 180
    assert body["pictures"] == sum(item["image_status"] == "ok" for item in payload)
    assert {entry["value"]: entry["count"] for entry in body["category"]} == {
        "Shirt": 60,
        "Watch": 60,
        "Kettle": 60,
    }
    assert sum(entry["count"] for entry in body["brand"]) == sum(item["brand"] is not None for item in payload)
    counts = [entry["count"] for entry in body["brand"]]
    assert counts == sorted(counts, reverse=True)
    prices = [item["price"] for item in payload if item["price"] is not None]
    assert body["price"] == {"low": min(prices), "high": max(prices)}
    for entry in body["category"]:
        assert client.get(entry["picture"]).status_code == 200
    assert len(client.get("/v1/facets?top=1").json()["brand"]) == 1
    assert error_of(client.get("/v1/facets?top=0"), 422)["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/items/a%2Fb", {"DELETE", "GET", "HEAD", "PATCH", "PUT"}),
        ("POST", "/v1/items/a/similar", {"GET", "HEAD"}),
        ("GET", "/v1/search/picture", {"POST"}),
        ("OPTIONS", "/v1/search", {"POST"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("POST", "/static/app.js", {"GET", "HEAD"}),
        ("POST", "/", {"GET", "HEAD"}),
    ],
)
def test_all_methods_that_are_allowed_are_named(client: TestClient, method: str, path: str, allowed: set[str]) -> None:
    answer = client.request(method, path)
    named = answer.headers["allow"].split(", ")
    assert allowed <= set(named)
    assert named == sorted(set(named))
    assert method not in named
    assert error_of(answer, 405)["message"].endswith(f"allowed: {', '.join(named)}")


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/v1/facets?topp=3", "top, filter"),
        ("/v1/items/item%2F00001?fields=title", "none"),
        ("/v1/items/item%2F00001/similar?k=3&K=3", "k, offset, filter"),
        ("/readyz?verbose", "none"),
    ],
)
def test_unknown_parameters_are_refused(client: TestClient, path: str, known: str) -> None:
    error = error_of(client.get(path), 422)
    assert error["code"] == "invalid_request"
    assert re.fullmatch(rf"unknown parameter '\w+'; allowed: {known}.*\.", error["message"])


def test_unknown_parameters_of_bodies_are_refused(client: TestClient) -> None:
    for answer in (
        client.post("/v1/search?k=3", json={"query": "red"}),
        client.post("/v1/search", json={"query": "red", "kk": 3}),
        client.post("/v1/search/picture?kk=3", content=b"x"),
    ):
        assert error_of(answer, 422)["code"] == "invalid_request"
    assert client.get("/?q=red&utm_source=letter").status_code == client.get("/static/app.js?v=3").status_code == 200


def test_health(client: TestClient, index_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/healthz").json() == {"status": "up"}
    assert client.get("/readyz").json() == {"status": "ready"}
    broken = Engine.open(index_path)

    def fail(*_: object) -> None:
        raise OSError("the disk went away")

    monkeypatch.setattr(broken.encoder, "encode", fail)
    client = TestClient(create_app(broken), raise_server_exceptions=False)
    assert client.get("/healthz").status_code == 200
    error = error_of(client.get("/readyz"), 503)
    assert error == {"code": "not_ready", "message": "a probe query failed: OSError: the disk went away"}
    failed = error_of(client.post("/v1/search", json={"query": "red"}), 500)
    assert failed["code"] == "internal"
    assert "disk" not in failed["message"]


def test_page_and_documentation_load_nothing_from_elsewhere(client: TestClient) -> None:
    for address in ("/", "/docs"):
        response = client.get(address)
        assert response.headers["content-type"].startswith("text/html")
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"(src|href)=\"(https?:)?//", response.text)
        assert not re.search(r"<style|style=|<script>|\son\w+=", response.text)
        for link in re.findall(r'(?:src|href)="(/(?:static|swagger)[^"]+)"', response.text):
            found = client.get(link)
            assert found.status_code == 200, link
            assert found.headers["x-content-type-options"] == "nosniff"
    assert client.get("/static/../app.py").status_code == 404


def test_openapi_describes_the_answers(client: TestClient) -> None:
    described = client.get("/openapi.json")
    assert "HTTPValidationError" not in described.text  # FastAPI's own shape of errors, which is never sent
    paths = described.json()["paths"]
    assert set(paths["/v1/search"]["post"]["responses"]) == {"200", "413", "415", "422", "429", "503"}
    assert {"/v1/items/{item_id}", "/v1/items/{item_id}/picture", "/v1/facets", "/healthz", "/readyz"} < set(paths)


def test_a_shop_with_titles_only(tmp_path: Path) -> None:
    """No category, brand, price or picture: the service offers what there is."""
    import pyarrow.parquet as pq

    from smar.search.local.build import build_index
    from tiny_index import write_embeddings

    source = write_embeddings(tmp_path / "embeddings", items=12)
    payload = source / "payload.parquet"
    pq.write_table(pq.read_table(payload).select(["item_id", "title"]), payload)
    (source / "pictures.bin").unlink()
    build_index(source, tmp_path / "index")
    shutil.rmtree(source)
    client = TestClient(create_app(Engine.open(tmp_path / "index")))
    assert client.get("/v1/facets").json() == {
        "items": 12,
        "pictures": 0,
        "category": [],
        "brand": [],
        "price": None,
        "prices": [],
    }
    assert all(hit["picture"] is None for hit in search(client)["hits"])
    assert client.get("/readyz").status_code == 200
