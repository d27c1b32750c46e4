import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from shop_tables import items, log, picture, read, run

from smar.core.sections.data import FetchSettings
from smar.data import fetch as module
from smar.data.fetch import Fetcher, Url, public
from smar.data.images import Unusable

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
        places = {"ok": "/ok", "loop": "/redirect/loop", "file": "file:///etc/hostname", "inside": "http://127.0.0.2/"}
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


def fetch(url: str, retries: int = 2, timeout: float = 5.0, private: bool = True) -> bytes | Unusable:
    settings = FetchSettings(timeout=timeout, retries=retries, private=private)
    with Fetcher(settings, 200_000, backoff=0.001) as fetcher:
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


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        *((each, True) for each in ("93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8", "2002:808:808::1")),
        *((each, False) for each in (
            "127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
            "0.0.0.0", "224.0.1.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1%2", "fc00::1",
            "fec0::1", "ff02::1", "ff0e::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1", "64:ff9b::a00:1",
            "2002:7f00:1::1", "2001:db8::1", "2001:0:7f00:1::1",
        )),
    ],
)  # fmt: skip
def test_public_addresses(address: str, expected: bool) -> None:
    assert public(address) is expected


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]"]
)
def test_own_networks_are_not_asked(server: str, host: str) -> None:
    """A catalogue from outside must not make this machine ask its own network for it (SSRF)."""
    Handler.seen.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "create_connection", pytest.fail)
        outcome = fetch(f"http://{host}:{server.rpartition(':')[2]}/ok", private=False)
    assert isinstance(outcome, Unusable)
    assert outcome.status == "fetch_failed"
    assert "is not public: data.fetch.private=true allows it" in str(outcome)
    assert not Handler.seen


def test_a_redirect_into_the_own_network_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "public", lambda address: address == "127.0.0.1")
    Handler.seen.clear()
    assert fetch(f"{server}/redirect/ok", private=False) == picture()
    outcome = fetch(f"{server}/redirect/inside", private=False)
    assert str(outcome).startswith("127.0.0.2 is 127.0.0.2, which is not public")
    assert Handler.seen == Counter({"/redirect/ok": 1, "/ok": 1, "/redirect/inside": 1})


def test_a_name_that_changes_its_address_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Public when it is asked for, private when it is connected to."""
    answers = iter(["93.184.216.34", "127.0.0.1"])

    def resolve(host: str, port: int | None, *_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port or 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    Handler.seen.clear()
    outcome = fetch(f"http://pictures.example:{server.rpartition(':')[2]}/ok", private=False)
    assert str(outcome).startswith("pictures.example is 127.0.0.1, which is not public")
    assert not Handler.seen
    assert next(answers, None) is None


def test_a_proxy_of_the_environment_has_rules_of_its_own(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be in the own network and resolves names itself; hosts that NO_PROXY names are asked directly."""
    monkeypatch.setenv("http_proxy", server)
    assert fetch("http://pictures.example/a.jpg", private=False) == picture()
    assert "which is not public" in str(fetch(f"{server}/ok", private=False))


def test_order_is_kept(server: str) -> None:
    jobs: list[Any] = [(n, Url(f"{server}/flaky/{n % 3}?{n}")) for n in range(20)]
    jobs[3], jobs[4] = (3, b"bytes"), (4, Path("a/file"))
    with Fetcher(FetchSettings(parallel=4, private=True), 200_000, backoff=0.001) as fetcher:
        seen = list(fetcher.in_order(iter(jobs)))
    assert [key for key, _ in seen] == list(range(20))
    assert [type(result).__name__ for _, result in seen[2:6]] == ["bytes", "bytes", type(Path()).__name__, "bytes"]


def test_catalogue_of_addresses(tmp_path: Path, server: str) -> None:
    rows = items(5)
    paths = ("ok", "status/404", "html", "redirect/ok")
    for row, image in zip(rows, [*(f"{server}/{path}" for path in paths), "s3://bucket/a.jpg"], strict=True):
        row["image"] = image
    summary = run(tmp_path, rows, log(), fetch={"timeout": 5, "retries": 0, "private": True})
    status = ["ok", "fetch_failed", "not_an_image", "ok", "fetch_failed"]
    assert [row["image_status"] for row in read(tmp_path, "items.parquet")] == status
    assert [row["error"] for row in read(tmp_path, "images.parquet")][1] == ["HTTP 404", "1 tries)"][0]
    assert summary.image_status["fetch_failed"] == 2
