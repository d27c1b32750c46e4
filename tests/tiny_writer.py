"""The model worker as a process of its own, on a copy of the test line's index."""

import asyncio
import base64
import contextlib
import io
import json
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from PIL import Image

import tiny_service
from smar.search.local.live import UpdatableIndex
from smar.serving.child import Child
from smar.serving.children import WriterTask
from smar.serving.writer_client import WriterAnswer, WriterClient, WriterDown
from tiny_line import Line

T = TypeVar("T")
PATIENCE = 180
"""Seconds after which something counts as never happening."""


def run_with(line: Line, folder: Path, **data: object) -> Path:
    """The line's run with other settings of the data."""
    run = line.copy("run", folder)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["data"] |= data
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


@dataclass(frozen=True)
class Writer:
    """A model worker as `smar serve` keeps it, and where it listens."""

    child: Child
    socket: Path

    @property
    def pid(self) -> int:
        assert self.child.process is not None
        return self.child.process.pid

    @property
    def alive(self) -> bool:
        return self.child.process is not None and self.child.process.poll() is None

    def answers(self) -> bool:
        """Whether it takes connections: it listens only once everything is loaded."""
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            return probe.connect_ex(str(self.socket)) == 0


def new_writer(index: Path, run: Path, folder: str, **limits: Any) -> Writer:
    """A worker that is not started yet; `folder` is a short path, as a socket's has 107 bytes at most."""
    path = Path(folder) / "writer.sock"
    return Writer(
        Child("smar.serving.writer", WriterTask(index=index, run=run, socket=path, **limits), unchecked=True), path
    )


@contextlib.contextmanager
def writer(index: Path, run: Path, **limits: Any) -> Iterator[Writer]:
    """A worker that has loaded everything, ended at the end."""
    with tempfile.TemporaryDirectory(prefix="smar-") as folder:
        process = new_writer(index, run, folder, **limits)
        process.child.start()
        try:
            assert becomes(lambda: process.answers() or not process.alive)
            assert process.alive
            yield process
        finally:
            process.child.stop()
            process.child.wait()


def ask(process: Writer, call: Callable[[WriterClient], Awaitable[T]]) -> T:
    """Run one coroutine with a client of the worker."""

    async def run() -> T:
        async with WriterClient(process.socket) as client:
            return await call(client)

    return asyncio.run(run())


def put(process: Writer, item_id: str, pictures: "bytes | list[bytes]" = b"", **columns: object) -> WriterAnswer:
    return ask(process, lambda client: put_json(client, item_id, pictures, **columns))


async def put_json(
    client: WriterClient, item_id: str, pictures: "bytes | list[bytes]" = b"", **columns: object
) -> WriterAnswer:
    body = dict(columns)
    if isinstance(pictures, list):
        body["picture"] = [base64.b64encode(one).decode() for one in pictures]
    elif pictures:
        body["picture"] = base64.b64encode(pictures).decode()
    return await client.put(item_id, "application/json", json.dumps(body).encode())


def stats(process: Writer) -> dict:
    return ask(process, lambda client: client.stats()).json()


def becomes(condition: Callable[[], object]) -> bool:
    """As for the service; a worker that is not there is no answer yet."""

    def holds() -> object:
        with contextlib.suppress(WriterDown):
            return condition()
        return False

    return tiny_service.becomes(holds, PATIENCE)


def png(colour: str = "red", size: tuple[int, int] = (60, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(index: UpdatableIndex, item_id: str) -> dict | None:
    """An item's columns as the index gives them, None when there is no such item."""
    catalogue = index.snapshot.catalogue
    at = catalogue.row_of(item_id)
    return None if at is None else catalogue.items([at])[0]
