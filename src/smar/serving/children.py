"""The children of `smar serve` and what they say to their supervisor: one protocol for all of them.

A child's standard input is a socket. From there it reads one line of JSON, its task; there it writes one, `Report`,
when it is ready or why it cannot be; and when the other end closes, whatever that process died of, it ends, too.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn, TypeVar

from pydantic import BaseModel

GRACE = 5
"""Seconds that requests under way have when a child is told to end."""
UNCHECKED = "--unchecked"
"""Another process has just compared the index with its checksums."""
AGAIN = "--again"
"""It was started before: what cannot be read now was whole then, and may be so again."""
Task = TypeVar("Task", bound=BaseModel)


class WriterTask(BaseModel):
    """What the model worker is to do; where a limit is None it takes its own. `alive` is touched every second."""

    index: Path
    run: Path
    socket: Path
    alive: Path | None = None
    device: str = "auto"
    max_body: int | None = None
    max_waiting: int | None = None
    compact_after: int | None = None
    retry: float = 10.0


class Report(BaseModel):
    """A child's first and only words: how many items it has, or why it cannot work."""

    items: int = 0
    error: str | None = None


class Supervisor:
    """The process that started this one, seen from here; it is watched from the start."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=os.dup(sys.stdin.fileno()))
        self._task = self._socket.makefile("rb").readline()
        threading.Thread(target=self._end_with, daemon=True).start()

    def task(self, kind: type[Task]) -> Task:
        """What this process is to do."""
        return kind.model_validate_json(self._task)

    def ready(self, items: int) -> None:
        """Say that work begins."""
        self._say(Report(items=items))

    def refuse(self, error: Exception | str) -> NoReturn:
        """Say why there is nothing to be done, and end with code 2."""
        self._say(Report(error=str(error)))
        sys.exit(2)

    def _say(self, report: Report) -> None:
        with contextlib.suppress(OSError):  # it has gone: `_end_with` ends this process, too
            self._socket.sendall(report.model_dump_json().encode() + b"\n")

    def _end_with(self) -> None:
        """A process without supervisor would hold the port for ever."""
        with contextlib.suppress(OSError):  # it went without having read what was said
            self._socket.recv(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE + 5)
        os._exit(1)
