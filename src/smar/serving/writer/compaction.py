"""Compaction in the background: a child process of low priority, one at a time, tried again when it fails."""

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

NICENESS = 5
"""A quarter of a core beside a busy process of usual priority; with 15 it would be a thirtieth."""
LOOK_SECONDS = 5.0
"""How often the index is looked at when nothing is written here: other processes may change it, too."""
_LONGEST_WAIT = 600.0
logger = logging.getLogger("smar.serving.writer")


@dataclass(slots=True)
class CompactionState:
    """What `GET /stats` tells; times are Unix seconds."""

    running: bool = False
    done: int = 0
    failed: int = 0
    last: float | None = None
    """When the last one succeeded."""
    seconds: float | None = None
    """How long that took."""
    error: str | None = None
    """Of the last attempt, None when it succeeded."""


@dataclass(slots=True)
class Compactor:
    """Compacts `folder` whenever `needed` says so.

    `needed` takes in what other processes have written and looks; it is awaited after each `wake` and now and then.
    """

    folder: str
    needed: Callable[[], Awaitable[bool]]
    retry: float = 10.0
    """Seconds to wait after a failure; doubles with each in a row."""
    state: CompactionState = field(default_factory=CompactionState)
    _event: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Something was written."""
        self._event.set()

    async def run(self) -> None:
        """Look and compact for ever."""
        in_a_row = 0
        while True:
            try:
                if await self.needed():
                    in_a_row = 0 if await self._compact() else in_a_row + 1
                    if in_a_row:
                        await asyncio.sleep(min(self.retry * 2 ** (in_a_row - 1), _LONGEST_WAIT))
                    continue  # an index that cannot be compacted is tried again even when nothing is written
            except Exception as error:
                self.state.failed += 1
                self.state.error = f"{type(error).__name__}: {error}"
                logger.exception("the index could not be looked at")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):  # wait_for of Python 3.11 can lose the task's cancellation
                    await self._event.wait()
            self._event.clear()

    async def _compact(self) -> bool:
        state, started = self.state, time.monotonic()
        command = (sys.executable, "-m", "smar", "index", self.folder, "--compact")
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL, stderr=pipe)
        state.running = True
        try:
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
            _, said = await child.communicate()
        finally:
            state.running = False
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.terminate()
                await child.communicate()  # its pipe would outlive the event loop
        if child.returncode == 0:
            state.done, state.last, state.error = state.done + 1, time.time(), None
            state.seconds = time.monotonic() - started
            logger.info("compacted in %.1f s", state.seconds)
            return True
        state.failed += 1
        state.error = said.decode("utf-8", "replace").strip()[-500:] or f"exit code {child.returncode}"
        logger.warning("compaction failed and is tried again: %s", state.error)
        return False
