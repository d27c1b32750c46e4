"""An application that burns a little CPU, and a worker of ours that serves it; see benchmarks/workers.py."""

import hashlib
import os
import socket
from typing import Any

import uvicorn

from smar.serving.accept import FairServer, Shares
from smar.serving.children import Supervisor
from smar.serving.http_protocol import BoundedProtocol
from smar.serving.worker import WorkerTask, life_file

BODY = b"x" * 10_000


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The application of all three."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    hashlib.pbkdf2_hmac("sha256", b"a", b"b", 1000)
    head = [(b"content-length", b"10000"), (b"worker", str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": BODY})


def worker() -> None:
    """One of our workers, with the application of above."""
    supervisor = Supervisor()
    task = supervisor.task(WorkerTask)
    supervisor.ready(0)
    shared = task.options.shared
    config = uvicorn.Config(app, http=BoundedProtocol, ws="none", log_config=None, access_log=False)
    shares = Shares(shared / "connections", 2, task.number)
    alive = life_file(shared, task.number).touch
    FairServer(config, socket.socket(fileno=task.descriptor), shares, alive).run()


if __name__ == "__main__":
    worker()
