"""The service follows its index: updates and new versions are searched within a second, without a restart."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from smar.progress import console
from smar.serving.engine import Engine

INTERVAL = 0.25
"""Seconds between looks at the index folder; one look takes some microseconds."""


async def follow(engine: Engine, interval: float = INTERVAL) -> None:
    """Take in what other processes change, for ever. What is damaged is said once; the old index goes on answering."""
    said = ""
    while True:
        await asyncio.sleep(interval)
        try:
            # in a thread: opening a new version reads all of it, and searches go on meanwhile
            await asyncio.to_thread(engine.refresh)
            said = ""
        except Exception as error:  # a full disk, a folder that is gone: nothing may end the service
            if (told := f"{type(error).__name__}: {error}") != said:
                said = told
                console.print(f"the index changed and cannot be read, the old one stays: {said}", markup=False)


@contextlib.asynccontextmanager
async def following(engine: Engine) -> AsyncIterator[None]:
    """Follow while the application runs."""
    task = asyncio.create_task(follow(engine))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
