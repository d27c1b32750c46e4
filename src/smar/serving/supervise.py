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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from smar.core.errors import InputError
from smar.core.progress import console
from smar.serving.child import Child, SignOfLife
from smar.serving.children import WriterTask
from smar.serving.options import DEFAULT, ServiceOptions, check_names
from smar.serving.worker import WorkerTask, index_folder, life_file

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
    indexes: Path | str | Mapping[str, Path | str],
    host: str = "127.0.0.1",
    port: int = 8080,
    options: ServiceOptions | None = None,
    runs: Path | Mapping[str, Path] | None = None,
    device: str = "auto",
    folder: Path | None = None,
    encode: bool = False,
) -> None:
    """Serve an index, or several by name, until interrupted; the first one answers what names none.

    An index is a folder or an engine's URL; `folder` and `encode` as of `WorkerTask`. With `runs`, that of an index's
    model, its items and pictures can be encoded, too; `device` (`auto`, `cpu` or `cuda`) encodes them.

    Raises:
        InputError: the port is in use, or an index or run is missing, damaged or of another model, or has no name.
    """
    options = options or ServiceOptions()
    indexes = {DEFAULT: indexes} if isinstance(indexes, Path | str) else indexes
    runs = {next(iter(indexes)): runs} if isinstance(runs, Path) else runs or {}
    check_names(list(indexes), runs, options)
    stop = threading.Event()
    with (
        contextlib.closing(listen(host, port)) as listener,
        tempfile.TemporaryDirectory(prefix="smar-serve-") as shared,
        _signals(stop),
    ):
        (metrics := Path(shared) / "metrics").mkdir()
        options = options.model_copy(update={"shared": Path(shared)})
        task = WorkerTask(
            indexes={name: str(index) for name, index in indexes.items()},
            folder=folder,
            encode=encode,
            writable=tuple(runs),
            descriptor=listener.fileno(),
            options=options,
        )
        for name in indexes:
            index_folder(Path(shared), name).mkdir()
        workers = [_worker(task, metrics, number) for number in range(options.workers)]
        writers = [_writer(name, Path(indexes[name]), run, device, options, metrics) for name, run in runs.items()]
        try:
            _run(workers, writers, stop, listener, host, list(indexes))
        finally:
            for child in workers + writers:
                child.stop()
            for child in workers + writers:
                child.wait()


def _worker(task: WorkerTask, metrics: Path, number: int) -> Child:
    # the first one compares every byte with the checksums before the others start: once is enough
    assert task.options.shared is not None  # made by `serve`
    return Child(
        "smar.serving.worker",
        task.model_copy(update={"number": number}),
        inherited=[task.descriptor],
        metrics=metrics,
        life=SignOfLife(life_file(task.options.shared, number), task.options.hang),
        unchecked=number > 0,
    )


def _writer(name: str, index: Path, run: Path, device: str, options: ServiceOptions, metrics: Path) -> Child:
    assert options.shared is not None
    folder = index_folder(options.shared, name)
    alive, socket = folder / "alive-writer", folder / "writer.sock"
    task = WriterTask(index=index, run=run, socket=socket, alive=alive, device=device, max_body=options.upload_bytes)
    life = SignOfLife(alive, _WRITER_PATIENCE * options.hang)
    return Child("smar.serving.writer", task, metrics=metrics, life=life, unchecked=True)


def _run(
    workers: Sequence[Child],
    writers: Sequence[Child],
    stop: threading.Event,
    listener: socket.socket,
    host: str,
    names: Sequence[str],
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
    of = f" of {', '.join(names)}" if len(names) > 1 else ""
    console.print(
        f"{report.items:,} items{of} at {url} (documentation: {url}/docs); Ctrl-C ends", markup=False, soft_wrap=True
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
