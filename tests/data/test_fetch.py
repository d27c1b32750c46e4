import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from shop_tables import items, log, picture, read, run

from smar.data.fetch import Fetcher, Url
from smar.data.images import Unusable
from smar.sections.data import FetchSettings

RELEASE = threading.Event()
"""Set at the end, so that handlers that hang on purpose let the server stop."""


class Handler(BaseHTTPRequestHandler):
    seen: Counter[str] = Counter()

    def do_GET(self) -> None:
        type(self).seen[self.path] += 1
        name, _, argument = self.path.partition("?")[0].strip("/").partition("/")
        getattr(self, f"_{name}", self._ok)(argument)

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _ok(self, _: str) -> None:
        self._send(picture())

    def _status(self, code: str) -> None:
        self._send(b"<html>no</html>", int(code))

    def _html(self, _: str) -> None:
        self._send(b"<html>sorry</html>")

    def _flaky(self, failures: str) -> None:
        ready = self.seen[self.path] > int(failures)
        self._send(picture(), 200 if ready else 503)

    def _redirect(self, target: str) -> None:
        places = {"ok": "/ok", "loop": "/redirect/loop", "file": "file:///etc/hostname"}
        self._send(b"", 302, Location=places[target])

    def _large(self, _: str) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(40):
            self.wfile.write(b"x" * 10_000)

    def _hang(self, _: str) -> None:
        RELEASE.wait(30)

    def _drip(self, _: str) -> None:
        self.send_response(200)
        self.end_headers()
        while not RELEASE.wait(0.03):
            self.wfile.write(b"x")

    def _short(self, _: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x" * 10)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield f"http://127.0.0.1:{httpd.server_port}"
    RELEASE.set()
    httpd.shutdown()
    httpd.server_close()


def fetch(url: str, retries: int = 2, timeout: float = 5.0) -> bytes | Unusable:
    with Fetcher(FetchSettings(timeout=timeout, retries=retries), 200_000, backoff=0.001) as fetcher:
        return fetcher.fetch(url)


@pytest.mark.parametrize("path", ["ok", "redirect/ok", "flaky/2"])
def test_pictures_come_in(server: str, path: str) -> None:
    assert fetch(f"{server}/{path}") == picture()


@pytest.mark.parametrize(
    ("path", "status", "reason", "tries"),
    [
        ("status/404", "fetch_failed", "HTTP 404", 1),
        ("status/503", "fetch_failed", r"HTTP 503 \(3 tries\)", 3),
        ("redirect/loop", "fetch_failed", "TooManyRedirects", 6),
        ("redirect/file", "fetch_failed", "UnsupportedProtocol", 1),
        ("large/1", "too_large", "more than 200,000 bytes", 1),
        ("short/1", "fetch_failed", "RemoteProtocolError", 3),
    ],
)
def test_failures_say_why(server: str, path: str, status: str, reason: str, tries: int) -> None:
    Handler.seen.clear()
    outcome = fetch(f"{server}/{path}")
    assert isinstance(outcome, Unusable)
    assert outcome.status == status
    with pytest.raises(Unusable, match=reason):
        raise outcome
    assert Handler.seen[f"/{path}"] == tries


@pytest.mark.parametrize("path", ["hang", "drip"])
def test_slow_servers_hold_nobody(server: str, path: str) -> None:
    outcome = fetch(f"{server}/{path}", retries=0, timeout=0.15)
    assert isinstance(outcome, Unusable)
    assert "Timeout" in str(outcome)


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1/a.jpg", "http://", "http://[bad", "http://127.0.0.1:1/a", "http://\ud800"]
)
def test_addresses_that_lead_nowhere(url: str) -> None:
    outcome = fetch(url, retries=0)
    assert isinstance(outcome, Unusable)
    assert outcome.status == "fetch_failed"


def test_order_is_kept(server: str) -> None:
    jobs: list[Any] = [(n, Url(f"{server}/flaky/{n % 3}?{n}")) for n in range(20)]
    jobs[3], jobs[4] = (3, b"bytes"), (4, Path("a/file"))
    with Fetcher(FetchSettings(parallel=4), 200_000, backoff=0.001) as fetcher:
        seen = list(fetcher.in_order(iter(jobs)))
    assert [key for key, _ in seen] == list(range(20))
    assert [type(result).__name__ for _, result in seen[2:6]] == ["bytes", "bytes", type(Path()).__name__, "bytes"]


def test_catalogue_of_addresses(tmp_path: Path, server: str) -> None:
    rows = items(5)
    paths = ("ok", "status/404", "html", "redirect/ok")
    for row, image in zip(rows, [*(f"{server}/{path}" for path in paths), "s3://bucket/a.jpg"], strict=True):
        row["image"] = image
    summary = run(tmp_path, rows, log(), fetch={"timeout": 5, "retries": 0})
    status = ["ok", "fetch_failed", "not_an_image", "ok", "fetch_failed"]
    assert [row["image_status"] for row in read(tmp_path, "items.parquet")] == status
    assert [row["error"] for row in read(tmp_path, "images.parquet")][1] == ["HTTP 404", "1 tries)"][0]
    assert summary.image_status["fetch_failed"] == 2
