"""The model worker as a process: what it writes, what it refuses, what survives, and what happens when it dies."""

import asyncio
import base64
import contextlib
import io
import itertools
import json
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.applications import Starlette

from made_pictures import many_scans
from smar.data.images import ImageOptions, decode
from smar.model.run_folder import load_encoder, run_settings
from smar.search.local.live import UpdatableIndex
from smar.search.local.neighbours import by_vector
from smar.search.local.versions import current_version, locked
from smar.serving.writer.item_check import RefusedItem
from smar.serving.writer.service import ModelWorker, open_worker
from smar.serving.writer.upload import MAX_SEARCHES, Admission, Upload
from smar.serving.writer.worker_app import create_app
from smar.serving.writer_client import PictureVector, WriterClient, WriterDown
from tiny_index import vectors_of
from tiny_line import Line, smar
from tiny_service import address, run_service
from tiny_writer import (
    PATIENCE,
    Writer,
    ask,
    becomes,
    new_writer,
    png,
    put,
    put_json,
    row,
    run_with,
    stats,
    writer,
)

pytestmark = pytest.mark.slow
KEY = "0123456789abcdef"
MOST_BYTES, MOST_PIXELS = 200_000, 1_000_000
MAX_BODY = 400_000
MAX_WAITING = 41


Served = tuple[subprocess.Popen[str], httpx.Client]


@pytest.fixture(scope="module")
def run(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    limits = {"max_image_bytes": MOST_BYTES, "max_image_pixels": MOST_PIXELS}
    return run_with(line, tmp_path_factory.mktemp("run"), **limits)


@pytest.fixture(scope="module")
def shared_index(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return line.copy("index", tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def shared(shared_index: Path, run: Path) -> Iterator[Writer]:
    """One worker for the tests that leave it in working order: a start takes seconds."""
    with writer(shared_index, run, max_body=MAX_BODY, max_waiting=MAX_WAITING) as process:
        yield process


@pytest.fixture(scope="module")
def compacting(line: Line, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Writer, Path]]:
    """A worker that compacts its index after a few changes, and tries again at once; the index."""
    index = line.copy("index", tmp_path_factory.mktemp("compacting"))
    with writer(index, run, compact_after=5, retry=0.05) as process:
        yield process, index


@pytest.fixture(scope="module")
def served(line: Line, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The whole service, which must end well."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "keys.txt").write_text(KEY + "\n")
    options = ("--model", str(run), "--keys", str(folder / "keys.txt"), "--set", "hang=3")
    with (
        run_service(line.copy("index", folder), *options) as process,
        httpx.Client(base_url=address(process), headers={"X-API-Key": KEY}, timeout=PATIENCE) as client,
    ):
        yield process, client
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.fixture
def index(line: Line, tmp_path: Path) -> Path:
    return line.copy("index", tmp_path)


def test_what_is_put_and_deleted_is_seen_by_other_processes(shared: Writer, shared_index: Path) -> None:
    reader = UpdatableIndex.open(shared_index)
    answer = put(shared, "seen", png(), title="Red thing", price=12)
    assert (answer.status, answer.json()) == (200, {"item_id": "seen", "image_status": "ok", "created": True})
    assert reader.refresh()
    found = row(reader, "seen")
    assert found is not None
    assert (found["title"], found["price"], found["brand"], found["image_status"]) == ("Red thing", 12.0, None, "ok")
    assert reader.snapshot.catalogue.picture(reader.snapshot.catalogue.row_of("seen")) == png()
    assert put(shared, "seen", title="Another thing").json()["created"] is False
    assert reader.refresh()
    found = row(reader, "seen")
    assert found is not None
    assert (found["title"], found["price"], found["image_status"]) == ("Another thing", None, "missing")
    assert ask(shared, lambda client: client.delete("seen")).json() == {"item_id": "seen", "deleted": True}
    assert reader.refresh()
    assert row(reader, "seen") is None
    again = ask(shared, lambda client: client.delete("seen"))
    assert (again.status, again.json()["error"]["code"]) == (404, "unknown_item")


@pytest.mark.parametrize("item_id", ["a/b", "..", ".", "a/../b", "ü 中", "50%", "a?b#c", "a+b", "%2F", "x\n", '"'])
def test_an_id_may_hold_any_character(shared: Writer, shared_index: Path, item_id: str) -> None:
    assert put(shared, item_id, title="Thing").json()["item_id"] == item_id
    reader = UpdatableIndex.open(shared_index)
    assert row(reader, item_id) is not None
    assert ask(shared, lambda client: client.delete(item_id)).status == 200
    reader.refresh()
    assert row(reader, item_id) is None


@pytest.mark.parametrize("path", ["%FF", "%20", ""])
def test_an_address_without_a_real_id_is_refused(shared: Writer, path: str) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(shared.socket))) as client:
        answer = client.put(f"http://writer/v1/items/{path}", json={"title": "Thing"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_item")


def test_multipart_gives_what_json_gives(shared: Writer, shared_index: Path) -> None:
    columns = {"title": "Blue thing ü", "category": "Kettle", "in_stock": True}
    request = httpx.Request(
        "PUT",
        "http://writer/",
        files=[
            ("item", (None, json.dumps(columns).encode(), "application/json")),
            ("picture", ("a.png", png("blue"), "image/png")),
        ],
    )
    body, kind = request.read(), request.headers["content-type"]
    assert ask(shared, lambda client: client.put("multi", kind, body)).json()["image_status"] == "ok"
    put(shared, "single", png("blue"), **columns)
    reader = UpdatableIndex.open(shared_index)
    np.testing.assert_allclose(vectors_of(reader.snapshot, "multi"), vectors_of(reader.snapshot, "single"), atol=1e-5)
    first, second = row(reader, "multi"), row(reader, "single")
    assert first is not None
    assert second is not None
    assert first | {"item_id": ""} == second | {"item_id": ""}
    assert first["title"] == "Blue thing ü"


def shop_items(line: Line, tmp_path: Path) -> tuple[Path, list[dict]]:
    """Forty items of the shop under new ids, as a table and as rows whose `image` is bytes; some have no picture."""
    table = pq.read_table(line.shop / "items.parquet").slice(0, 40)
    rows = table.to_pylist()
    for at, item in enumerate(rows):
        item["item_id"] = f"copy-{at}"
        item["image"] = (line.shop / item["image"]).read_bytes() if item["image"] and at % 5 else None
    images = [item["image"] for item in rows]
    table = table.set_column(table.column_names.index("item_id"), "item_id", [[item["item_id"] for item in rows]])
    table = table.set_column(table.column_names.index("image"), "image", [images])
    pq.write_table(table, tmp_path / "items.parquet")
    return tmp_path / "items.parquet", rows


def test_forty_at_once_are_one_batch_and_equal_a_bulk_update(
    line: Line, run: Path, shared: Writer, shared_index: Path, tmp_path: Path
) -> None:
    source, rows = shop_items(line, tmp_path)
    bulk = line.copy("index", tmp_path / "bulk")
    done = smar("index", bulk, "--update", source, "--run", run)
    assert done.code == 0, done.err

    async def together(process: Writer) -> list[int]:
        async with WriterClient(process.socket) as client:
            with locked(shared_index):  # holds the first item up, so that all others wait
                first = asyncio.create_task(put_json(client, "first", title="First"))
                await until(client, lambda now: now["waiting"] == 1 and now["pending"] == 0)
                names = set(rows[0]) - {"item_id", "image"}
                tasks = [
                    asyncio.create_task(
                        put_json(client, item["item_id"], item["image"] or b"", **{name: item[name] for name in names})
                    )
                    for item in rows
                ]
                await until(client, lambda now: now["pending"] == 40)
            return [answer.status for answer in await asyncio.gather(first, *tasks)]

    before = stats(shared)["written"]
    assert asyncio.run(together(shared)) == [200] * 41
    written = stats(shared)["written"]
    assert {name: written[name] - before[name] for name in ("items", "batches")} == {"items": 41, "batches": 2}
    assert written["largest_batch"] == 40
    one, other = UpdatableIndex.open(shared_index).snapshot, UpdatableIndex.open(bulk).snapshot
    for item in rows:
        name = item["item_id"]
        at, there = one.catalogue.row_of(name), other.catalogue.row_of(name)
        assert at is not None
        assert there is not None
        assert one.catalogue.items([at]) == other.catalogue.items([there])
        assert one.catalogue.picture(at) == other.catalogue.picture(there)
        np.testing.assert_allclose(vectors_of(one, name), vectors_of(other, name), atol=1e-5)
    assert sum(one.catalogue.items([one.catalogue.row_of(item["item_id"])])[0]["image_status"] == "ok" for item in rows)


async def until(client: WriterClient, condition: object) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition((await client.stats()).json()):  # type: ignore[operator]
            await asyncio.sleep(0.02)


STRANGE_PART = b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1\r\n--b--\r\n'
CUT = png(size=(300, 200))[:200]
NOISE = np.random.default_rng(0).integers(0, 256, (320, 300, 3), np.uint8)


def noisy() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("picture", "status"),
    [
        (CUT, "truncated"),
        (b"<svg/>", "not_an_image"),
        (png(size=(1200, 1000)), "too_large"),
        (b"\xff\xd8\xff" + bytes(300) + b"\xff\xd9", "corrupt"),
    ],
)
def test_a_broken_picture_is_refused_and_nothing_written(
    shared: Writer, shared_index: Path, picture: bytes, status: str
) -> None:
    answer = put(shared, "broken", picture, title="Broken")
    error = answer.json()["error"]
    assert (answer.status, error["code"], error["image_status"]) == (422, f"picture_{status}", status)
    assert row(UpdatableIndex.open(shared_index), "broken") is None
    answer = ask(shared, lambda client: client.encode_picture(picture))
    assert (answer.status, answer.json()["error"]["image_status"]) == (422, status)


def test_a_picture_made_to_keep_the_decoder_busy_is_refused_for_good(shared: Writer) -> None:
    poison = many_scans(1500, (900, 900))
    assert len(poison) < MOST_BYTES
    pid = shared.pid
    for _ in range(2):
        answer = put(shared, "poison", poison, title="Poison")
        assert (answer.status, answer.json()["error"]["code"]) == (422, "picture_too_large")
        assert "scans" in answer.json()["error"]["message"]
        assert ask(shared, lambda client: client.encode_picture(poison)).status == 422
    assert shared.pid == pid
    assert shared.alive


def test_a_picture_of_too_many_bytes(shared: Writer) -> None:
    assert MOST_BYTES < len(noisy()) < MAX_BODY
    answer = ask(shared, lambda client: client.encode_picture(noisy()))
    assert (answer.status, answer.json()["error"]["image_status"]) == (422, "too_large")


def test_more_pictures_than_are_encoded(shared: Writer) -> None:
    answer = put(shared, "many", [png(), png("blue")], title="Many")
    assert (answer.status, answer.json()["error"]["code"]) == (422, "too_many_pictures")


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        ("application/json", b'{"price": 3}', 422, "invalid_item"),
        ("application/json", b'{"title": " "}', 422, "invalid_item"),
        ("application/json", b'{"title": "x", "colour": "red"}', 422, "unknown_column"),
        ("application/json", b'{"title": "x", "image_status": "ok"}', 422, "unknown_column"),
        ("application/json", b'{"title": "x", "price": "3"}', 422, "wrong_type"),
        ("application/json", b'{"title": "\\ud800"}', 422, "wrong_type"),
        ("application/json", b'{"title": "x", "item_id": "other"}', 422, "invalid_item"),
        ("application/json", b'{"title": "x", "picture": "%%"}', 422, "wrong_type"),
        ("application/json", b'["title"]', 422, "invalid_item"),
        ("application/json", b'{"title": ', 422, "invalid_item"),
        ("application/json", b"[" * 100_000, 422, "invalid_item"),
        ("application/json", b"\xff\xfe\x00", 422, "invalid_item"),
        ("text/plain", b"x", 415, "unsupported_media_type"),
        ("multipart/form-data", b"x", 400, "bad_request"),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 422, "invalid_item"),
        ("multipart/form-data; boundary=b", STRANGE_PART, 422, "invalid_item"),
    ],
)  # fmt: skip
def test_wrong_items_are_refused(shared: Writer, kind: str, body: bytes, status: int, code: str) -> None:
    answer = ask(shared, lambda client: client.put("wrong", kind, body))
    assert (answer.status, answer.json()["error"]["code"]) == (status, code)


def test_too_large_bodies_are_refused(shared: Writer) -> None:
    large = b'{"title": "' + b"x" * MAX_BODY + b'"}'
    assert ask(shared, lambda client: client.put("large", "application/json", large)).status == 413

    def in_parts() -> Iterator[bytes]:
        for start in range(0, len(large), 10_000):
            yield large[start : start + 10_000]

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(shared.socket))) as client:
        headers = {"content-type": "application/json"}
        answer = client.put("http://writer/v1/items/large", content=in_parts(), headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    assert stats(shared)["held_bytes"] == 0


def test_bad_neighbours_harm_nobody(shared: Writer, shared_index: Path) -> None:
    async def together(client: WriterClient) -> list[int]:
        bodies = [b'{"title": "Good %d"}' % at if at % 3 else b'{"title": 5}' for at in range(40)]
        tasks = [client.put(f"mixed-{at}", "application/json", body) for at, body in enumerate(bodies)]
        return [answer.status for answer in await asyncio.gather(*tasks)]

    assert ask(shared, together) == [200 if at % 3 else 422 for at in range(40)]
    reader = UpdatableIndex.open(shared_index)
    assert [row(reader, f"mixed-{at}") is not None for at in range(40)] == [bool(at % 3) for at in range(40)]


def test_more_than_may_wait_are_told_to_come_back(shared: Writer, shared_index: Path) -> None:
    async def crowd(client: WriterClient) -> None:
        with locked(shared_index):
            tasks = [asyncio.create_task(put_json(client, f"crowd-{at}", title="Crowd")) for at in range(MAX_WAITING)]
            await until(client, lambda now: now["waiting"] == MAX_WAITING)
            refused = await put_json(client, "late", title="Late")
            deleted = await client.delete("crowd-0")
        assert (refused.status, refused.retry_after, refused.json()["error"]["code"]) == (429, "1", "too_many_requests")
        assert deleted.status == 429
        assert [answer.status for answer in await asyncio.gather(*tasks)] == [200] * MAX_WAITING
        assert (await put_json(client, "late", title="Late")).status == 200

    ask(shared, crowd)


def test_a_picture_gets_the_vector_of_the_image_tower(shared: Writer, shared_index: Path, run: Path) -> None:
    picture = png("green", (50, 90))
    answer = ask(shared, lambda client: client.encode_picture(picture))
    vector = PictureVector.of(answer)
    encoder = load_encoder(run)
    packed = decode(picture, ImageOptions.of(run_settings(run).data)).packed
    assert packed is not None
    expected = encoder.encode_item(
        [["any words"]] * len(encoder.config.text_fields), np.stack([packed]), np.array([True])
    )
    np.testing.assert_allclose(vector.embedding, expected.image[0].numpy(), atol=1e-5)
    snapshot = UpdatableIndex.open(shared_index).snapshot
    assert vector.fingerprint == snapshot.fingerprint
    assert len(by_vector(snapshot, vector.embedding, 5)) == 5


def test_the_last_item_stays(line: Line, index: Path, run: Path) -> None:
    ids = pq.read_table(line.shop / "items.parquet")["item_id"].to_pylist()
    UpdatableIndex.open(index).delete(ids[1:])
    app = create_app(open_worker(index, run), Admission())

    async def change() -> None:
        async with inside(app) as client:
            answer = await client.delete(f"/v1/items/{ids[0]}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "last_item")
            assert (await client.put("/v1/items/another", json={"title": "Another"})).status_code == 200
            assert (await client.delete(f"/v1/items/{ids[0]}")).status_code == 200

    asyncio.run(change())


@contextlib.asynccontextmanager
async def inside(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a model worker that works in this process."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://writer", timeout=None) as client,
    ):
        yield client


def test_a_full_disk_is_told_and_harms_nothing(shared: Writer, shared_index: Path) -> None:
    assert put(shared, "before", title="Before").status == 200
    full = (current_version(shared_index) / "updates.log").stat().st_size + 100
    free = resource.prlimit(shared.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    try:
        answer = put(shared, "lost", title="Lost")
    finally:
        resource.prlimit(shared.pid, resource.RLIMIT_FSIZE, free)
    assert (answer.status, answer.json()["error"]["code"]) == (507, "not_written")
    assert row(UpdatableIndex.open(shared_index), "lost") is None
    assert put(shared, "after", title="After").status == 200
    reader = UpdatableIndex.open(shared_index)
    assert [row(reader, name) is not None for name in ("before", "lost", "after")] == [True, False, True]


def test_without_a_worker_the_client_says_so(tmp_path: Path) -> None:
    async def call() -> None:
        async with WriterClient(tmp_path / "none.sock") as client:
            await client.delete("x")

    with pytest.raises(WriterDown, match="it is starting"):
        asyncio.run(call())


def test_a_worker_that_was_killed_counts_as_down(tmp_path: Path) -> None:
    """Its socket is still there, and nobody listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))

    async def call() -> None:
        async with WriterClient(tmp_path / "s") as client:
            await put_json(client, "never", title="Never")

    with pytest.raises(WriterDown, match="does not answer"):
        asyncio.run(call())


def test_a_worker_that_never_answers_counts_as_down(shared: Writer) -> None:
    async def hang(socket: Path) -> None:
        async with WriterClient(socket, answer_seconds=0.2) as client:
            with pytest.raises(WriterDown, match="ReadTimeout"):
                await client.stats()

    os.kill(shared.pid, signal.SIGSTOP)
    try:
        asyncio.run(hang(shared.socket))
    finally:
        os.kill(shared.pid, signal.SIGCONT)


def test_a_run_of_another_model_is_refused(index: Path, run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    subprocess.run(["cp", "-r", str(run), str(other)], check=True)
    config = other / "stage2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"threshold": 0.25}))
    process = new_writer(index, other, str(tmp_path))
    process.child.start()
    assert "their vectors do not go together" in str(process.child.report().error)
    assert process.child.process is not None
    assert process.child.process.wait(PATIENCE) == 2
    assert "their vectors do not go together" in str(process.child.refusal)
    process.child.wait()


def test_only_this_user_may_connect(shared: Writer) -> None:
    assert stat.S_IMODE(shared.socket.stat().st_mode) == 0o600


def test_compaction_starts_by_itself_and_loses_nothing(compacting: tuple[Writer, Path]) -> None:
    process, index = compacting
    names = [f"busy-{at}" for at in range(30)]
    items, version, before = len(UpdatableIndex.open(index).snapshot), current_version(index).name, compaction(process)
    for name in names[:6]:
        assert put(process, name, title=f"Busy {name}").status == 200
    assert becomes(lambda: compaction(process)["running"] or compaction(process)["done"] > before["done"])
    for name in names[6:]:
        assert put(process, name, title=f"Busy {name}").status == 200
    assert becomes(lambda: compaction(process)["done"] > before["done"] and not compaction(process)["running"])
    assert compaction(process)["failed"] == before["failed"]
    assert becomes(lambda: stats(process)["version"] == current_version(index).name)
    assert current_version(index).name != version
    reader = UpdatableIndex.open(index)
    assert all(row(reader, name) is not None for name in names)
    assert len(reader.snapshot) == items + 30


def test_compaction_ends_under_load(index: Path, run: Path) -> None:
    """The usual limit, a fifth of the version replaced, while changes keep coming and a processor is taken."""
    before = UpdatableIndex.open(index).snapshot
    names = [before.catalogue.item_id(row) for row in range(len(before))]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(writer(index, run))
        spinner = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
        stack.callback(spinner.kill)

        async def replace(client: WriterClient) -> int:
            async with asyncio.timeout(PATIENCE):
                for count in itertools.count():
                    name = names[count % len(names)]
                    assert (await put_json(client, name, title=f"Version {count}")).status == 200
                    if (await client.stats()).json()["compaction"]["done"]:
                        return count
            return 0

        written = ask(process, replace)
        assert written >= len(names) // 5
        assert compaction(process)["failed"] == 0
    assert current_version(index).name != before.path.name
    reader = UpdatableIndex.open(index)
    assert len(reader.snapshot) == len(names)
    for count in range(max(0, written + 1 - len(names)), written + 1):
        found = row(reader, names[count % len(names)])
        assert found is not None
        assert found["title"] == f"Version {count}"


def compaction(process: Writer) -> dict:
    return dict(stats(process)["compaction"])


def test_a_compaction_that_fails_is_tried_again(compacting: tuple[Writer, Path]) -> None:
    process, index = compacting
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(index, "compaction.lock"):
            held.set()
            release.wait(120)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    before, names = compaction(process), [f"again-{at}" for at in range(6)]
    try:
        for name in names:
            assert put(process, name, title=name).status == 200
        assert becomes(lambda: compaction(process)["failed"] >= before["failed"] + 2)
        assert "compaction.lock is held" in compaction(process)["error"]
        assert put(process, "last", title="last").status == 200
        release.set()
        assert becomes(lambda: compaction(process)["done"] == before["done"] + 1)
        assert compaction(process)["error"] is None
    finally:
        release.set()
        holder.join()
    assert row(UpdatableIndex.open(index), "last") is not None


def test_the_whole_service_takes_items_and_pictures(served: Served) -> None:
    """Client, query worker, socket, model worker, log and back, as a shop sees it."""
    _, client = served
    item = json.dumps({"title": "Quite special teapot", "price": 7})
    files = [("item", (None, item, "application/json")), ("picture", ("a.png", png("green"), "image/png"))]
    assert becomes(lambda: client.put("/v1/items/x%2Fy", files=files).status_code == 200)
    found = client.post("/v1/search", json={"query": "red dress", "filter": 'price=7 and item_id="x/y"'}).json()
    assert [hit["item"]["title"] for hit in found["hits"]] == ["Quite special teapot"]
    assert client.get(found["hits"][0]["picture"]).content == png("green")
    assert len(client.get("/v1/items/x%2Fy/similar?k=3").json()["hits"]) == 3
    near = client.post("/v1/search/picture?k=3", content=png("green")).json()["hits"]
    assert len(near) == 3
    broken = client.put("/v1/items/z", json={"title": "Z", "picture": base64.b64encode(CUT).decode()})
    assert (broken.status_code, broken.json()["error"]["code"]) == (422, "picture_truncated")
    assert client.delete("/v1/items/x%2Fy").status_code == 200
    assert client.get("/v1/items/x%2Fy").status_code == 404
    deleted = 'smar_writer_changes_total{result="deleted"} 1.0'
    assert becomes(lambda: deleted in client.get("/metrics").text)
    assert 'smar_writer_changes_total{result="written"} 1.0' in client.get("/metrics").text


def folder_of(process: subprocess.Popen[str]) -> Path:
    """The index that a service was given."""
    arguments = process.args
    assert isinstance(arguments, list)
    return Path(str(arguments[arguments.index("serve") + 1]))


def test_an_older_copy_in_place_is_taken_by_the_whole_service(served: Served, tmp_path: Path) -> None:
    process, client = served
    index = folder_of(process)
    assert becomes(lambda: client.put("/v1/items/old", json=pictured("Old")).status_code == 200)
    subprocess.run(["cp", "-a", f"{index}/.", str(tmp_path / "backup")], check=True)
    for name in ("lost", "lost-too"):
        assert client.put(f"/v1/items/{name}", json=pictured("Lost", "blue")).status_code == 200
    assert client.get("/v1/items/lost/picture").content == png("blue")
    subprocess.run(["cp", "-a", f"{tmp_path}/backup/.", str(index)], check=True)
    assert becomes(lambda: client.get("/v1/items/lost").status_code == 404)
    assert client.put("/v1/items/new", json=pictured("New", "green")).status_code == 200
    assert client.get("/v1/items/old/picture").content == png()
    assert client.get("/v1/items/new/picture").content == png("green")
    assert client.get("/v1/items/lost-too").status_code == 404
    assert client.get("/readyz").json() == {"status": "ready"}


def pictured(title: str, colour: str = "red") -> dict[str, str]:
    return {"title": title, "picture": base64.b64encode(png(colour)).decode()}


def test_writes_wait_for_an_index_that_is_shortened_in_place(served: Served) -> None:
    process, client = served
    path = current_version(folder_of(process)) / "items.json"
    content = path.read_bytes()
    assert becomes(lambda: client.put("/v1/items/x", json={"title": "Before"}).status_code == 200)
    os.truncate(path, 10)
    try:
        answer = client.put("/v1/items/x", json={"title": "Not now"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "index_unreadable")
        assert answer.headers["retry-after"] == "1"
        assert becomes(lambda: client.get("/v1/items/x").status_code == 503)
        (writer,) = [
            child for child in psutil.Process(process.pid).children() if "smar.serving.writer" in child.cmdline()
        ]
        writer.send_signal(signal.SIGBUS)
        writer.wait(PATIENCE)
        assert client.delete("/v1/items/x").status_code == 503
    finally:
        path.write_bytes(content)
    assert becomes(lambda: client.get("/v1/items/x").status_code == 200)
    assert client.get("/v1/items/x").json()["item"]["title"] == "Before"
    assert becomes(lambda: client.put("/v1/items/x", json={"title": "After"}).status_code == 200)
    assert process.poll() is None


def test_readiness_tells_what_cannot_be_written(served: Served) -> None:
    process, client = served
    assert becomes(lambda: client.put("/v1/items/y", json={"title": "Before"}).status_code == 200)
    (writer,) = [child for child in psutil.Process(process.pid).children() if "smar.serving.writer" in child.cmdline()]
    full = (current_version(folder_of(process)) / "updates.log").stat().st_size + 100
    free = resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    try:
        assert client.put("/v1/items/y", json={"title": "Lost"}).status_code == 507
        told = client.get("/readyz")
        assert (told.status_code, told.json()["status"]) == (200, "ready")
        assert "File too large" in told.json()["writes"]
    finally:
        resource.prlimit(writer.pid, resource.RLIMIT_FSIZE, free)
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.get("/v1/items/y").json()["item"]["title"] == "Before"
    assert client.put("/v1/items/y", json={"title": "After"}).status_code == 200


def test_a_model_worker_that_hangs_is_killed_and_comes_back(served: Served) -> None:
    process, client = served
    assert becomes(lambda: client.post("/v1/search/picture?k=3", content=png()).status_code == 200)
    (victim,) = [child for child in psutil.Process(process.pid).children() if "smar.serving.writer" in child.cmdline()]
    victim.suspend()
    assert client.post("/v1/search", json={"query": "red dress"}).status_code == 200
    assert becomes(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
    assert becomes(lambda: client.post("/v1/search/picture?k=3", content=png()).status_code == 200)
    assert process.stderr is not None
    assert any("smar.serving.writer hangs; it is killed" in said for said in iter(process.stderr.readline, ""))


async def becoming(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


Live = Callable[[ModelWorker, list[int]], Awaitable[None]]


@pytest.fixture
def watched(index: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Live], None]:
    """Runs something with a worker that looks at itself a hundred times a second, and its signs of life."""
    monkeypatch.setattr("smar.serving.writer.service.EVERY_SECONDS", 0.01)
    signs: list[int] = []
    make = open_worker(index, run, alive=lambda: signs.append(1))

    async def running(live: Live) -> None:
        worker = make()
        async with worker.running():
            await live(worker, signs)

    return lambda live: asyncio.run(running(live))


def test_a_stuck_thread_is_no_life(watched: Callable[[Live], None]) -> None:
    async def live(worker: ModelWorker, signs: list[int]) -> None:
        await becoming(lambda: len(signs) > 2)
        begun, release = threading.Event(), threading.Event()
        stuck = worker.queue.thread.submit(lambda: begun.set() or release.wait())
        await becoming(begun.is_set)
        await asyncio.sleep(0.1)  # a sign that was on its way
        before = len(signs)
        await asyncio.sleep(0.2)
        assert len(signs) == before
        release.set()
        assert stuck.result()
        await becoming(lambda: len(signs) > before)

    watched(live)


def test_pictures_that_wait_are_no_hang(watched: Callable[[Live], None]) -> None:
    async def live(worker: ModelWorker, signs: list[int]) -> None:
        ends = [threading.Event() for _ in range(4)]
        jobs = [worker.searches.thread.submit(end.wait, PATIENCE) for end in ends]
        try:
            for end, job in zip(ends[:-1], jobs, strict=False):
                before = len(signs)
                end.set()
                await becoming(lambda job=job, before=before: job.done() and len(signs) > before)
            assert not jobs[-1].done()
        finally:
            ends[-1].set()

    watched(live)


def test_life_goes_on_after_a_failure(
    index: Path, run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the disk that takes the signs and the figures, for instance."""
    monkeypatch.setattr("smar.serving.writer.service.EVERY_SECONDS", 0.01)
    signs: list[int] = []

    def alive() -> None:
        signs.append(1)
        if len(signs) < 4:
            raise OSError(f"no space left, said {len(signs)} times")

    make = open_worker(index, run, alive=alive)

    async def live() -> None:
        async with make().running():
            await becoming(lambda: len(signs) > 5)

    asyncio.run(live())
    assert "said 1 times" in caplog.text
    assert "said 2 times" not in caplog.text


def test_few_searches_by_picture_may_wait_and_changes_wait_apart(index: Path, run: Path) -> None:
    workers: list[ModelWorker] = []
    make = open_worker(index, run)

    def kept() -> ModelWorker:
        workers.append(make())
        return workers[0]

    admission = Admission(max_waiting=1)
    app = create_app(kept, admission)

    async def crowd() -> None:
        async with inside(app) as client:
            release = threading.Event()
            workers[0].searches.thread.submit(release.wait, PATIENCE)

            def search() -> asyncio.Task[httpx.Response]:
                return asyncio.create_task(client.post("/v1/encode/picture", content=png()))

            searches = [search() for _ in range(MAX_SEARCHES)]
            try:
                await becoming(lambda: admission.searches.taken == MAX_SEARCHES)
                refused = await search()
                change = await client.put("/v1/items/x", json=pictured("Thing"))  # which has a lane of its own
                assert not any(task.done() for task in searches)
            finally:
                release.set()
            assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
            assert refused.json()["error"]["message"].startswith("8 searches by picture wait already")
            assert change.status_code == 200
            assert [answer.status_code for answer in await asyncio.gather(*searches)] == [200] * 8
            assert (admission.searches.taken, admission.changes.taken) == (0, 0)

    asyncio.run(crowd())


def test_a_picture_that_is_only_searched_with_has_its_own_limit(
    index: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smar.serving.writer.encode_item.SEARCHED_PIXELS", 2000)
    make = open_worker(index, run)

    async def look() -> None:
        worker = make()
        with pytest.raises(RefusedItem, match="allowed: 200,000 bytes, 2,000 pixels") as refused:
            await worker.encode_picture(png())
        assert refused.value.code == "picture_too_large"
        assert (await worker.check("x", Upload({"title": "Thing"}, (png(),)))).packed

    asyncio.run(look())
