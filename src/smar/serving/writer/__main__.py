"""``python -m smar.serving.writer``: the model worker as a process; `smar serve` starts it."""

import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import uvicorn

from smar.core.errors import InputError
from smar.core.logs import configure_logs
from smar.serving.children import AGAIN, GRACE, UNCHECKED, Supervisor, WriterTask
from smar.serving.writer.upload import MAX_BODY, MAX_WAITING, Admission

T = TypeVar("T")
_LOOK_SECONDS = 0.25


def bind(path: Path) -> socket.socket:
    """A listening socket that only this user may connect to; raises InputError when it cannot be made."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)  # of a worker that was killed
        listener.bind(str(path))
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise InputError(f"the socket {path} cannot be made: {error}. Give a short path in your own folder.") from None
    finally:
        os.umask(before)
    return listener


def _patiently(opened: Callable[[], T], folder: Path) -> T:
    """Open what was whole once until it is whole again: an index that a hand changes."""
    from smar.search.local import Attempts

    attempts = Attempts(folder)
    while True:
        if attempts.due():
            try:
                return opened()
            except InputError as error:
                logging.getLogger("smar.serving.writer").error("nothing can be written: %s", error)
        time.sleep(_LOOK_SECONDS)


def main() -> int:
    """Load, then serve until SIGTERM or the supervisor's end; exit code 2 when index, run or socket are wrong."""
    supervisor = Supervisor()
    task = supervisor.task(WriterTask)
    configure_logs()
    logging.getLogger("smar").setLevel(logging.INFO)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads would take the cores
    from smar.search.local import DELTA_LIMIT
    from smar.serving.writer.service import open_worker
    from smar.serving.writer.worker_app import MakeWorker, create_app

    after = DELTA_LIMIT if task.compact_after is None else task.compact_after
    alive = (lambda: None) if task.alive is None else task.alive.touch

    def opened() -> MakeWorker:
        return open_worker(task.index, task.run, UNCHECKED not in sys.argv, after, task.retry, alive, task.device)

    try:
        make = _patiently(opened, task.index) if AGAIN in sys.argv else opened()
        listener = bind(task.socket)
    except InputError as error:
        supervisor.refuse(error)
    app = create_app(make, Admission(task.max_body or MAX_BODY, task.max_waiting or MAX_WAITING))
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE)
    supervisor.ready(0)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
