"""Pictures given as URLs: downloaded in parallel, results in the order asked for, every failure recorded."""

import socket
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv6Address, IPv6Network, ip_address
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from smar.core.sections.data import FetchSettings
from smar.data.images import Unusable

RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_REDIRECTS = 5
USER_AGENT = "smar-prepare/1"
_ROUTED = IPv6Network("2000::/3")
T = TypeVar("T")


@dataclass(frozen=True)
class Url:
    """Address of a picture."""

    address: str


Source = bytes | Path | Url
"""Where a picture comes from: bytes in a table, a file, or an address."""


class Fetcher:
    """Downloads over http and https. Use as a context manager.

    A download fails for good on a refused address, a status such as 404, or too many bytes; time-outs, broken
    connections and overloaded servers (`RETRIED_STATUS`) are tried again after `backoff` s, then twice that.
    """

    def __init__(self, settings: FetchSettings, max_bytes: int, backoff: float = 0.5) -> None:
        self.settings = settings
        self.max_bytes = max_bytes
        self.backoff = backoff
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(settings.parallel, thread_name_prefix="fetch")

    @cached_property
    def _client(self) -> httpx.Client:
        """Made for the first address only: most catalogues have none, and the user's proxy settings may be broken."""
        return httpx.Client(
            timeout=self.settings.timeout,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            headers={"User-Agent": USER_AGENT, "Accept": "image/*"},
            limits=httpx.Limits(max_connections=self.settings.parallel),
            event_hooks={} if self.settings.private else {"request": [_only_public]},
        )

    def _submit(self, url: str) -> Future[bytes | Unusable]:
        _ = self._client  # made here, in the one thread that submits
        return self._pool.submit(self.fetch, url)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)
        if "_client" in self.__dict__:
            self._client.close()

    def fetch(self, url: str) -> bytes | Unusable:
        """Download one picture; returns its bytes, or why there are none (too_large or fetch_failed)."""
        failure = ""
        for attempt in range(self.settings.retries + 1):
            if attempt and self._stop.wait(self.backoff * 2 ** (attempt - 1)):
                break
            try:
                return self._get(url)
            except Unusable as error:
                return error
            except httpx.HTTPStatusError as error:
                failure = f"HTTP {error.response.status_code}"
                if error.response.status_code not in RETRIED_STATUS:
                    break
            except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.TooManyRedirects) as error:
                failure = f"{type(error).__name__}: {error}"
                break
            except (httpx.HTTPError, OSError) as error:
                failure = f"{type(error).__name__}: {error}"
            except ValueError as error:  # an address that cannot be encoded
                failure = f"not a valid URL: {error}"
                break
        else:
            failure += f" ({self.settings.retries + 1} tries)"
        return Unusable("fetch_failed", failure[:200])

    def _get(self, url: str) -> bytes:
        """One try. The deadline covers the whole answer: a server that drips bytes must not hold a thread."""
        deadline = monotonic() + self.settings.timeout
        with self._client.stream("GET", url) as response:
            response.raise_for_status()
            parts, size = [], 0
            for part in response.iter_bytes():
                size += len(part)
                if size > self.max_bytes:
                    raise Unusable("too_large", f"more than {self.max_bytes:,} bytes")
                if monotonic() > deadline:
                    raise httpx.ReadTimeout(f"not complete after {self.settings.timeout:g} s")
                parts.append(part)
            return b"".join(parts)

    def in_order(self, jobs: Iterable[tuple[T, Source | Unusable]]) -> Iterator[tuple[T, bytes | Path | Unusable]]:
        """Replace each `Url` by its bytes, or by why there are none; downloads run `parallel` ahead.

        Other sources pass through. The order is kept: nothing depends on which download ends first.
        """
        waiting: deque[tuple[T, bytes | Path | Unusable | Future[bytes | Unusable]]] = deque()
        for key, source in jobs:
            waiting.append((key, self._submit(source.address) if isinstance(source, Url) else source))
            while waiting and (len(waiting) > self.settings.parallel or not isinstance(waiting[0][1], Future)):
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())


def public(address: str) -> bool:
    """Whether an IP address is one of the internet: not of this machine, its networks, a group or a reserved range."""
    ip = ip_address(address)
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    return ip.is_global and not ip.is_multicast and (ip.version == 4 or ip in _ROUTED)


def _only_public(request: httpx.Request) -> None:
    """Hook of every hop: refuse a host that has a private address, before anything connects to it.

    The address that was then connected to is judged before anything is sent, as a name may have another one by now. A
    connection to another host is one to the user's proxy, whose rules apply.
    """
    host, direct = request.url.raw_host.decode("ascii"), False

    def trace(event: str, info: dict[str, Any]) -> None:
        nonlocal direct
        if event.endswith("connect_tcp.started"):
            direct = info["host"] == host
            for found in socket.getaddrinfo(host, None) if direct else []:
                _refuse_private(host, str(found[4][0]))
        elif direct and event.endswith("connect_tcp.complete"):
            stream = info["return_value"]
            try:
                _refuse_private(host, stream.get_extra_info("server_addr")[0])
            except BaseException:
                stream.close()
                raise

    request.extensions["trace"] = trace


def _refuse_private(host: str, address: str) -> None:
    if not public(address):
        raise Unusable("fetch_failed", f"{host} is {address}, which is not public: data.fetch.private=true allows it")


def _finished(key: T, result: bytes | Path | Unusable | Future[bytes | Unusable]) -> tuple[T, bytes | Path | Unusable]:
    return key, result.result() if isinstance(result, Future) else result
