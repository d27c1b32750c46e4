"""Answers on the wire: heads without a body, before it, and in the order of the requests."""

import asyncio
import contextlib
import http.client
import socket
from dataclasses import dataclass
from email.message import Message
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from smar.serving import http_protocol
from smar.serving.http_protocol import HEAD_SECONDS, BoundedProtocol, _Joining
from tiny_service import PATIENCE

BODY = b'{"query": "red shirt", "k": 1}'
SEARCH = b"POST /v1/search HTTP/1.1\r\nHost: shop\r\nContent-Length: %d\r\n" % len(BODY)


class Wire(asyncio.Transport):
    """Remembers each write."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bytes] = []

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.seen.append(data)

    def close(self) -> None:
        self.seen.append(b"closed")


HEAD = b"HTTP/1.1 200 OK\r\ndate: today\r\n\r\n"


@pytest.mark.parametrize(
    ("written", "seen"),
    [
        ([HEAD, b"{}"], [HEAD + b"{}"]),
        ([HEAD, b"one", b"two"], [HEAD + b"one", b"two"]),
        ([HEAD, None], [HEAD]),
        ([HEAD, None, HEAD, b"{}"], [HEAD, HEAD + b"{}"]),
        ([b"HTTP/1.1 100 Continue\r\n\r\n"], [b"HTTP/1.1 100 Continue\r\n\r\n"]),
        ([HEAD, b"\r\n\r\n"], [HEAD + b"\r\n\r\n"]),
        ([None], []),
    ],
)
def test_a_head_goes_with_the_first_of_its_body(written: list[bytes | None], seen: list[bytes]) -> None:
    wire = Wire()
    joining = _Joining(wire)
    for data in written:
        joining.flush() if data is None else joining.write(data)
    assert wire.seen == seen
    joining.close()
    assert wire.seen == [*seen, b"closed"]


def test_nothing_is_lost_at_the_end() -> None:
    wire = Wire()
    joining = _Joining(wire)
    joining.write(HEAD)
    joining.close()
    assert wire.seen == [HEAD, b"closed"]


def connected(service: str) -> socket.socket:
    parts = urlsplit(service)
    return socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE)


@dataclass
class Answer:
    status: int
    headers: Message
    content: bytes


def answers(connection: socket.socket, methods: list[str]) -> list[Answer]:
    """As many answers as there are `methods`, and nothing after them that has come already."""
    found = []
    file = connection.makefile("rb")
    for method in methods:
        status = int(file.readline().split()[1])
        headers = http.client.parse_headers(file)
        bodiless = method == "HEAD" or status == 304
        found.append(Answer(status, headers, b"" if bodiless else file.read(int(headers["content-length"]))))
    return found


def test_answers_without_a_body_arrive(service: str) -> None:
    with connected(service) as connection:
        connection.sendall(b"HEAD /static/app.js HTTP/1.1\r\nHost: shop\r\n\r\n")
        (head,) = answers(connection, ["HEAD"])
        connection.sendall(b"GET /static/app.js HTTP/1.1\r\nHost: shop\r\n\r\n")
        (script,) = answers(connection, ["GET"])
        assert (script.status, script.content[:2]) == (200, b"//")
        tag = script.headers["etag"].encode()
    assert (head.status, head.headers["content-length"]) == (200, str(len(script.content)))
    with connected(service) as connection:
        connection.sendall(b"GET /static/app.js HTTP/1.1\r\nHost: shop\r\nIf-None-Match: " + tag + b"\r\n\r\n")
        (same,) = answers(connection, ["GET"])
    assert (same.status, same.content) == (304, b"")


def test_pipelined_requests_are_answered_in_turn(service: str) -> None:
    health = b"GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n"
    last = b"GET /v1/about HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n"
    with connected(service) as connection:
        connection.sendall(health + SEARCH + b"\r\n" + BODY + health + last)
        found = answers(connection, ["GET", "POST", "GET", "GET"])
        assert connection.recv(1) == b""
    contents = [answer.content for answer in found]
    assert [answer.status for answer in found] == [200] * 4
    assert contents[0] == contents[2] == b'{"status":"up"}'
    assert b'"hits"' in contents[1]
    assert b'"fingerprint"' in contents[3]


def test_a_client_that_asks_first_is_told_to_go_on(service: str) -> None:
    with connected(service) as connection:
        connection.sendall(SEARCH + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        (answer,) = answers(connection, ["POST"])
    assert answer.status == 200


def test_a_half_closed_client_gets_its_answers(service: str) -> None:
    """As `nc -N` and some proxies ask: they say that nothing more will come before they read."""
    with connected(service) as connection:
        connection.sendall(SEARCH + b"\r\n" + BODY)
        connection.shutdown(socket.SHUT_WR)
        (answer,) = answers(connection, ["POST"])
        assert connection.recv(1) == b""
    assert (answer.status, answer.content[:9]) == (200, b'{"query":')
    health = b"GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n"
    with connected(service) as connection:
        connection.sendall(health + SEARCH + b"\r\n" + BODY + health + b"GET /unfinished")
        connection.shutdown(socket.SHUT_WR)
        assert [answer.status for answer in answers(connection, ["GET", "POST", "GET"])] == [200] * 3
        assert connection.recv(1) == b""


@pytest.mark.parametrize("sent", [b"", b"GET /healthz", SEARCH, SEARCH + b"\r\n" + BODY[:5]])
def test_who_half_closes_within_a_request_is_let_go_at_once(service: str, sent: bytes) -> None:
    with connected(service) as connection:
        connection.settimeout(HEAD_SECONDS / 2)
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert ends(connection)


def ends(connection: socket.socket) -> bool:
    """Whether the service ends the connection, gently or not, before the time-out."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    "endless", [b"0\r\n" + b"x-trailer: y\r\n" * 40_000, b"5;" + b"x" * 400_000, b"0\r\nname: " + b"y" * 400_000]
)
def test_what_is_no_body_has_bounds(service: str, endless: bytes) -> None:
    """Trailers, and what may follow a chunk's size: uvicorn would keep all of the former in memory."""
    with connected(service) as connection:
        connection.settimeout(HEAD_SECONDS / 4)  # a silent connection is ended after half of it
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            connection.sendall(endless)
        assert ends(connection)


def test_a_small_trailer_is_no_offence(service: str) -> None:
    with connected(service) as connection:
        chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nx-sum: 1\r\n\r\n" % (len(BODY), BODY)
        head = b"POST /v1/search HTTP/1.1\r\nHost: shop\r\n"
        connection.sendall((head + chunks) * 2)
        assert [answer.status for answer in answers(connection, ["POST", "POST"])] == [200, 200]


def test_who_is_answered_early_has_to_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer before the body is complete must not give its sender a connection for as long as it likes."""
    monkeypatch.setattr(http_protocol, "HEAD_SECONDS", 0.2)

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("no", 403)(scope, receive, send)

    async def all_of(reader: asyncio.StreamReader) -> bytes:
        """Until the end, which is a reset where a byte was on its way."""
        seen = b""
        with contextlib.suppress(ConnectionResetError):
            while block := await reader.read(4096):
                seen += block
        return seen

    async def ask() -> bytes:
        server = uvicorn.Server(uvicorn.Config(refuse, http=BoundedProtocol, lifespan="off", log_level="error"))
        listener = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve([listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(SEARCH.replace(b"30", b"3000") + b"\r\n")
        answer = asyncio.create_task(all_of(reader))
        while not answer.done():  # a byte now and then, for ever
            writer.write(b" ")
            await asyncio.sleep(0.01)
        writer.transport.abort()
        server.should_exit = True
        await serving
        return await answer

    assert b"403 Forbidden" in asyncio.run(asyncio.wait_for(ask(), PATIENCE))
