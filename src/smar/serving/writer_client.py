"""The query workers' way to the model worker: HTTP over a UNIX domain socket. Loads no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from smar.serving.options import ServiceOptions

_CONNECT_SECONDS = 2.0
ANSWER_SECONDS = 60.0
"""A batch of 64 items with pictures on one slow core; a compaction does not hold answers up."""
RETRY_SECONDS = 2


class WriterDown(Exception):
    """The model worker is not there or did not answer in time: answer 503 with Retry-After `RETRY_SECONDS`.

    Whether a change was made is unknown; all requests may be sent again.
    """


@dataclass(frozen=True, slots=True)
class WriterAnswer:
    """An answer to pass on: JSON bytes, and Retry-After where there is one (429)."""

    status: int
    body: bytes
    retry_after: str | None = None

    def json(self) -> dict[str, Any]:
        """The body as an object."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(frozen=True, slots=True)
class PictureVector:
    """What a picture is searched with: a unit vector float32 [k] of the model `fingerprint`."""

    embedding: npt.NDArray[np.float32]
    fingerprint: str

    @classmethod
    def of(cls, answer: WriterAnswer) -> "PictureVector":
        """From an answer of `WriterClient.encode_picture` with status 200."""
        found = answer.json()
        return cls(np.asarray(found["embedding"], np.float32), found["fingerprint"])


class WriterClient:
    """Asynchronous client of one model worker, for one event loop; an async context manager, or call `aclose`.

    Every request has a connection of its own: to a local socket that costs little, and none is left over from a
    worker that died.
    """

    def __init__(self, socket: Path, answer_seconds: float = ANSWER_SECONDS) -> None:
        import httpx  # a tenth of a worker's start; most services have no model worker

        transport = httpx.AsyncHTTPTransport(
            uds=str(socket), limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )
        timeout = httpx.Timeout(answer_seconds, connect=_CONNECT_SECONDS)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://writer", timeout=timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def put(self, item_id: str, content_type: str, body: bytes) -> WriterAnswer:
        """Write an item from a JSON or multipart body; see docs/serving.md. Raises WriterDown."""
        return await self._ask("PUT", item_path(item_id), body, content_type)

    async def delete(self, item_id: str) -> WriterAnswer:
        """Delete an item. Raises WriterDown."""
        return await self._ask("DELETE", item_path(item_id))

    async def bulk(self, action: str, lines: bytes, first: int = 1) -> WriterAnswer:
        """Make the changes of JSON lines: status 200 and a result a line, or a refusal of all. Raises WriterDown."""
        path = f"/v1/items/bulk?action={action}&first={first}"
        return await self._ask("POST", path, lines, "application/x-ndjson")

    async def encode_picture(self, picture: bytes) -> WriterAnswer:
        """The vector of an encoded picture: status 200 for `PictureVector.of`, else a refusal. Raises WriterDown."""
        return await self._ask("POST", "/v1/encode/picture", picture, "application/octet-stream")

    async def health(self) -> WriterAnswer:
        """Whether it is up, and under ``writes`` why nothing can be written now. Raises WriterDown."""
        return await self._ask("GET", "/healthz")

    async def stats(self) -> WriterAnswer:
        """Figures of the worker: written, waiting, memory, compaction. Raises WriterDown."""
        return await self._ask("GET", "/stats")

    async def _ask(
        self, method: str, path: str, body: bytes | None = None, content_type: str | None = None
    ) -> WriterAnswer:
        from httpx import ConnectError, TransportError

        # as bytes, whatever the client sent: httpx would refuse letters beyond ASCII
        headers = {} if content_type is None else {b"Content-Type": content_type.encode("latin-1")}
        try:
            answer = await self._client.request(method, path, content=body, headers=headers)
        except ConnectError as error:
            raise WriterDown("the model worker does not answer: it is starting; try again shortly") from error
        except TransportError as error:
            raise WriterDown(f"the model worker does not answer ({type(error).__name__}: {error})") from error
        return WriterAnswer(answer.status_code, answer.content, answer.headers.get("Retry-After"))


def writer_client(options: ServiceOptions) -> WriterClient | None:
    """A client of the service's model worker, None where it has none."""
    return WriterClient(options.shared / "writer.sock") if options.writer and options.shared is not None else None


def item_path(item_id: str) -> str:
    """Address of an item whose id may hold any character; dots too are escaped, as "." and ".." would be resolved."""
    return "/v1/items/" + quote(item_id, safe="").replace(".", "%2E")
