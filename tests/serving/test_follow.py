"""A running service takes in changes of its index without a restart and without a failed request."""

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from smar.search.local.build import build_index
from smar.search.local.live import UpdatableIndex
from tiny_index import write_embeddings
from tiny_service import PATIENCE, address, becomes, run_service


@pytest.fixture(scope="module")
def folder(index_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(index_path, tmp_path_factory.mktemp("followed") / "index"))


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with run_service(folder) as process, httpx.Client(base_url=address(process), timeout=PATIENCE) as client:
        client.stderr = process.stderr  # type: ignore[attr-defined]
        yield client


def test_what_another_process_deletes_is_gone_and_comes_back_with_the_next_version(
    client: httpx.Client, folder: Path, tmp_path: Path
) -> None:
    def status() -> int:
        return client.get("/v1/items/item/00003").status_code

    assert status() == 200
    UpdatableIndex.open(folder).delete(["item/00003"])
    assert becomes(lambda: status() == 404)
    hits = client.post("/v1/search", json={"query": "red dress", "k": 200}).json()["hits"]
    assert "item/00003" not in [hit["item_id"] for hit in hits]
    build_index(write_embeddings(tmp_path / "embeddings"), folder)
    assert becomes(lambda: status() == 200)


def test_no_request_fails_while_versions_come_and_go(client: httpx.Client, folder: Path, tmp_path: Path) -> None:
    embeddings, seen, done = write_embeddings(tmp_path / "embeddings"), [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            seen.append(client.post("/v1/search", json={"query": f"dress {len(seen)}", "k": 5}).status_code)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for number in range(4):
        before = len(seen)
        build_index(embeddings, folder)
        UpdatableIndex.open(folder).delete([f"item/{number:05}"])
        assert becomes(lambda number=number: client.get(f"/v1/items/item/{number:05}").status_code == 404)
        assert becomes(lambda before=before: len(seen) > before)
    done.set()
    for asker in askers:
        asker.join()
    assert set(seen) == {200}


def test_a_damaged_version_is_reported_and_the_old_one_goes_on(client: httpx.Client, folder: Path) -> None:
    whole = (folder / "current").read_bytes()
    (folder / "current").write_bytes(b"nothing")
    assert "cannot be read" in client.stderr.readline()  # type: ignore[attr-defined]
    assert client.post("/v1/search", json={"query": "red dress"}).json()["hits"]
    (folder / "current").write_bytes(whole)
