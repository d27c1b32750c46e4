"""`smar serve`: one process that holds the port and keeps the others alive.

It loads nothing of the search itself. Workers inherit the listening socket, map the same index files, and are
started again when they die; requests that wait meanwhile are taken by the others. Should this process be killed, its
children end, too (`smar.serving.children`).
"""

import contextlib
import errno
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from smar.core.errors import InputError
from smar.core.progress import console
from smar.serving.child import Child, SignOfLife
from smar.serving.children import WriterTask
from smar.serving.options import ServiceOptions
from smar.serving.worker import WorkerTask, life_file

_LOOK = 0.1
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


def serve(
    index: Path | str,
    host: str = "127.0.0.1",
    port: int = 8080,
    options: ServiceOptions | None = None,
    run: Path | None = None,
    device: str = "auto",
    folder: Path | None = None,
    encode: bool = False,
) -> None:
    """Serve an index until interrupted; with `run`, the run of its model, items and pictures can be encoded, too.

    `index` is a folder or an engine's URL; `folder` and `encode` as of `WorkerTask`.

    `device` (`auto`, `cpu` or `cuda`) encodes them.

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
        task = WorkerTask(index=str(index), descriptor=listener.fileno(), options=options, folder=folder, encode=encode)
        workers = [_worker(task.model_copy(update={"number": number}), metrics) for number in range(options.workers)]
        writers = [] if run is None else [_writer(Path(index), run, device, options, metrics)]
        try:
            _run(workers, writers, stop, listener, host)
        finally:
            for child in workers + writers:
                child.stop()
            for child in workers + writers:
                child.wait()


def _worker(task: WorkerTask, metrics: Path) -> Child:
    # the first one compares every byte with the checksums before the others start: once is enough
    options, number = task.options, task.number
    assert options.shared is not None  # made by `serve`
    return Child(
        "smar.serving.worker",
        task,
        inherited=[task.descriptor],
        metrics=metrics,
        life=SignOfLife(life_file(options.shared, number), options.hang),
        unchecked=number > 0,
    )


def _writer(index: Path, run: Path, device: str, options: ServiceOptions, metrics: Path) -> Child:
    assert options.shared is not None
    alive, socket = options.shared / "alive-writer", options.shared / "writer.sock"
    task = WriterTask(index=index, run=run, socket=socket, alive=alive, device=device, max_body=options.upload_bytes)
    life = SignOfLife(alive, _WRITER_PATIENCE * options.hang)
    return Child("smar.serving.writer", task, metrics=metrics, life=life, unchecked=True)


def _run(
    workers: Sequence[Child], writers: Sequence[Child], stop: threading.Event, listener: socket.socket, host: str
) -> None:
    first, *others = workers
    first.start()
    report = first.report()
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
        for child in (*workers, *writers):
            child.look()
        for writer in writers:
            if writer.refusal is not None:
                raise InputError(writer.refusal)


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
