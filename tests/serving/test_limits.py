"""Keys, rates and bodies."""

import asyncio
import time
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message

from smar.core.errors import InputError
from smar.serving.limits import Body, Keys, RateLimiter, Room, network
from smar.serving.options import ServiceOptions, read_keys, service_options

KEY = "0123456789abcdef"


def test_keys() -> None:
    keys = Keys([KEY, KEY[::-1]])
    assert keys.holds(KEY.encode())
    assert keys.holds(KEY[::-1].encode())
    assert not any(keys.holds(wrong) for wrong in (b"", KEY[:-1].encode(), KEY.encode() + b"0", KEY.upper().encode()))
    assert not Keys([])


def test_key_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.txt"
    file.write_text(f"# the importer\n{KEY}   # until May\n\n{KEY}2\n")
    assert read_keys(file) == (KEY, KEY + "2")
    assert read_keys(None) == ()
    monkeypatch.setenv("SMAR_API_KEYS", f"{KEY}, {KEY}3")
    assert read_keys(None) == (KEY, KEY + "3")
    file.write_text("short")
    with pytest.raises(InputError, match="API key 1 has 5 characters"):
        read_keys(file)
    file.write_text("# none\n")
    with pytest.raises(InputError, match="holds no key"):
        read_keys(file)
    with pytest.raises(InputError, match="cannot be read"):
        read_keys(tmp_path / "missing")
    assert KEY not in repr(ServiceOptions(keys=(KEY,)))


def test_options() -> None:
    assert service_options(["queue=7", "cache_bytes=0"], workers=2) == ServiceOptions(queue=7, cache_bytes=0, workers=2)
    with pytest.raises(InputError, match=r"--set keys=1: give name=value; the names are batch, body_bytes"):
        service_options(["keys=1"])
    with pytest.raises(InputError, match="queue: Input should be greater than or equal to 1"):
        service_options(["queue=0"])


def test_a_bucket_empties_and_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    first, second = (RateLimiter(2.0, 3, tmp_path / "clients") for _ in range(2))  # two workers of one service
    assert [first.wait("a"), second.wait("a"), first.wait("a")] == [0, 0, 0]
    assert second.wait("a") == pytest.approx(0.5)
    assert first.wait("b") == 0
    now += 0.5
    assert first.wait("a") == 0
    assert second.wait("a") > 0
    now += 60
    assert [first.wait("a") for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]


def test_an_ipv6_client_is_a_network(tmp_path: Path) -> None:
    """It is given a /64, and could take another address of it for each request."""
    limiter = RateLimiter(0.001, 2, tmp_path / "clients")
    assert [limiter.wait(f"2001:db8:1:2::{number:x}") > 0 for number in range(1, 4)] == [False, False, True]
    assert limiter.wait("2001:db8:1:2:ffff:ffff:ffff:ffff") > 0
    assert limiter.wait("2001:db8:1:3::1") == 0
    assert network("fe80::1%eth0") == network("[fe80::2]") == "fe80:0000:0000:0000"
    assert network("::ffff:192.0.2.1") == network("192.0.2.1") == "192.0.2.1"
    assert network("::ffff:192.0.2.2") != network("192.0.2.1")
    for other in ("", "unknown", "a:b", "::::"):
        assert network(other) == other


def receive(*parts: bytes, then: float = 0.0, room: Room | None = None) -> Body:
    """A body of these parts, of 10 bytes and half of the time that the client waits before the last part at most."""
    messages: list[Message] = [
        {"type": "http.request", "body": part, "more_body": at < len(parts)} for at, part in enumerate(parts, start=1)
    ]

    async def following() -> Message:
        if len(messages) == 1:
            await asyncio.sleep(then)
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return Body(following, limit=10, patience=then / 2 or 60, room=room or Room(100))


async def read(body: Body) -> bytes:
    whole = b""
    while True:
        message = await body()
        whole += message["body"]
        if not message["more_body"]:
            assert (await body())["type"] == "http.disconnect"
            return whole


def test_bodies() -> None:
    assert asyncio.run(read(receive(b"12345", b"67890"))) == b"1234567890"
    with pytest.raises(HTTPException) as large:
        asyncio.run(read(receive(b"12345", b"678901")))
    assert large.value.status_code == 413
    with pytest.raises(HTTPException) as slow:
        asyncio.run(read(receive(b"1", b"2", then=0.2)))
    assert slow.value.status_code == 408


def test_bodies_share_room() -> None:
    room = Room(15)
    first, second, third = (receive(b"12345", b"6789", room=room) for _ in range(3))
    assert asyncio.run(read(first)) == b"123456789"
    with pytest.raises(HTTPException) as crowded:
        asyncio.run(read(second))
    assert (crowded.value.status_code, second.taken) == (429, 5)
    assert crowded.value.headers is not None
    assert crowded.value.headers["Retry-After"] == "1"
    room.give(first.taken)
    room.give(second.taken)
    assert asyncio.run(read(third)) == b"123456789"
