"""``python -m smar.writer INDEX RUN --socket PATH``: the model worker as a process; `smar serve` starts it."""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn

from smar.errors import InputError
from smar.logs import configure_logs
from smar.writer.upload import MAX_BODY, MAX_WAITING, Admission

_GRACE = 5
"""Seconds for requests under way when the process is to end."""

_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # waiting threads would take the cores
    # Kernels kept, one a shape, and every batch has its own: 1024 (the default) came to 350 MB, 64 to 80 MB.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "LRU_CACHE_CAPACITY": "64",
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m smar.writer", description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--socket", type=Path, required=True, help="UNIX domain socket; replaced when it exists")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process is no longer the parent")
    parser.add_argument("--alive", type=Path, metavar="FILE", help="touched every second as long as all goes on")
    parser.add_argument("--unchecked", action="store_true", help="another process has just compared the checksums")
    parser.add_argument("--max-waiting", type=int, default=MAX_WAITING, help="changes that may wait (then 429)")
    parser.add_argument("--max-body", type=int, default=MAX_BODY, help="bytes of a request (then 413)")
    parser.add_argument("--compact-after", type=int, metavar="N", help="changed items")
    parser.add_argument("--retry", type=float, default=10.0, metavar="SECONDS", help="after a failed compaction")
    return parser.parse_args()


def watch_parent(parent: int, every: float = 0.5) -> None:
    """End this process, gently and then at once, when it has lost its parent. Runs in a thread of its own."""
    while os.getppid() == parent:
        time.sleep(every)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE + 5)
    os._exit(1)


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
        raise InputError(f"--socket {path} cannot be made: {error}. Give a short path in a folder of yours.") from None
    finally:
        os.umask(before)
    return listener


def main() -> int:
    """Load, then serve until SIGTERM; exit code 2 when index, run or socket are wrong."""
    options = _arguments()
    configure_logs()
    logging.getLogger("smar").setLevel(logging.INFO)
    if options.parent is not None:
        threading.Thread(target=watch_parent, args=(options.parent,), daemon=True).start()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # read when torch is loaded
    from smar.index.live import DELTA_LIMIT
    from smar.writer.app import create_app
    from smar.writer.service import open_worker

    after = DELTA_LIMIT if options.compact_after is None else options.compact_after
    try:
        alive = (lambda: None) if options.alive is None else options.alive.touch
        make = open_worker(options.index, options.run, not options.unchecked, after, options.retry, alive)
        listener = bind(options.socket)
    except InputError as error:
        logging.getLogger("smar.writer").error("%s", error)
        return 2
    app = create_app(make, Admission(options.max_body, options.max_waiting))
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_GRACE)
    uvicorn.Server(config).run(sockets=[listener])
    return 0


if __name__ == "__main__":
    sys.exit(main())
