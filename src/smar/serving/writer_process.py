"""The model worker as a child of the service: started, watched, started again when it dies, ended with it."""

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from smar.errors import InputError

START_SECONDS = 120.0
"""Loading torch, the model and an index of 1 M items takes some seconds; a cold disk takes longer."""
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0
_STEADY_SECONDS = 60.0
"""A worker that lived so long had started well: the next one is started at once again."""
_END_SECONDS = 15.0
_WRONG_INPUT = 2
logger = logging.getLogger("smar.serving")


@contextlib.contextmanager
def private_socket() -> Iterator[Path]:
    """A path for a socket in a temporary folder that only this user may enter; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="smar-"))  # mode 0700
    try:
        yield folder / "writer.sock"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class WriterProcess:
    """``python -m smar.writer`` under watch; a context manager, whose start returns when the worker answers.

    Args:
        index, run: the folders.
        socket: where it listens, see `private_socket`.
        options: more arguments of ``python -m smar.writer``.
        start_seconds: how long loading may take.

    A thread waits for the process. When it dies, the next is started after 0.5 s, 1 s, 2 s, ... 30 s; meanwhile
    `WriterClient` raises WriterDown. The worker ends by itself when this process is gone. It checks no checksums:
    open the index with checks first.
    """

    def __init__(
        self, index: Path, run: Path, socket: Path, options: Sequence[str] = (), start_seconds: float = START_SECONDS
    ) -> None:
        self.socket = socket
        self.starts = 0
        self._command = [
            *(sys.executable, "-m", "smar.writer", str(index), str(run), "--socket", str(socket)),
            *("--parent", str(os.getpid()), "--unchecked", *options),
        ]
        self._start_seconds = start_seconds
        self._ending = threading.Event()
        self._lock = threading.Lock()  # between a start and the end
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher = threading.Thread(target=self._watch, name="writer-watch", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        """Whether the process runs; it may still be loading, see `answers`."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """Of the process that was started last."""
        return None if self._process is None else self._process.pid

    def answers(self) -> bool:
        """Whether it takes connections: it listens only once everything is loaded."""
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(str(self.socket)) == 0

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            InputError: index and run do not go together or are damaged (its message is on stderr), or it does not
                come up in time; it is not started again then.
        """
        self._launch()
        end = time.monotonic() + self._start_seconds
        while not self.answers():
            code = self._process.poll() if self._process else None
            if code is not None or time.monotonic() > end:
                self.stop()
                why = f"ended with exit code {code}" if code is not None else f"took over {self._start_seconds:.0f} s"
                what = "Its message above says why." if code == _WRONG_INPUT else "See its messages above."
                raise InputError(f"the model worker {why} while it was starting. {what}")
            time.sleep(0.05)
        self._watcher.start()

    def stop(self) -> None:
        """End it with SIGTERM, which answers the requests under way first; with SIGKILL when that takes too long."""
        self._ending.set()
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._watcher.is_alive() and self._watcher is not threading.current_thread():
            self._watcher.join()

    def _launch(self) -> None:
        with self._lock:
            if self._ending.is_set():
                return
            # a session of its own: Ctrl-C in the terminal ends the service, which then ends the worker in order
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)
            self.starts += 1

    def _watch(self) -> None:
        failures = 0
        while not self._ending.is_set():
            assert self._process is not None
            started = time.monotonic()
            code = self._process.wait()
            if self._ending.is_set():
                return
            failures = 1 if time.monotonic() - started > _STEADY_SECONDS else failures + 1
            wait = min(_FIRST_WAIT * 2 ** (failures - 1), _LONGEST_WAIT)
            logger.warning("the model worker ended with exit code %s; the next is started in %.1f s", code, wait)
            self._ending.wait(wait)
            self._launch()
