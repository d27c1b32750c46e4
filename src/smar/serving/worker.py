"""One worker of a service: ``python -m smar.serving.worker``, started by `smar.serving.supervise`.

Its standard input is a socket to the supervisor. From there it reads one line of JSON, `WorkerTask`; there it writes
one line when it is ready, or why it is not; and when the supervisor's end closes, it ends, too.
"""

import gc
import os
import signal
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import BaseModel

from smar.errors import InputError
from smar.serving.options import ServiceOptions

GRACE = 5
"""Seconds that requests under way have when a worker is told to end."""


class WorkerTask(BaseModel):
    """What a worker is to do, the one of this `number`; `descriptor` is the listening socket that it inherited."""

    index: Path
    descriptor: int
    number: int = 0
    options: ServiceOptions


class WorkerReport(BaseModel):
    """A worker's first and only words: what it serves, or why it cannot."""

    items: int = 0
    error: str | None = None


def life_file(shared: Path, number: int) -> Path:
    """What worker `number` touches as long as its event loop turns."""
    return shared / f"alive-{number}"


def main() -> int:
    """Serve until SIGTERM or the supervisor's end."""
    supervisor = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    task = WorkerTask.model_validate_json(supervisor.makefile("rb").readline())
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one query is no work for a pool of threads
    from smar.logs import configure_logs
    from smar.serving.engine import Engine

    configure_logs(requests=task.options.log != "errors")
    with ThreadPoolExecutor(1) as pool:  # while the index is read, the other half of the modules is
        opened = pool.submit(Engine.open, task.index, "--unchecked" not in sys.argv)
        import uvicorn

        from smar.serving.accept import FairServer, Shares
        from smar.serving.app import create_app
        from smar.serving.protocol import BoundedProtocol
    try:
        engine = opened.result()
        engine.check()
    except Exception as error:
        said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        supervisor.sendall(_line(WorkerReport(error=said)))
        return 2
    app = create_app(engine, task.options)
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=task.options.trusted_proxies,
        timeout_graceful_shutdown=GRACE,
    )
    threading.Thread(target=_end_with, args=(supervisor,), daemon=True).start()
    supervisor.sendall(_line(WorkerReport(items=len(engine.index))))
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection needs to look at it again
    assert task.options.shared is not None  # the supervisor has made it
    shares = Shares(task.options.shared / "connections", task.options.workers, task.number)
    alive = life_file(task.options.shared, task.number).touch
    server = FairServer(config, socket.socket(fileno=task.descriptor), shares, alive)
    app.crowded = lambda: server.holds > task.options.connections
    server.run()
    return 0


def _line(report: WorkerReport) -> bytes:
    return report.model_dump_json().encode() + b"\n"


def _end_with(supervisor: socket.socket) -> None:
    """A worker without supervisor would hold the port for ever."""
    supervisor.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
