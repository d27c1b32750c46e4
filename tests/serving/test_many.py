"""Columns that change alone, many items at once, all items page by page: through the whole service."""

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
import psutil
import pytest
from fastapi.testclient import TestClient

from smar.embedding.update import open_for_update
from smar.search.local.live import UpdatableIndex
from smar.serving.app import create_app
from smar.serving.engine import Engine
from smar.serving.grouped_writes import Together, lines_of
from smar.serving.writer_client import WriterAnswer, WriterClient, WriterDown
from tiny_index import vectors_of
from tiny_line import Line
from tiny_service import address, becomes, run_service
from tiny_writer import PATIENCE, png, row

pytestmark = pytest.mark.slow
KEY = "0123456789abcdef"
BULK = "/v1/items/bulk"


class Shop:
    """A service with a model worker, and its index."""

    def __init__(self, process: subprocess.Popen[str], client: httpx.Client, folder: Path) -> None:
        self.process, self.client, self.folder = process, client, folder

    def get(self, item_id: str) -> dict:
        answer = self.client.get(f"/v1/items/{quote(item_id, safe='')}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def bulk(self, action: str, *rows: object) -> list[dict]:
        content = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
        answer = self.client.post(BULK, params={"action": action}, content=content.encode())
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson"), answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def all(self, **given: object) -> list[dict]:
        found, after = [], ""
        while after is not None:
            page = self.client.get("/v1/items", params={"after": after, "limit": 70} | given).json()
            found += page["items"]
            after = page["next"]
        assert page["total"] == len(found)
        return found

    def writer(self) -> psutil.Process:
        (found,) = [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if "smar.serving.writer" in child.cmdline()
        ]
        return found

    def up(self) -> bool:
        return self.client.delete("/v1/items/none").status_code == 404


@pytest.fixture(scope="module")
def shop(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "keys.txt").write_text(KEY + "\n")
    index = line.copy("index", folder)
    with (
        run_service(index, "--model", str(line.run), "--keys", str(folder / "keys.txt")) as process,
        httpx.Client(base_url=address(process), headers={"X-API-Key": KEY}, timeout=PATIENCE) as client,
    ):
        shop = Shop(process, client, index)
        assert becomes(shop.up, PATIENCE)
        yield shop
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        process.kill()
        assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []  # they end with their supervisor


def test_a_column_changes_and_the_rest_stays(shop: Shop) -> None:
    before, vectors = shop.get("F001"), vectors_of(UpdatableIndex.open(shop.folder).snapshot, "F001")
    answer = shop.client.patch("/v1/items/F001", json={"price": 9.99, "in_stock": None})
    assert (answer.status_code, answer.json()) == (200, {"item_id": "F001", "updated": True})
    assert shop.get("F001") == before | {"item": before["item"] | {"price": 9.99, "in_stock": None}}
    index = UpdatableIndex.open(shop.folder)
    assert index.changed == 0  # nothing was encoded
    np.testing.assert_array_equal(vectors_of(index.snapshot, "F001"), vectors)
    found = shop.client.get("/v1/items", params={"filter": "price=9.99"}).json()
    assert [item["item_id"] for item in found["items"]] == ["F001"]


def test_other_words_are_encoded_and_the_picture_stays(shop: Shop, line: Line) -> None:
    index, encoder = open_for_update(shop.folder, line.run)
    name = "N290"
    served, _ = vectors_of(index.snapshot, name)
    picture = shop.client.get(f"/v1/items/{name}/picture").content
    assert shop.client.patch(f"/v1/items/{name}", json={"title": "Green kettle", "price": 5}).status_code == 200
    index.refresh()
    found = row(index, name)
    assert found is not None
    assert (found["title"], found["price"], found["image_status"]) == ("Green kettle", 5.0, "ok")
    fields = [[found[field] or ""] for field in encoder.config.text_fields]
    blank = np.zeros((0, 32, 32, 3), np.uint8)
    text = encoder.encode_item(fields, blank, np.array([False])).text[0].numpy()
    np.testing.assert_allclose(vectors_of(index.snapshot, name)[1], text, atol=1e-5)
    np.testing.assert_array_equal(vectors_of(index.snapshot, name)[0], served)
    assert shop.client.get(f"/v1/items/{name}/picture").content == picture
    hits = shop.client.post("/v1/search", json={"query": "green kettle", "mode": "hybrid"}).json()["hits"]
    assert name in [hit["item_id"] for hit in hits]  # by its new words


@pytest.mark.parametrize(
    ("name", "body", "status", "code"),
    [
        ("none", {"price": 1}, 404, "unknown_item"),
        ("none", {"title": "Words"}, 404, "unknown_item"),
        ("F001", {"price": "1"}, 422, "wrong_type"),
        ("F001", {"price": float("nan")}, 422, "wrong_type"),
        ("F001", {"price": float("inf")}, 422, "wrong_type"),
        ("F001", {"colour": "red"}, 422, "unknown_column"),
        ("F001", {"image_status": "ok"}, 422, "unknown_column"),
        ("F001", {"picture": None}, 422, "unknown_column"),
        ("F001", {"title": " "}, 422, "invalid_item"),
        ("F001", {"item_id": "F003"}, 422, "invalid_item"),
        ("F001", [1], 422, "invalid_item"),
        ("F001", {"title": "\ud800"}, 422, "wrong_type"),
    ],
)
def test_wrong_changes_are_refused(shop: Shop, name: str, body: object, status: int, code: str) -> None:
    answer = shop.client.patch(f"/v1/items/{name}", content=json.dumps(body))
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text


def test_what_get_returns_can_be_put_back(shop: Shop) -> None:
    for name in ("F001", "F040"):  # with a picture, and without
        index = UpdatableIndex.open(shop.folder)
        shown, vectors = shop.get(name), vectors_of(index.snapshot, name)
        url = f"/v1/items/{name}"
        answer = shop.client.put(url, json=shown)
        assert (answer.status_code, answer.json()["created"]) == (200, False), answer.text
        index.refresh()
        np.testing.assert_allclose(vectors_of(index.snapshot, name), vectors, atol=1e-5)
        assert shop.get(name) == shown
        changed = shown | {"item": shown["item"] | {"price": 7.5, "title": "Black dress", "brand": None}}
        assert shop.client.put(url, json=changed).status_code == 200
        assert shop.get(name) == changed
        del changed["item"]["price"]  # PUT replaces an item: what is not sent is gone
        assert shop.client.put(url, json=changed).status_code == 200
        assert shop.get(name)["item"]["price"] is None
    shown = shop.get("F001")
    new = {"picture": base64.b64encode(png()).decode()}
    assert shop.client.put("/v1/items/F001", json=shown | new).status_code == 200
    assert shop.client.get("/v1/items/F001/picture").content == png()
    wrong = [
        shown | {"item_id": "F003"},
        shown | {"picture": "/v1/items/F003/picture"},
        shown | {"item": shown["item"] | {"image_status": "missing"}},
        shown | {"item": shown["item"] | {"price": "7"}},
    ]
    for body in wrong:
        assert shop.client.put("/v1/items/F001", json=body).status_code == 422
    assert shop.client.delete("/v1/items/F001").status_code == 200
    answer = shop.client.put("/v1/items/F001", json=shown)  # its picture went with it
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_item")


def test_all_items_page_by_page(shop: Shop) -> None:
    items = shop.all()
    names = [item["item_id"] for item in items]
    assert names == sorted(set(names))
    assert len(names) == shop.client.get("/v1/about").json()["items"]
    assert items[3] == shop.get(names[3])
    assert {item["item_id"] for item in shop.all(filter="price<50")} == {
        item["item_id"] for item in items if (item["item"]["price"] or 99) < 50
    }
    found, after = [], ""
    for number in range(100):  # while items come and go beside those that stay
        page = shop.client.get("/v1/items", params={"after": after, "limit": 90}).json()
        found += [item["item_id"] for item in page["items"]]
        shop.bulk("put", *({"item_id": f"{letter}{number}", "title": "New"} for letter in "AXz"))
        shop.bulk("delete", {"item_id": f"A{number}"}, {"item_id": names[number]})
        if (after := page["next"]) is None:
            break
    assert set(names[number + 1 :]) <= set(found)
    assert len(found) == len(set(found))
    answer = shop.client.get("/v1/items?limit=1001")
    assert answer.status_code == 422


def test_a_whole_catalogue_goes_back_as_it_came(shop: Shop) -> None:
    items = shop.all()
    results = shop.bulk("put", *items)
    assert [result["status"] for result in results] == [200] * len(items)
    assert shop.all() == items


def test_a_result_for_each_line(shop: Shop) -> None:
    picture = base64.b64encode(png("blue")).decode()
    results = shop.bulk(
        "put",
        {"item_id": "b/1", "title": "One", "picture": picture},
        "",
        {"item_id": "b/1", "title": "Two"},
        {"item_id": "b/2", "title": "Three", "price": "x"},
        {"title": "No id"},
        "{",
        "[1]",
        {"item_id": "b/3", "title": "Four", "picture": base64.b64encode(b"<svg/>").decode()},
        {"item_id": "b/4", "title": "Five", "picture": picture},
    )
    assert [(result["line"], result["item_id"], result["status"]) for result in results] == [
        (1, "b/1", 200),
        (3, "b/1", 200),
        (4, "b/2", 422),
        (5, None, 422),
        (6, None, 422),
        (7, None, 422),
        (8, "b/3", 422),
        (9, "b/4", 200),
    ]
    assert [result.get("created") for result in results if result["status"] == 200] == [True, False, True]
    assert (results[2]["error"]["code"], results[6]["error"]["image_status"]) == ("wrong_type", "not_an_image")
    assert shop.get("b/1")["item"]["title"] == "Two"
    assert shop.get("b/1")["picture"] is None
    assert shop.get("b/4")["picture"] is not None
    changes = [{"item_id": name, "price": at} for at, name in enumerate(["b/1", "b/4", "none", "b/1"])]
    assert [result["status"] for result in shop.bulk("patch", *changes)] == [200, 200, 404, 200]
    assert (shop.get("b/1")["item"]["price"], shop.get("b/4")["item"]["price"]) == (3.0, 1.0)
    gone = shop.bulk("delete", *({"item_id": name} for name in ("b/1", "b/1", "b/4")))
    assert [result["status"] for result in gone] == [200, 404, 200]
    assert shop.client.post(BULK, params={"action": "patched"}).status_code == 422
    assert httpx.post(f"{shop.client.base_url}{BULK}", content=b"{}").status_code == 401


def test_the_documented_requests_answer_as_documented(shop: Shop, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl on this machine")
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    console = re.findall(r"^\$ (curl .*items/(?:id-1|bulk).*(?:\n    .*)*)\n((?:\{.*\n)+)", page, re.MULTILINE)
    assert len(console) >= 4
    (tmp_path / "dress.jpg").write_bytes(png())
    lines = [{"item_id": "id-1", "price": 19.9}, {"item_id": "id-9", "price": 1}]
    (tmp_path / "changes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for command, expected in sorted(console, key=lambda one: "DELETE" in one[0]):
        typed = command.replace("http://127.0.0.1:8080", str(shop.client.base_url).rstrip("/"))
        done = subprocess.run(
            ["bash", "-c", typed], capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"KEY": KEY}
        )
        assert done.stdout.rstrip("\n") == expected.rstrip("\n"), done.stderr
    assert shop.client.get("/v1/items/id-1").status_code == 404


def test_results_come_while_lines_are_sent(shop: Shop) -> None:
    parts = urlsplit(str(shop.client.base_url))
    with socket.create_connection((parts.hostname, parts.port), 60) as connection, connection.makefile("rb") as answer:
        head = f"POST {BULK}?action=put HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        for number in range(1, 4):
            line = json.dumps({"item_id": f"s{number}", "title": "Streamed"}).encode() + b"\n"
            connection.sendall(b"%x\r\n%b\r\n" % (len(line), line))
            while not (told := answer.readline()).startswith(b'{"line"'):
                pass
            assert json.loads(told) == {
                "line": number, "item_id": f"s{number}", "status": 200, "image_status": "missing", "created": True
            }  # fmt: skip
            assert shop.get(f"s{number}")["item"]["title"] == "Streamed"
        connection.sendall(b"0\r\n\r\n")
        assert answer.read(5) == b"\r\n0\r\n"


def test_a_line_that_never_ends_is_refused(shop: Shop) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"item_id": "s1", "price": 2}\n{"item_id": "s1", "title": "'
        for _ in range(400):
            yield b"x" * 65_536

    answer = shop.client.post(BULK, params={"action": "patch"}, content=endless())
    told, refused = [json.loads(line) for line in answer.text.splitlines()]
    assert (told["status"], refused["line"], refused["status"]) == (200, 2, 413)


def test_no_acknowledged_change_is_lost_when_the_model_worker_is_killed(shop: Shop) -> None:
    names = [item["item_id"] for item in shop.all()[:50]]
    acknowledged: dict[str, float] = {}
    stop = threading.Event()

    def change(mine: list[str]) -> None:
        with httpx.Client(base_url=shop.client.base_url, headers={"X-API-Key": KEY}, timeout=PATIENCE) as client:
            for number in range(100_000):
                name = mine[number % len(mine)]
                answer = client.patch(f"/v1/items/{name}", json={"price": float(number)})
                if answer.status_code == 200:
                    acknowledged[name] = float(number)
                if stop.is_set():
                    return

    threads = [threading.Thread(target=change, args=(names[at::5],)) for at in range(5)]
    for thread in threads:
        thread.start()
    assert becomes(lambda: len(acknowledged) == 50)
    os.kill(shop.writer().pid, signal.SIGKILL)
    assert becomes(shop.up, PATIENCE)
    stop.set()
    for thread in threads:
        thread.join()
    index = UpdatableIndex.open(shop.folder)
    for name, price in acknowledged.items():
        found = row(index, name)
        assert found is not None
        assert found["price"] >= price
        assert becomes(lambda name=name, price=price: shop.get(name)["item"]["price"] >= price)


def test_without_a_model_worker_nothing_changes(engine: Engine) -> None:
    with TestClient(create_app(engine)) as client:
        for answer in (client.patch("/v1/items/x", json={}), client.post(BULK, content=b"{}")):
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "writes_are_off")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_lines_are_whole_however_they_come(size: int) -> None:
    body = b'{"a": 1}\n\n{"b": "\xc3\xbc"}\r\n{"c": 3}'

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(body), size):
            yield body[at : at + size]

    async def collected() -> list:
        return [lines async for lines in lines_of(parts(), 100)]

    lines = asyncio.run(collected())
    assert b"".join(part.text for part in lines) == body
    assert [part.first for part in lines] == np.cumsum([1, *(part.number for part in lines)])[:-1].tolist()
    assert all(part.text.endswith(b"\n") for part in lines[:-1])


class Slow(WriterClient):
    """A model worker that takes its time with the first request, and may be down."""

    def __init__(self, down: bool = False) -> None:
        self.asked: list[bytes] = []
        self.down, self.go = down, asyncio.Event()

    async def bulk(self, action: str, lines: bytes, first: int = 1) -> WriterAnswer:
        self.asked.append(lines)
        if len(self.asked) == 1:
            await self.go.wait()
        if self.down:
            raise WriterDown("down")
        results = [{"status": 200, "item_id": re.sub(r"\W", "", line.decode())} for line in lines.split(b"\n")]
        return WriterAnswer(200, b"\n".join(json.dumps(result).encode() for result in results))


@pytest.mark.parametrize("down", [False, True])
def test_changes_that_wait_travel_together(down: bool) -> None:
    async def run() -> tuple[list, list[bytes]]:
        async def nothing() -> None: ...

        client = Slow(down)
        together = Together(client, nothing)
        tasks = [asyncio.create_task(together.patch(b"%d" % at)) for at in range(20)]
        while not client.asked:
            await asyncio.sleep(0)
        tasks += [asyncio.create_task(together.patch(b"%d" % at)) for at in range(20, 40)]
        await asyncio.sleep(0)
        client.go.set()
        return await asyncio.gather(*tasks, return_exceptions=True), client.asked

    results, asked = asyncio.run(run())
    assert len(asked) <= 3
    if down:
        assert {type(result) for result in results} == {WriterDown}
    else:
        assert [result["item_id"] for result in results] == [str(at) for at in range(40)]
