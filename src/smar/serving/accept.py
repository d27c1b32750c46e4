"""Connections dealt evenly: of several workers on one socket, the one with the fewest takes the next.

The kernel gives a connection to whichever worker asks first. Of 64 that come at once one worker got up to all: it
answers half as fast as two, while the other rests, for as long as the connections live (nginx keeps them). So workers
tell each other how many they hold, in a file that all of them map, and one that holds more lets the others go first.
"""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from smar.serving.shared import shared_array

_PAUSE = 0.001
_PATIENCE = 5
"""Pauses after which a connection is taken anyway: the other worker may hang, or be starting."""
_AT_ONCE = 16
"""Connections taken before anything else: between two turns of the loop lie some milliseconds of searching."""
_REPORT = 0.1
_PULSE = 1.0
_TROUBLE = 0.1
"""Seconds to wait when no more files can be opened."""


class Shares:
    """How many connections each of `workers` holds; `number` is one's own place."""

    def __init__(self, file: Path, workers: int, number: int) -> None:
        self._held = shared_array(file, (workers,), np.int64)
        self._number = number

    def tell(self, held: int) -> None:
        """Say how many one holds."""
        self._held[self._number] = held + 1

    def leave(self) -> None:
        """Say that one takes no more."""
        self._held[self._number] = 0

    def may_take(self, held: int) -> bool:
        """Whether nobody holds fewer by more than one."""
        self.tell(held)
        there = self._held[self._held > 0]  # 0: not started yet, or gone
        return held <= int(there.min())  # which are one more than what is held


class FairServer(uvicorn.Server):  # type: ignore[misc]
    """uvicorn's server with an accept loop of its own over a listening socket that other processes share."""

    def __init__(
        self, config: uvicorn.Config, listener: socket.socket, shares: Shares, alive: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._listener, self._shares, self._alive = listener, shares, alive
        self._coming: set[asyncio.Task[Any]] = set()
        self._refused = 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, then take connections."""
        await super().startup(sockets=[])
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener.fileno(), self._ready)
        self._report()
        self._live()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, finish what is under way."""
        self._loop.remove_reader(self._listener.fileno())
        self._shares.leave()
        await super().shutdown(sockets=[self._listener])

    @property
    def holds(self) -> int:
        """Connections that are open."""
        return len(self.server_state.connections) + len(self._coming)

    def _report(self) -> None:
        if not self.should_exit:
            self._shares.tell(self.holds)
            self._loop.call_later(_REPORT, self._report)

    def _live(self) -> None:
        self._loop.call_later(_PULSE, self._live)
        self._alive()

    def _ready(self) -> None:
        for _ in range(_AT_ONCE):
            if self._refused < _PATIENCE and not self._shares.may_take(self.holds):
                self._refused += 1
                self._pause(_PAUSE)
                return
            self._refused = 0
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return  # all are taken, or the client has gone
            except OSError:
                self._pause(_TROUBLE)
                return
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._protocol, connection))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)
        self._shares.tell(self.holds)

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._loop.call_later(seconds, self._again)

    def _again(self) -> None:
        if not self.should_exit:
            self._loop.add_reader(self._listener.fileno(), self._ready)

    def _protocol(self) -> asyncio.Protocol:
        state = self.server_state
        protocol: Any = self.config.http_protocol_class
        made: asyncio.Protocol = protocol(self.config, state, self.lifespan.state, _loop=self._loop)
        return made
