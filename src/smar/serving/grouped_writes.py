"""Changes that travel to the model worker together: the lines of one request, and requests that come at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from smar.serving.batcher import Busy
from smar.serving.writer_client import RETRY_SECONDS, WriterAnswer, WriterClient, WriterDown

LINES = "application/x-ndjson"
MOST_TOGETHER = 512
"""Changes of columns that travel together."""
MOST_WAITING = 2048
"""Changes of columns that may wait in a worker; then 429."""
MOST_BYTES = 1 << 17
"""Of changes of columns that travel together."""
MOST_UNREAD = 64 << 20
"""Bytes of results kept for a client that sends all its lines before it reads: of some 600,000."""
_PARTS = 2  # of a body that are read ahead; each has some 64 KB where a client sends quickly
_TRIES = 8
Result = dict[str, Any]
Written = Callable[[], Awaitable[None]]
_decode_lines = msgspec.json.Decoder().decode_lines
_encode = msgspec.json.Encoder().encode


class Together:
    """Changes of columns from many requests: those that come while others are on their way go as one."""

    def __init__(self, client: WriterClient, written: Written) -> None:
        self._client, self._written = client, written
        self._waiting: deque[tuple[bytes, asyncio.Future[Result]]] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def patch(self, line: bytes) -> Result:
        """Change columns of one item; returns the result once it is durable and found here.

        Raises:
            Busy: too many wait already.
            WriterDown: the model worker does not answer.
        """
        if len(self._waiting) >= MOST_WAITING:
            raise Busy
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((line, done))
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send())
        return await done

    async def _send(self) -> None:
        while self._waiting:
            batch, size = [self._waiting.popleft()], 0
            while self._waiting and len(batch) < MOST_TOGETHER and size < MOST_BYTES:
                batch.append(self._waiting.popleft())
                size += len(batch[-1][0])
            try:
                answer = await self._client.bulk("patch", b"\n".join(line for line, _ in batch))
                results = _results(answer, len(batch))
                await self._written()
            except Exception as error:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(error)
                continue
            for (_, done), result in zip(batch, results, strict=True):
                if not done.done():  # else whoever asked has gone
                    done.set_result(result)


def _results(answer: WriterAnswer, lines: int) -> list[Result]:
    if answer.status == 200:
        found: list[Result] = _decode_lines(answer.body)
        return found
    return [{"status": answer.status, "retry_after": answer.retry_after} | answer.json()] * lines


class Lines(NamedTuple):
    """Whole lines of a body, and the number of the first one."""

    first: int
    text: bytes

    @property
    def number(self) -> int:
        """How many they are."""
        return self.text.count(b"\n") + (not self.text.endswith(b"\n"))


async def lines_of(parts: AsyncIterator[bytes], most: int) -> AsyncIterator[Lines]:
    """The whole lines in each part of a body; HTTPException 413 when one has more than `most` bytes."""
    number, begun, size = 1, list[bytes](), 0
    async for part in parts:
        cut = part.rfind(b"\n") + 1
        if cut:
            lines = Lines(number, b"".join([*begun, part[:cut]]))
            yield lines
            number, begun, size = number + lines.number, [], 0
        begun.append(part[cut:])
        size += len(part) - cut
        if size > most:
            raise HTTPException(413, f"line {number} has more than {most:,} bytes.")
    if (rest := b"".join(begun)).strip():
        yield Lines(number, rest)


class Bulk:
    """The changes of one request's lines, made while more of them arrive; a result a line."""

    def __init__(self, client: WriterClient, action: str, lines: AsyncIterator[Lines], written: Written) -> None:
        self._client, self._action, self._lines, self._written = client, action, lines, written
        self._read: asyncio.Queue[Lines | Exception | None] = asyncio.Queue(_PARTS)
        self._results: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._unread, self._space = 0, asyncio.Event()

    async def results(self) -> AsyncIterator[bytes]:
        """JSON lines, as the changes become durable."""
        tasks = [asyncio.create_task(work()) for work in (self._reads, self._sends)]
        try:
            while (some := await self._results.get()) is not None:
                yield some
                self._unread -= len(some)
                self._space.set()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _reads(self) -> None:
        last: Exception | None = None
        try:
            async for lines in self._lines:
                await self._read.put(lines)
        except (HTTPException, ClientDisconnect) as error:
            last = error
        await self._read.put(last)

    async def _sends(self) -> None:
        try:
            number = 1
            while isinstance(lines := await self._read.get(), Lines):
                results = await self._made(lines)
                await self._written()  # before anybody is told: who asks this worker then finds it
                await self._tell(results)
                number = lines.first + lines.number
            if isinstance(lines, HTTPException):
                await self._tell(_refusal(number, lines.status_code, "not_read", str(lines.detail)))
        finally:
            self._results.put_nowait(None)

    async def _made(self, lines: Lines) -> bytes:
        """Results of some lines; while the model worker is not there, or busy, it is asked again."""
        for _ in range(_TRIES):
            try:
                answer = await self._client.bulk(self._action, lines.text, lines.first)
            except WriterDown as error:
                status, told = 503, {"error": {"code": "model_worker_down", "message": str(error)}}
            else:
                if answer.status == 200:
                    return answer.body
                status, told = answer.status, answer.json()
                if status != 429:
                    break
            await asyncio.sleep(RETRY_SECONDS)
        numbers = range(lines.first, lines.first + lines.number)
        return b"".join(_encode({"line": at, "item_id": None, "status": status} | told) + b"\n" for at in numbers)

    async def _tell(self, results: bytes) -> None:
        while self._unread > MOST_UNREAD:
            self._space.clear()
            await self._space.wait()
        self._unread += len(results)
        self._results.put_nowait(results)


def _refusal(line: int, status: int, code: str, message: str) -> bytes:
    told = {"line": line, "item_id": None, "status": status, "error": {"code": code, "message": message}}
    return _encode(told) + b"\n"


class LinesResponse(StreamingResponse):
    """A streamed answer beside a body that is still being read; starlette's own would read it, to see its end."""

    media_type = LINES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await self.stream_response(send)
