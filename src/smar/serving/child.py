"""A process that the supervisor keeps alive: started, watched, started again. `children` is its own side of it."""

import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import multiprocess
from pydantic import BaseModel

from smar.serving.children import AGAIN, GRACE, UNCHECKED, Report

_STEADY = 10.0
_LONGEST_PAUSE = 30.0
logger = logging.getLogger("smar.serving")


class SignOfLife:
    """A file that a process touches every second; before the first time it may start as slowly as it likes."""

    def __init__(self, file: Path, patience: float) -> None:
        self._file, self._patience = file, patience
        self._last, self._since = 0, 0.0

    def forget(self) -> None:
        """Another process will touch it."""
        self._file.unlink(missing_ok=True)

    def missing(self) -> bool:
        """Whether nothing has come for `patience` seconds by this process's own clock: the file's may be set."""
        try:
            last = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        now = time.monotonic()
        if last != self._last:
            self._last, self._since = last, now
        return now - self._since > self._patience


class Child:
    """``python -m MODULE``, with its task and its words on a socket that is its standard input.

    `inherited` descriptors stay open in it; `metrics` is the folder of its Prometheus files; `life` watches it. At its
    first start it may be `unchecked`: another process has just compared the index with its checksums.
    """

    def __init__(
        self,
        module: str,
        task: BaseModel,
        inherited: Sequence[int] = (),
        metrics: Path | None = None,
        life: SignOfLife | None = None,
        unchecked: bool = False,
    ) -> None:
        self.module, self.task, self._unchecked = module, task, unchecked
        self._inherited, self._metrics, self._life = inherited, metrics, life
        self._pause, self._started, self._starts = 0.0, 0.0, 0
        self.process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._said = b""

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C in a terminal is for the supervisor."""
        self._starts += 1
        if self._life is not None:
            self._life.forget()
        ours, theirs = socket.socketpair()
        environment = os.environ | ({} if self._metrics is None else {"PROMETHEUS_MULTIPROC_DIR": str(self._metrics)})
        how = [AGAIN] if self._starts > 1 else [UNCHECKED] if self._unchecked else []
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", self.module, *how],
                stdin=theirs.fileno(),
                pass_fds=self._inherited,
                env=environment,
                start_new_session=True,
            )
        ours.sendall(self.task.model_dump_json().encode() + b"\n")
        self._socket, self._said, self._started = ours, b"", time.monotonic()

    def report(self) -> Report:
        """What it says when it is ready or cannot be; waits for it."""
        while b"\n" not in self._said and self._hear(wait=True):
            pass
        return self._report() or Report(error=f"{self.module} ended at once; its message above says why.")

    def look(self) -> None:
        """Start it again when it has died, after a pause that grows while it dies at once; kill it when it hangs."""
        if self.process is None:
            return
        while self._hear():  # what is not read would be lost to it and to us when this process is killed
            pass
        if self.process.poll() is None:
            if self._life is not None and self._life.missing():
                logger.error("%s hangs; it is killed", self.module)
                self.process.kill()
            return
        if self._socket is not None:
            self._close()
            steady = time.monotonic() - self._started > _STEADY
            self._pause = 0.0 if steady else min(max(1.0, 2 * self._pause), _LONGEST_PAUSE)
            said = "" if (report := self._report()) is None or report.error is None else f" ({report.error})"
            code = self.process.returncode
            logger.error("%s ended with code %d%s; it starts again in %g s", self.module, code, said, self._pause)
            self._started = time.monotonic()
        if time.monotonic() - self._started >= self._pause:
            self.start()

    @property
    def refusal(self) -> str | None:
        """Why it cannot work with what it was given, if it has said so at its first start."""
        report = self._report() if self._starts == 1 else None
        return None if report is None else report.error

    def _report(self) -> Report | None:
        line, ended, _ = self._said.partition(b"\n")
        return Report.model_validate_json(line) if ended else None

    def _hear(self, wait: bool = False) -> bool:
        """Take in what it says; whether there was anything."""
        if self._socket is None:
            return False
        with contextlib.suppress(BlockingIOError, ConnectionError):
            part = self._socket.recv(4096, 0 if wait else socket.MSG_DONTWAIT)
            self._said += part
            return bool(part)
        return False

    def _close(self) -> None:
        if self._metrics is not None and self.process is not None:
            multiprocess.mark_process_dead(self.process.pid, str(self._metrics))  # type: ignore[no-untyped-call]
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def stop(self) -> None:
        """Ask it to end."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()

    def wait(self) -> None:
        """Wait until it has ended; kill it when it takes too long."""
        if self.process is None:
            return
        try:
            self.process.wait(GRACE + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._close()
