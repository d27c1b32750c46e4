"""The service as a process: address, port in use, damaged index, imports, clean end."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from smar.core.errors import InputError
from smar.serving.supervise import listen, serve
from tiny_service import PATIENCE, run_service


def test_answers_over_the_network(service: str) -> None:
    with httpx.Client(base_url=service, timeout=PATIENCE) as client:
        assert client.get("/readyz").json() == {"status": "ready"}
        hits = client.post("/v1/search", json={"query": "red shirt"}).json()["hits"]
        picture = next(hit["picture"] for hit in hits if hit["picture"])
        assert client.get(picture).headers["content-type"].startswith("image/")


def test_port_in_use(index_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1 is in use; choose another with --port"):
            serve(index_path, port=port)


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", 70_000), ("127.0.0.1", -1), ("203.0.113.7", 0), ("no such host", 8080)]
)
def test_impossible_address(index_path: Path, host: str, port: int) -> None:
    with pytest.raises(InputError, match="--host and --port"):
        serve(index_path, host, port)


def test_damaged_index_frees_the_port(index_path: Path, tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    with pytest.raises(InputError, match=r"current is missing"):
        serve(tmp_path, port=port)
    listen("127.0.0.1", port).close()


def test_interrupt_ends_cleanly(index_path: Path) -> None:
    with run_service(index_path) as process:
        assert process.stderr is not None
        assert "items at http://127.0.0.1:" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == ""


def test_neither_torch_nor_transformers(index_path: Path) -> None:
    code = (
        "import sys, smar.search.local.build, smar.serving.app; from pathlib import Path; "
        "from smar.serving.engine import Engine; "
        f"Engine.open(Path({str(index_path)!r})).check(); "
        "print(sorted({'torch', 'transformers', 'smar.model', 'smar.training'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
