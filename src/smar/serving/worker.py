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
    from smar.serving.engine import Engine


class WorkerTask(BaseModel):
    """What a worker is to do, the one of this `number`; `descriptor` is the listening socket that it inherited.

    `indexes` are folders by name, and `writable` those of them that have a model worker.
    """

    indexes: dict[str, Path]
    writable: tuple[str, ...] = ()
    descriptor: int
    number: int = 0
    options: ServiceOptions


def life_file(shared: Path, number: int) -> Path:
    """What worker `number` touches as long as its event loop turns."""
    return shared / f"alive-{number}"


def index_folder(shared: Path, name: str) -> Path:
    """What the processes of one index share."""
    return shared / f"index-{name}"


def _opened(path: Path, check: bool) -> "Engine | str":
    """The index, or what is wrong with it."""
    from smar.serving.engine import Engine

    try:
        engine = Engine.open(path, check)
        engine.check()
    except Exception as error:
        return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    return engine


def _own(task: WorkerTask, name: str) -> ServiceOptions:
    """The options of one index: memory is shared out evenly."""
    assert task.options.shared is not None  # the supervisor has made it
    cache = task.options.cache_bytes // len(task.indexes)
    shared = index_folder(task.options.shared, name)
    return task.options.model_copy(update={"shared": shared, "writer": name in task.writable, "cache_bytes": cache})


def main() -> int:
    """Serve until SIGTERM or the supervisor's end."""
    supervisor = Supervisor()
    task = supervisor.task(WorkerTask)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one query is no work for a pool of threads
    from smar.core.logs import configure_logs

    configure_logs(requests=task.options.log != "errors")
    with ThreadPoolExecutor(1) as pool:  # while the indexes are read, the other half of the modules is
        check = UNCHECKED not in sys.argv
        opened = {name: pool.submit(_opened, path, check) for name, path in task.indexes.items()}
        import uvicorn

        from smar.serving.accept import FairServer, Shares
        from smar.serving.app import create_service
        from smar.serving.protocol import BoundedProtocol
        from smar.serving.several import Opening
    found = {name: one.result() for name, one in opened.items()}
    broken = [one for one in found.values() if isinstance(one, str)]
    if broken and AGAIN not in sys.argv:
        supervisor.refuse(broken[0])
    openings = {name: Opening(task.indexes[name], one, _own(task, name)) for name, one in found.items()}
    app = create_service(openings, task.options)
    supervisor.ready(sum(0 if isinstance(one, str) else len(one.index) for one in found.values()))
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
