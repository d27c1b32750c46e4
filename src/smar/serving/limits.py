"""What a client may do: how often, how much, how slowly, and what only with a key."""

import asyncio
import hashlib
import hmac
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from smar.serving.shared import shared_array

_SLOTS = 1 << 16
_MAPPED = bytes(10) + b"\xff\xff"
"""Begins an IPv4 address that is written as an IPv6 one."""


class Keys:
    """API keys, compared in constant time: an answer's time tells nothing of how much of a guess was right."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def holds(self, given: bytes) -> bool:
        """Whether `given` is one of them."""
        digest = hashlib.sha256(given).digest()
        return sum(hmac.compare_digest(digest, key) for key in self._digests) > 0  # every key is compared


def network(client: str) -> str:
    """Whom limits count: an IPv4 address, or the /64 of an IPv6 one, as that is what one client is given."""
    if ":" not in client:
        return client
    try:
        packed = socket.inet_pton(socket.AF_INET6, client.strip("[]").partition("%")[0])
    except OSError:  # a proxy may send anything
        return client
    return socket.inet_ntoa(packed[12:]) if packed.startswith(_MAPPED) else packed[:8].hex(":", 2)


class RateLimiter:
    """A token bucket for each client, in a file that all workers of a service map.

    A bucket is found by the client's hash: memory is bounded, whatever comes. Two workers that change one bucket in
    the same microsecond may lose one of the two requests from the count. A client that meets another one's
    bucket takes it over, full.
    """

    def __init__(self, rate: float, burst: int, file: Path) -> None:
        self.rate, self.burst = rate, burst
        self._buckets = shared_array(file, (_SLOTS, 3), np.float64)  # owner, tokens, last seen

    def wait(self, client: str, cost: int = 1) -> float:
        """Count one request, or what costs as much as some, at most `burst`.

        Returns 0 when it may pass, else the seconds until it may.
        """
        number = int.from_bytes(hashlib.blake2b(network(client).encode(), digest_size=8).digest(), "little")
        bucket, owner, now = self._buckets[number % _SLOTS], float(number // _SLOTS), time.monotonic()
        tokens = float(bucket[1]) + (now - float(bucket[2])) * self.rate if bucket[0] == owner else float(self.burst)
        tokens = min(tokens, self.burst)
        passes = tokens >= cost
        bucket[:] = owner, tokens - cost * passes, now
        return 0.0 if passes else (cost - tokens) / self.rate


class Room:
    """Memory for the bodies of all requests that are being answered, `size` bytes together."""

    def __init__(self, size: int) -> None:
        self._free = size

    def take(self, size: int) -> None:
        """Raise HTTPException 429 when so many bytes are not free."""
        if size > self._free:
            again = {"Retry-After": "1", "Connection": "close"}
            raise HTTPException(429, "too many large requests are being read; try again shortly", again)
        self._free -= size

    def give(self, size: int) -> None:
        """They are free again."""
        self._free += size


class Body:
    """A request's body as it is received, refused when it is too large, comes too slowly or finds no room.

    `taken` is how much of the room it holds. One that is `streamed` holds none: whoever reads it lets go of each part,
    which may take as long as others take in all.
    """

    def __init__(self, receive: Receive, limit: int, patience: float, room: Room, streamed: bool = False) -> None:
        self._receive, self._limit, self._left, self._room = receive, limit, patience, room
        self._streamed = streamed
        self.taken = 0
        self._done = False

    async def __call__(self) -> Message:
        """The next part; raises HTTPException 413 or 408."""
        if self._done:  # only a disconnect may follow, and a client may stay as long as it likes
            return await self._receive()
        before = time.monotonic()
        try:
            async with asyncio.timeout(self._left):  # wait_for would make a task of each
                message = await self._receive()
        except TimeoutError:
            self._done = True
            raise HTTPException(408, "the request's body did not arrive in time", {"Connection": "close"}) from None
        self._left -= 0.0 if self._streamed else time.monotonic() - before
        size = len(message.get("body", b""))
        self._done = not message.get("more_body", False)
        if self.taken + size > self._limit:
            raise too_large(self._limit)
        if not self._streamed:
            self._room.take(size)
            self.taken += size
        return message


def too_large(limit: int) -> HTTPException:
    """The refusal of a body of more than `limit` bytes; the connection ends, as the rest is not read."""
    return HTTPException(413, f"the request's body has more than {limit:,} bytes", {"Connection": "close"})
