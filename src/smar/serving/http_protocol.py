"""HTTP parsing with bounds: nothing that a request consists of may be endless, or endlessly slow."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 32 << 10
HEAD_SECONDS = 10.0


class _Joining:
    """A transport that sends an answer's head together with the first of its body.

    uvicorn writes them one after the other: two calls of the kernel, two packets, and a client that wakes up twice.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._head = transport, b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, unless it is a head; ``100 Continue`` is none, as the client waits for it."""
        if data.startswith(b"HTTP/1.1 ") and data.endswith(b"\r\n\r\n") and not data.startswith(b"HTTP/1.1 1"):
            self._head += data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def flush(self) -> None:
        """Send a head that no body follows."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Send what is left, and end."""
        self.flush()
        self._transport.close()


class BoundedProtocol(HttpToolsProtocol):  # type: ignore[misc]
    """uvicorn's httptools protocol; a connection is closed that sends too much of what is no body, or too slowly.

    uvicorn bounds neither: a client could fill the memory with headers, before a body or after it (trailers), or hold a
    connection with one byte an hour.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._bare = 0  # bytes since the last of a body: heads, trailers, sizes of chunks
        self._in_head = True
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """A client has come; it has `HEAD_SECONDS` to say what it wants."""
        super().connection_made(_Joining(transport))
        self._hurry()

    def data_received(self, data: bytes) -> None:
        """Parse on, unless there is too much beside the bodies."""
        self._bare += len(data)
        if self._in_head and self._timer is None:  # a further request of this connection
            self._hurry()
        super().data_received(data)
        if self._bare <= HEAD_BYTES or self.transport.is_closing():
            return
        if self._in_head:
            self.send_400_response(f"The request's head has more than {HEAD_BYTES} bytes.")
        else:
            self.transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; what comes after a body is dropped, as nothing reads it."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete: what follows is bounded by the application."""
        self._stop()
        self._in_head = False
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body: the application counts it."""
        self._bare = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The next bytes are another request's head."""
        super().on_message_complete()
        self._stop()
        self._in_head, self._bare = True, 0

    def on_response_complete(self) -> None:
        """An answer may have had no body; one may be given before the request is complete, which has to hurry then."""
        self.transport.flush()
        super().on_response_complete()
        if self._ended and self.cycle.response_complete:
            self.transport.close()
        elif not self._in_head and self.cycle.response_complete and self._timer is None:
            self._hurry()

    def eof_received(self) -> bool:
        """The client sends no more. What it has asked for in full is answered, and then the connection ends."""
        self._stop()
        self._ended = self._in_head and self.cycle is not None and not self.cycle.response_complete
        return self._ended  # true keeps the other direction open

    def connection_lost(self, error: Exception | None) -> None:
        """The client has gone."""
        self._stop()
        super().connection_lost(error)

    def _hurry(self) -> None:
        self._timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
