"""One worker of a service: ``python -m smar.serving.worker``, started by `smar.serving.supervise`."""

import gc
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from smar.core.errors import InputError
from smar.serving.children import AGAIN, GRACE, UNCHECKED, Supervisor
from smar.serving.options import ServiceOptions

if TYPE_CHECKING:
    from smar.serving.guard import Guard


class WorkerTask(BaseModel):
    """What a worker is to do, the one of this `number`; `descriptor` is the listening socket that it inherited.

    `index` is a folder, or an engine's URL with the `folder` of its query encoder where that is another one than it was
    loaded from; with `encode`, a folder whose query encoder alone is served.
    """

    index: str
    folder: Path | None = None
    encode: bool = False
    descriptor: int
    number: int = 0
    options: ServiceOptions


def life_file(shared: Path, number: int) -> Path:
    """What worker `number` touches as long as its event loop turns."""
    return shared / f"alive-{number}"


def _elsewhere(task: WorkerTask) -> "tuple[Guard, int]":
    """The application over an engine's URL, or the one without items; and how many items it has."""
    if task.encode:
        from smar.serving.encode import create_encode_app

        return create_encode_app(Path(task.index), task.options), 0
    from smar.serving.remote import RemoteEngine
    from smar.serving.remote_app import create_remote_app

    engine = RemoteEngine.open(task.index, task.folder, task.options.deadline)
    if AGAIN in sys.argv:  # it answered when the service was started, and will again
        return create_remote_app(engine, task.options), 0
    engine.index.check()
    return create_remote_app(engine, task.options), len(engine.index)


def main() -> int:
    """Serve until SIGTERM or the supervisor's end."""
    supervisor = Supervisor()
    task = supervisor.task(WorkerTask)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one query is no work for a pool of threads
    from smar.core.logs import configure_logs
    from smar.search.engines import is_url
    from smar.serving.engine import Engine

    configure_logs(requests=task.options.log != "errors")
    with ThreadPoolExecutor(1) as pool:  # while the index is read, the other half of the modules is
        local = not (task.encode or is_url(task.index))
        rules = task.options.rules, task.options.kept_rules
        opened = pool.submit(Engine.open, task.index, UNCHECKED not in sys.argv, *rules) if local else None
        import uvicorn

        from smar.serving.accept import FairServer, Shares
        from smar.serving.app import create_app
        from smar.serving.offered import offered
        from smar.serving.protocol import BoundedProtocol
        from smar.serving.waiting import Waiting
    app: Guard | Waiting
    try:
        if opened is None:
            app, items = _elsewhere(task)
        else:
            engine = opened.result()
            engine.check()
            if AGAIN not in sys.argv:  # afterwards a new version may lack a column that the page offered
                offered(task.options, engine.index)
            app, items = create_app(engine, task.options), len(engine.index)
        supervisor.ready(items)
    except Exception as error:
        said = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        if AGAIN not in sys.argv or opened is None:
            supervisor.refuse(said)
        app = Waiting(Path(task.index), said, task.options)
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
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection needs to look at it again
    assert task.options.shared is not None  # the supervisor has made it
    shares = Shares(task.options.shared / "connections", task.options.workers, task.number)
    alive = life_file(task.options.shared, task.number).touch
    server = FairServer(config, socket.socket(fileno=task.descriptor), shares, alive)
    app.crowded = lambda: server.holds > task.options.connections
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
