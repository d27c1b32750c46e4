"""Events of one worker on their way to disk: written together some times a second, durable before anybody is told.

What is handed over while a write is under way waits for the next one, so that a flush to disk (fsync) is shared by all
who wait for it. The loop itself never touches the disk.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from smar.core.files import sync_folder
from smar.data.journals import lock, new_journal, recover, seal
from smar.serving.batcher import Busy
from smar.serving.prometheus import EVENTS, count

PAUSE = 0.02
"""Seconds between two writes: how long an answer to an event may wait for company."""
MOST_WAITING = 8 << 20
"""Bytes that wait for a disk which does not keep up; then 429."""
Lines = bytes | Callable[[], bytes]
"""Whole lines, or what makes them, which then takes no time of who hands them over."""
_LINE = 500  # bytes, of lines that are not made yet
logger = logging.getLogger("smar.events")


class Journal:
    """The journal of a worker: begun with the first line, sealed when it has `size` bytes or is `age` seconds old."""

    def __init__(self, folder: Path, size: int, age: float) -> None:
        self._folder, self._size, self._age = folder, size, age
        self._waiting: list[tuple[Lines, asyncio.Future[None] | None]] = []
        self._bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._sealing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._file: int | None = None
        self._path, self._length, self._begun = folder, 0, 0.0

    async def append(self, lines: bytes) -> None:
        """Return when the lines survive the death of the process and a loss of power.

        Raises:
            Busy: too much waits already.
            OSError: they could not be written; none of them is there.
        """
        if self._bytes > MOST_WAITING:
            raise Busy
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._hand_over(lines, done)
        await done

    def note(self, make: Callable[[], bytes]) -> None:
        """Write lines with the next ones; nobody waits for them, and where they cannot be written they are counted."""
        if self._bytes > MOST_WAITING:
            count(EVENTS, "lost")
        else:
            self._hand_over(make, None)

    def _hand_over(self, lines: Lines, done: "asyncio.Future[None] | None") -> None:
        self._waiting.append((lines, done))
        self._bytes += len(lines) if isinstance(lines, bytes) else _LINE
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._waiting:
            await asyncio.sleep(PAUSE)
            some, self._waiting, self._bytes = self._waiting, [], 0
            try:
                await asyncio.to_thread(self._write, [lines for lines, _ in some])
            except Exception as error:
                logger.error("events cannot be written: %s", error)
                for _, done in some:
                    if done is None:
                        count(EVENTS, "lost")
                    elif not done.done():
                        done.set_exception(error)
                continue
            for _, done in some:
                if done is not None and not done.done():  # else whoever sent it has gone
                    done.set_result(None)
            self._look()

    def _write(self, some: list[Lines]) -> None:
        content = b"".join(lines if isinstance(lines, bytes) else lines() for lines in some)
        if self._file is None:
            self._begin()
        assert self._file is not None
        try:
            written = 0
            while written < len(content):
                written += os.write(self._file, content[written:])
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._length)
            raise
        self._length += len(content)

    def _begin(self) -> None:
        path = new_journal(self._folder)
        fresh = path.with_name(f".{path.name}.partial")
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        lock(file)  # before it has its name: another process would take it for one that was left
        fresh.rename(path)
        sync_folder(self._folder)
        self._file, self._path, self._length, self._begun = file, path, 0, time.monotonic()

    def _look(self) -> None:
        """Seal a journal that is large or old, now or when it will be."""
        if self._file is None:
            return
        left = self._age - (time.monotonic() - self._begun)
        if self._length >= self._size or left <= 0:
            task = asyncio.create_task(asyncio.to_thread(self._seal, *self._let_go()))
            self._sealing.add(task)
            task.add_done_callback(self._sealing.discard)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(left, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._writer is None or self._writer.done():  # else it looks by itself
            self._look()

    def _let_go(self) -> tuple[int, Path]:
        assert self._file is not None
        file, self._file = self._file, None
        return file, self._path

    def _seal(self, file: int, path: Path) -> None:
        try:
            seal(path)
        except Exception as error:  # a full disk: it is sealed at the next start
            logger.error("%s stays a journal: %s", path, error)
        finally:
            os.close(file)

    async def recover(self) -> None:
        """Seal what processes left that were killed."""
        try:
            if found := await asyncio.to_thread(recover, self._folder):
                logger.info("%d journals of processes that had ended are in parts now", found)
        except Exception as error:
            logger.error("journals of processes that had ended stay as they are: %s", error)

    async def close(self) -> None:
        """Write and seal what there is."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writer is not None:
            await self._writer
        if self._file is not None:
            await asyncio.to_thread(self._seal, *self._let_go())
        await asyncio.gather(*self._sealing)
