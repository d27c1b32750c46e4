"""Several worker processes: one index, one port; what dies comes back, what should end ends."""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from smar.serving.engine import Engine
from tiny_service import PATIENCE, address, becomes, nameless, run_service

pytestmark = pytest.mark.slow
RED: dict[str, Any] = {"query": "red shirt", "k": 3}


@pytest.fixture(scope="module")
def process(index_path: Path) -> Iterator[subprocess.Popen[str]]:
    with run_service(index_path, "--workers", "2", "--set", "cache_bytes=0", "--set", "hang=6") as process:
        process.address = address(process)  # type: ignore[attr-defined]
        assert becomes(lambda: serving(process.address) == 2)  # type: ignore[attr-defined]
        assert unchecked(process) == [False, True]
        yield process
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.fixture(scope="module")
def url(process: subprocess.Popen[str]) -> str:
    return process.address  # type: ignore[attr-defined,no-any-return]


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.pid).children() if child.status() != psutil.STATUS_ZOMBIE]


def unchecked(process: subprocess.Popen[str]) -> list[bool]:
    """Which workers leave it to another one to verify the index."""
    return ["--unchecked" in worker.cmdline() for worker in workers(process)]


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=PATIENCE)


def serving(url: str) -> int:
    """How many workers have opened the index: each then tells its version, which is 1."""
    return len(re.findall(r'smar_index_version\{index="default",pid="\d+"\} 1\.0', get(url + "/metrics").text))


def ask(url: str) -> int:
    """A search on a connection of its own, so that any worker may take it."""
    return post(url).status_code


def post(url: str) -> httpx.Response:
    return httpx.post(url + "/v1/search", json=RED, timeout=PATIENCE)


def figure(url: str, name: str) -> float:
    lines = get(url + "/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def test_figures_are_of_all_workers(url: str) -> None:
    searched = 'smar_requests_total{method="POST",route="/v1/search",status="200"}'
    before = figure(url, searched)
    for _ in range(20):
        assert ask(url) == 200
    assert becomes(lambda: figure(url, searched) >= before + 20)  # the other worker's are some tenths of a second old
    assert figure(url, searched) == before + 20
    of_latency = 'smar_request_seconds_count{method="POST",route="/v1/search"}'
    assert becomes(lambda: figure(url, of_latency) == before + 20)
    assert figure(url, "smar_index_items") == 180


def test_connections_are_dealt_evenly(process: subprocess.Popen[str], url: str) -> None:
    """Many at once roughly, as a worker may be busy; those that come one by one go to the one that holds fewer."""
    host, port = url.removeprefix("http://").split(":")
    held = [socket.create_connection((host, int(port))) for _ in range(40)]

    def shares() -> list[int]:
        established = [worker.net_connections("tcp") for worker in workers(process)]
        return [sum(one.status == psutil.CONN_ESTABLISHED for one in found) for found in established]

    try:
        assert becomes(lambda: sum(shares()) == 40)
        assert max(shares()) <= 32
        for number in range(41, 65):
            held.append(socket.create_connection((host, int(port))))
            assert becomes(lambda number=number: sum(shares()) == number)
        assert max(shares()) <= 35
    finally:
        for connection in held:
            connection.close()


def test_a_killed_worker_comes_back_and_the_other_answers(process: subprocess.Popen[str], url: str) -> None:
    seen: list[int] = []
    broken: list[Exception] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            try:
                seen.append(ask(url))
            except httpx.TransportError as error:  # the connections that the killed worker held
                broken.append(error)

    askers = [threading.Thread(target=load) for _ in range(3)]
    for asker in askers:
        asker.start()
    try:
        assert becomes(lambda: len(seen) > 20)
        victim, other = workers(process)
        victim.kill()
        at = len(seen)
        assert becomes(lambda: len(seen) > at + 20)
        assert becomes(lambda: len(workers(process)) == 2 and victim.pid not in [w.pid for w in workers(process)])
        assert other.is_running()
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert set(seen) == {200}
    assert len(broken) <= len(askers)  # what was under way in the killed worker, nothing else


def test_both_die_and_come_back(process: subprocess.Popen[str], url: str) -> None:
    before = workers(process)
    for worker in before:
        worker.kill()
    assert ask(url) == 200  # waits in the socket that the supervisor holds
    assert becomes(lambda: serving(url) == 2)
    # at the start the first one verifies the index for all; later the files may be others, or damaged
    assert unchecked(process) == [False, False]


def test_a_worker_that_hangs_is_killed_and_comes_back(process: subprocess.Popen[str], url: str) -> None:
    victim, other = workers(process)
    shared = Path(victim.environ()["PROMETHEUS_MULTIPROC_DIR"]).parent
    assert becomes(lambda: len(list(shared.glob("alive-*"))) == 2)  # until its first sign of life it may take its time
    victim.suspend()
    assert becomes(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
    assert becomes(lambda: len(workers(process)) == 2)
    assert other in workers(process)
    assert [ask(url) for _ in range(4)] == [200] * 4
    assert process.stderr is not None
    assert any("smar.serving.worker hangs; it is killed" in said for said in iter(process.stderr.readline, ""))


def test_a_file_that_is_shortened_in_place_is_told_and_the_service_comes_back(index_path: Path, tmp_path: Path) -> None:
    """Whoever reads a page that is gone is killed by SIGBUS; who starts again then finds no whole index."""
    path = Path(shutil.copytree(index_path, tmp_path / "index")) / "v0001" / "vectors.faiss"
    with run_service(path.parent.parent, "--workers", "2") as process:
        url = address(process)
        assert becomes(lambda: serving(url) == 2)
        before = nameless(post(url).json())
        content = path.read_bytes()

        def status(path: str) -> tuple[int, str | None]:
            try:
                answer = get(url + path) if path != "/v1/search" else post(url)
            except httpx.RemoteProtocolError:  # a worker that read before it looked
                return 0, None
            return answer.status_code, answer.json().get("error", {}).get("code")

        for dead in (False, True):
            os.truncate(path, 1000)
            for worker in workers(process) if dead else ():
                worker.send_signal(signal.SIGBUS)
                worker.wait(PATIENCE)
            assert becomes(lambda: {status("/v1/search") for _ in range(8)} == {(503, "index_unreadable")})
            assert status("/v1/about") == (503, "index_unreadable")
            assert status("/healthz") == (200, None)
            assert status("/readyz")[0] == 503
            assert becomes(lambda: 'smar_index_unreadable{index="default"} 1.0' in get(url + "/metrics").text)
            answer = post(url)
            assert answer.headers["retry-after"] == "2"
            assert "vectors.faiss" in answer.json()["error"]["message"]
            path.write_bytes(content)
            assert becomes(lambda: [ask(url) for _ in range(8)] == [200] * 8)
            assert nameless(post(url).json()) == before
            assert becomes(lambda: get(url + "/readyz").json() == {"status": "ready"})
            assert process.poll() is None
            assert becomes(lambda: len(workers(process)) == 2)


def test_the_end_is_clean(index_path: Path) -> None:
    """At SIGTERM; tests/serving/test_serve.py holds the same of SIGINT."""
    with run_service(index_path, "--workers", "2") as process:
        url = address(process)
        assert becomes(lambda: serving(url) == 2)
        children = workers(process)
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []


def test_children_end_with_a_supervisor_that_dies(index_path: Path) -> None:
    """Each has said that it is ready by then: what was said and not read must keep nobody."""
    with run_service(index_path, "--workers", "3") as process:
        url = address(process)
        assert becomes(lambda: serving(url) == 3)
        children = workers(process)
        process.kill()
        process.wait(PATIENCE)
        assert psutil.wait_procs(children, timeout=PATIENCE)[1] == []
        with pytest.raises(httpx.ConnectError):
            ask(url)


def test_a_disk_that_is_full_while_a_version_is_published(index_path: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: writing fails in the middle, the version is not published."""
    import sys

    from tiny_index import write_embeddings

    folder, embeddings = shutil.copytree(index_path, tmp_path / "index"), write_embeddings(tmp_path / "embeddings")
    code = (
        "import resource, sys; from pathlib import Path; from smar.search.local.build import build_index; "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
        "build_index(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    with run_service(folder) as process:
        url = address(process)
        before = nameless(post(url).json())
        failed = subprocess.run(
            [sys.executable, "-c", code, str(embeddings), str(folder)], capture_output=True, check=False
        )
        assert failed.returncode != 0
        assert b"File too large" in failed.stderr
        again = httpx.post(url + "/v1/search", json=RED | {"explain": False}, timeout=PATIENCE)  # no kept answer
        assert nameless(again.json()) == before
        assert get(url + "/readyz").status_code == 200
    found = Engine.open(folder).search(RED["query"], RED["k"]).hits  # and a restart serves it, too
    assert [hit.item_id for hit in found] == [hit["item_id"] for hit in before["hits"]]
