"""`smar serve`: one process that holds the port and keeps the others alive.

It loads nothing of the search itself. Workers inherit the listening socket, map the same index files, and are
started again when they die; requests that wait meanwhile are taken by the others. Should this process be killed, its
children see their end of the connection close, and end, too.
"""

import contextlib
import errno
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from prometheus_client import multiprocess

from smar.errors import InputError
from smar.progress import console
from smar.serving.options import ServiceOptions
from smar.serving.worker import GRACE, WorkerReport, WorkerTask, life_file

logger = logging.getLogger("smar.serving")
_LOOK = 0.1
_STEADY = 10.0
_LONGEST_PAUSE = 30.0
_WRONG_INPUT = 2
_WRITER_PATIENCE = 4
"""Times the patience with a query worker: the model worker's threads encode dozens of pictures at a time."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any free one.

    Raises:
        InputError: the port is in use or not allowed, or the host is not an address of this machine.
    """
    if not 0 <= port <= 65_535:  # the resolver would wrap it around to another port
        raise InputError(f"port {port} does not exist; allowed: 0 (any free one) to 65535. Use --host and --port.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise InputError(f"host {host!r}, port {port} is not an address: {error}. Use --host and --port.") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} of {host} is in use; choose another with --port.") from None
        raise InputError(f"cannot listen on {host}, port {port}: {error}. Use --host and --port.") from None
    return listener


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
    """A process that is kept alive: ``python -m MODULE ...``, its task a line of text on standard input, a socket.

    `inherited` descriptors stay open in it; `metrics` is the folder of its Prometheus files; `life` watches it. At its
    first start it may be `unchecked`: another process has just compared the index with its checksums.
    """

    def __init__(
        self,
        *module: str,
        task: str = "",
        inherited: Sequence[int] = (),
        metrics: Path | None = None,
        life: SignOfLife | None = None,
        unchecked: bool = False,
    ) -> None:
        self.module, self.task, self._unchecked = module, task, unchecked
        self._inherited, self._metrics, self._life = inherited, metrics, life
        self._pause, self._started, self._starts = 0.0, 0.0, 0
        self.process: subprocess.Popen[bytes] | None = None
        self.reports: IO[bytes] | None = None
        self._socket: socket.socket | None = None

    def start(self) -> None:
        """Start it, in a session of its own: Ctrl-C in a terminal is for the supervisor."""
        self._starts += 1
        if self._life is not None:
            self._life.forget()
        ours, theirs = socket.socketpair()
        environment = os.environ | ({} if self._metrics is None else {"PROMETHEUS_MULTIPROC_DIR": str(self._metrics)})
        unchecked = ["--unchecked"] if self._unchecked and self._starts == 1 else []
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.module, *unchecked],
                stdin=theirs.fileno(),
                pass_fds=self._inherited,
                env=environment,
                start_new_session=True,
            )
        ours.sendall(self.task.encode() + b"\n")
        self._socket, self.reports, self._started = ours, ours.makefile("rb"), time.monotonic()

    def look(self) -> None:
        """Start it again when it has died, after a pause that grows while it dies at once; kill it when it hangs."""
        if self.process is None:
            return
        if self.process.poll() is None:
            if self._life is not None and self._life.missing():
                logger.error("%s hangs; it is killed", self.module[0])
                self.process.kill()
            return
        if self._socket is not None:
            self._close()
            steady = time.monotonic() - self._started > _STEADY
            self._pause = 0.0 if steady else min(max(1.0, 2 * self._pause), _LONGEST_PAUSE)
            name, code = self.module[0], self.process.returncode
            logger.error("%s ended with code %d; it starts again in %g s", name, code, self._pause)
            self._started = time.monotonic()
        if time.monotonic() - self._started >= self._pause:
            self.start()

    @property
    def refused(self) -> bool:
        """Whether it has said at its first start that what it was given is wrong."""
        return self._starts == 1 and self.process is not None and self.process.poll() == _WRONG_INPUT

    def _close(self) -> None:
        if self._metrics is not None and self.process is not None:
            multiprocess.mark_process_dead(self.process.pid, str(self._metrics))  # type: ignore[no-untyped-call]
        if self.reports is not None and self._socket is not None:
            self.reports.close()
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


def serve(
    index: Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    options: ServiceOptions | None = None,
    run: Path | None = None,
) -> None:
    """Serve an index until interrupted; with `run`, the run of its model, items and pictures can be encoded, too.

    Raises:
        InputError: the port is in use, or index or run are missing, damaged or of different models.
    """
    options = options or ServiceOptions()
    stop = threading.Event()
    with (
        contextlib.closing(listen(host, port)) as listener,
        tempfile.TemporaryDirectory(prefix="smar-serve-") as shared,
        _signals(stop),
    ):
        (metrics := Path(shared) / "metrics").mkdir()
        options = options.model_copy(update={"shared": Path(shared), "writer": run is not None})
        workers = [_worker(index, options, listener, metrics, number) for number in range(options.workers)]
        writers = [] if run is None else [_writer(index, run, options, metrics)]
        try:
            _run(workers, writers, stop, listener, host)
        finally:
            for child in workers + writers:
                child.stop()
            for child in workers + writers:
                child.wait()


def _worker(index: Path, options: ServiceOptions, listener: socket.socket, metrics: Path, number: int) -> Child:
    # the first one compares every byte with the checksums before the others start: once is enough
    task = WorkerTask(
        index=index,
        descriptor=listener.fileno(),
        number=number,
        options=options,
    )
    assert options.shared is not None  # made by `serve`
    return Child(
        "smar.serving.worker",
        task=task.model_dump_json(),
        inherited=[listener.fileno()],
        metrics=metrics,
        life=SignOfLife(life_file(options.shared, number), options.hang),
        unchecked=number > 0,
    )


def _writer(index: Path, run: Path, options: ServiceOptions, metrics: Path) -> Child:
    assert options.shared is not None
    alive = options.shared / "alive-writer"
    return Child(
        *("smar.writer", str(index), str(run), "--socket", str(options.shared / "writer.sock"), "--alive", str(alive)),
        *("--parent", str(os.getpid()), "--max-body", str(options.upload_bytes)),
        metrics=metrics,
        unchecked=True,
        life=SignOfLife(alive, _WRITER_PATIENCE * options.hang),
    )


def _run(
    workers: Sequence[Child], writers: Sequence[Child], stop: threading.Event, listener: socket.socket, host: str
) -> None:
    first, *others = workers
    first.start()
    assert first.reports is not None
    report = WorkerReport.model_validate_json(first.reports.readline() or '{"error": "a worker ended at once"}')
    if stop.is_set():
        return
    if report.error is not None:
        raise InputError(report.error)
    for child in (*others, *writers):
        child.start()
    url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    console.print(
        f"{report.items:,} items at {url} (documentation: {url}/docs); Ctrl-C ends", markup=False, soft_wrap=True
    )
    while not stop.wait(_LOOK):
        if any(writer.refused for writer in writers):
            raise InputError("the model worker cannot work with this run and index; its message above says why.")
        for child in (*workers, *writers):
            child.look()


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` at SIGINT and SIGTERM."""
    wanted = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in wanted]
    try:
        yield
    finally:
        for number, handler in zip(wanted, before, strict=True):
            signal.signal(number, handler)
