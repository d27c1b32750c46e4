"""Processes beside this one: they end with it, and what memory they hold can be told."""

import ctypes
import multiprocessing
import os
import resource
import sys
import threading
from multiprocessing.connection import wait
from pathlib import Path
from types import TracebackType
from typing import Self

EVERY_SECONDS = 0.01
"""Between two looks at the memory."""


def end_with_parent() -> None:
    """In a worker process of `multiprocessing`: end it as soon as its parent has ended, however that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def resident_bytes() -> int | None:
    """Memory of this process; None where the system does not say."""
    pages = _pages()
    return None if pages is None else pages[0] * os.sysconf("SC_PAGE_SIZE")


def anonymous_bytes() -> int | None:
    """Memory of this process that belongs to no file and is not shared; None where the system does not say."""
    pages = _pages()
    return None if pages is None else (pages[0] - pages[1]) * os.sysconf("SC_PAGE_SIZE")


def _pages() -> tuple[int, int] | None:
    """All pages, and those of files or shared memory."""
    try:
        _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    except (OSError, ValueError):  # not Linux
        return None
    return int(resident), int(shared)


class Heap:
    """Freed memory that the C library keeps goes back to the system, once the process grew by `GROWTH` bytes.

    Tensors are aligned, and before version 2.38 glibc hardly uses a freed aligned block again: the heap of a training
    grows with every step. With a library that has no `malloc_trim` nothing happens.
    """

    GROWTH = 640 << 20

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
        self._used: int | None = None

    def trim(self) -> None:
        """Give back what is free."""
        if self._trim is not None:
            self._trim(0)

    def tidy(self) -> None:
        """Between two steps: give back what is free, if it is more than one step leaves and the next one uses again.

        Not after each step: taking memory anew would cost a fifth of its time.
        """
        if self._used is None:
            self.trim()
            self._used = anonymous_bytes() or 0
        elif (anonymous_bytes() or 0) - self._used > self.GROWTH:
            self.trim()


class PeakMemory:
    """The most memory that this process held in a `with` block, in bytes.

    Mapped files are left out (`anonymous` memory): their pages are the system's, which takes them back when others need
    the room. It is looked at every hundredth of a second. Where the system does not tell them apart (not Linux), it is
    the most the process ever held, files included.

    Example:
        >>> with PeakMemory() as peak:
        ...     numbers = bytearray(100 << 20)
        >>> peak.bytes > 100 << 20
        True
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._end = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._see()
        self._watch.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._watch.join()
        self._see()

    def _look(self) -> None:
        while not self._end.wait(EVERY_SECONDS):
            self._see()

    def _see(self) -> None:
        if (now := anonymous_bytes()) is not None:
            self.bytes = max(self.bytes, now)
        else:
            unit = 1 if sys.platform == "darwin" else 1024
            self.bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
