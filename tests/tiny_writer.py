"""The model worker as a process of its own, on a copy of the test line's index."""

import asyncio
import base64
import contextlib
import io
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import yaml
from PIL import Image

from smar.index.live import UpdatableIndex
from smar.serving.writer_client import WriterAnswer, WriterClient, WriterDown
from smar.serving.writer_process import WriterProcess, private_socket
from tiny_line import Line

T = TypeVar("T")
PATIENCE = 60
"""Seconds after which something counts as never happening."""


def float32_run(line: Line, folder: Path, **data: object) -> Path:
    """The line's run without bfloat16, whose rounding depends on what else is in the batch."""
    run = line.copy("run", folder)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["train"]["bf16"] = False
    config["data"] |= data
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


@contextlib.contextmanager
def writer(index: Path, run: Path, *options: object) -> Iterator[WriterProcess]:
    with (
        private_socket() as socket,
        WriterProcess(index, run, socket, [str(option) for option in options]) as process,
    ):
        yield process


def ask(process: WriterProcess, call: Callable[[WriterClient], Awaitable[T]]) -> T:
    """Run one coroutine with a client of the worker."""

    async def run() -> T:
        async with WriterClient(process.socket) as client:
            return await call(client)

    return asyncio.run(run())


def put(process: WriterProcess, item_id: str, pictures: "bytes | list[bytes]" = b"", **columns: object) -> WriterAnswer:
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


def stats(process: WriterProcess) -> dict:
    return ask(process, lambda client: client.stats()).json()


def becomes(condition: Callable[[], object]) -> bool:
    end = time.monotonic() + PATIENCE
    while True:
        with contextlib.suppress(WriterDown):
            if condition():
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.02)


def png(colour: str = "red", size: tuple[int, int] = (60, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(index: UpdatableIndex, item_id: str) -> dict | None:
    """An item's columns as the index gives them, None when there is no such item."""
    catalogue = index.snapshot.catalogue
    at = catalogue.row_of(item_id)
    return None if at is None else catalogue.items([at])[0]
