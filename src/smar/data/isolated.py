"""Pictures decoded in a process of its own: whatever one does to its decoder, nobody else is harmed.

Damaged bytes can crash a decoder, and made ones can keep it busy for hours. A decoder that dies of a picture or works
longer than `ImageOptions.seconds` is started again for the next one, and that picture is `corrupt`, each time it comes.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from smar.core.processes import end_with_parent
from smar.data.images import Decoded, ImageOptions, decode


@contextmanager
def cpu_limit(seconds: int) -> Iterator[None]:
    """End this process when it computes for longer; a busy machine takes nothing from it."""
    signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process, even within a decoder
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class IsolatedDecoder:
    """As `smar.data.images.decode`, for one thread. The process starts with the first picture; `nice` is its niceness.

    Example:
        >>> decoder = IsolatedDecoder()
        >>> decoder.decode(b"not a picture", ImageOptions(64, "pad", 0, 1000, 1000)).status
        'not_an_image'
        >>> decoder.close()
    """

    def __init__(self, nice: int = 0) -> None:
        self._nice = nice
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def decode(self, data: bytes, options: ImageOptions) -> Decoded:
        """Decode one picture. Never raises: whatever is wrong becomes a status and a reason."""
        process, pipe = self._started()
        try:
            pipe.send((data, options))
            found: Decoded = pipe.recv()
        except (EOFError, OSError):
            process.join()
            slow = process.exitcode == -signal.SIGPROF
            self.close()
            reason = f"decoding it takes more than {options.seconds} CPU seconds" if slow else "it ends its decoder"
            return Decoded("corrupt", reason)
        return found

    def _started(self) -> tuple[SpawnProcess, Connection]:
        if self._process is None or self._pipe is None or not self._process.is_alive():
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_work, args=(theirs, self._nice), daemon=True)
            self._process.start()
            theirs.close()
        return self._process, self._pipe

    def close(self) -> None:
        """End the process, whatever it is at."""
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


def _work(pipe: Connection, nice: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    os.nice(nice)
    while True:
        try:
            data, options = pipe.recv()
        except EOFError:
            return
        with cpu_limit(options.seconds):
            found = decode(data, options)
        pipe.send(found)
