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
    from smar.serving.guard import Guard


class WorkerTask(BaseModel):
    """What a worker is to do, the one of this `number`; `descriptor` is the listening socket that it inherited.

    `indexes` are folders by name, and `writable` those of them that have a model worker. One alone may be an engine's
    URL, with the `folder` of its query encoder where that is another one than it was loaded from; or with `encode`, a
    folder whose query encoder alone is served.
    """

    indexes: dict[str, str]
    writable: tuple[str, ...] = ()
    folder: Path | None = None
    encode: bool = False
    descriptor: int
    number: int = 0
    options: ServiceOptions


def life_file(shared: Path, number: int) -> Path:
    """What worker `number` touches as long as its event loop turns."""
    return shared / f"alive-{number}"


def index_folder(shared: Path, name: str) -> Path:
    """What the processes of one index share."""
    return shared / f"index-{name}"


def _elsewhere(task: WorkerTask, name: str, index: str) -> "tuple[Guard, int]":
    """The application over an engine's URL, or the one without items; and how many items it has."""
    if task.encode:
        from smar.serving.encode_route import create_encode_app

        return create_encode_app(Path(index), task.options), 0
    from smar.serving.remote_app import create_remote_app
    from smar.serving.remote_engine import RemoteEngine

    engine = RemoteEngine.open(index, task.folder, task.options.deadline)
    if AGAIN in sys.argv:  # it answered when the service was started, and will again
        return create_remote_app(engine, task.options, name), 0
    engine.index.check()
    return create_remote_app(engine, task.options, name), len(engine.index)


def _here(task: WorkerTask) -> "tuple[Guard, int]":
    """The application over folders, and how many items they have; what cannot be read is waited for.

    Raises:
        InputError: one of them cannot be read, nor could it be before.
    """
    with ThreadPoolExecutor(1) as pool:  # while the indexes are read, the other half of the modules is
        opened = {name: pool.submit(_opened, task, name) for name in task.indexes}
        from smar.serving.app import create_service
        from smar.serving.several import Opening
    found = {name: one.result() for name, one in opened.items()}
    broken = [(name, one) for name, one in found.items() if isinstance(one, str)]
    if broken and AGAIN not in sys.argv:
        (name, said), several = broken[0], len(found) > 1
        raise InputError(f"index {name}: {said}" if several else said)
    openings = {name: Opening(Path(task.indexes[name]), one, _own(task, name)) for name, one in found.items()}
    items = sum(0 if isinstance(one, str) else len(one.index) for one in found.values())
    return create_service(openings, task.options), items


def _opened(task: WorkerTask, name: str) -> "Engine | str":
    """The index, or what is wrong with it."""
    from smar.serving.engine import Engine
    from smar.serving.offered import offered

    own = _own(task, name)
    try:
        engine = Engine.open(task.indexes[name], UNCHECKED not in sys.argv, own.rules, own.kept_rules)
        engine.check()
        if AGAIN not in sys.argv:  # afterwards a new version may lack a column that the page offered
            offered(own, engine.index)
    except Exception as error:
        return _told(error)
    return engine


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


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
    from smar.search.engines import is_url

    configure_logs(requests=task.options.log != "errors")
    try:
        (name, index), *others = task.indexes.items()
        alone = not others and (task.encode or is_url(index))
        app, items = _elsewhere(task, name, index) if alone else _here(task)
    except Exception as error:
        supervisor.refuse(_told(error))
    import uvicorn

    from smar.serving.accept import FairServer, Shares
    from smar.serving.http_protocol import BoundedProtocol

    supervisor.ready(items)

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
