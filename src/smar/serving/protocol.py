"""HTTP parsing with bounds: a request's head may be neither endless nor endlessly slow."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 32 << 10
HEAD_SECONDS = 10.0


class BoundedProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """uvicorn's httptools protocol; a connection whose head is too large or too slow is closed.

    uvicorn bounds neither: a client could fill the memory with headers, or hold a connection with one byte an hour.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head = 0
        self._in_head = True
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client has come; it has `HEAD_SECONDS` to say what it wants."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:
        """Parse on, unless the head has grown too large."""
        if self._in_head:
            self._head += len(data)
            if self._timer is None:  # a further request of this connection
                self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)
        super().data_received(data)
        if self._in_head and self._head > HEAD_BYTES:
            self.send_400_response(f"The request's head has more than {HEAD_BYTES} bytes.")

    def on_headers_complete(self) -> None:
        """The head is complete: what follows is bounded by the application."""
        self._stop()
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next bytes are another request's head."""
        super().on_message_complete()
        self._in_head, self._head = True, 0

    def connection_lost(self, error: Exception | None) -> None:
        """The client has gone."""
        self._stop()
        super().connection_lost(error)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
