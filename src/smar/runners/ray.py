"""Parts as plain tasks of Ray, each tried again where its worker or node dies.

Plain tasks (https://docs.ray.io/en/latest/ray-core/tasks.html), as Ray Data drops or aborts whole batches on a bad row.
`RAY_ADDRESS` names the cluster; without it, Ray starts on this machine, for this call alone, and asks whoever connects
for a token.
"""

import os
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from smar.core.errors import InputError
from smar.core.progress import console
from smar.runners.failures import TRIES, P, R, died, told

WINDOW = 256
"""Parts given to Ray at once: `ray.wait` looks at all of them each time."""
_STORE = 100 << 20
"""Bytes for Ray's objects: parts and results are small, what is large lies in files."""


def with_ray(task: Callable[[P], R], parts: Iterable[P], gpu: bool) -> Iterator[R]:
    """As `smar.runners.run.run`."""
    with _connected() as ray:
        needed = 1 if gpu and ray.cluster_resources().get("GPU") else 0
        remote = ray.remote(num_cpus=1, num_gpus=needed, max_retries=TRIES - 1)(_call)
        shared, todo = ray.put(task), iter(parts)
        waiting: dict[Any, P] = {}
        try:
            while True:
                for part in islice(todo, WINDOW - len(waiting)):
                    waiting[remote.remote(shared, part)] = part
                if not waiting:
                    return
                for done in ray.wait(list(waiting))[0]:
                    yield _result(ray, done, waiting.pop(done))
        finally:
            for left in waiting:
                ray.cancel(left, force=True)


@contextmanager
def _connected() -> Iterator[Any]:
    """Ray; one that was not connected before is disconnected afterwards, and ended if it was started here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = not os.environ.get("RAY_ADDRESS")
    if own and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:  # which reads both when it is imported
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ImportError:
        raise InputError("--runner ray needs Ray: pip install 'smar[ray]'.") from None
    if ray.is_initialized():
        yield ray
        return
    alone = {"num_cpus": _cores(), "object_store_memory": _STORE, "include_dashboard": False} if own else {}
    try:
        ray.init("local" if own else None, log_to_driver=False, **alone)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"the cluster at RAY_ADDRESS={os.environ.get('RAY_ADDRESS')}" if not own else "this machine"
        raise InputError(
            f"Ray on {where} cannot be used: {error}. RAY_AUTH_MODE and RAY_AUTH_TOKEN must be those of the cluster."
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _call(task: Callable[[P], R], part: P) -> R:
    """In a worker; what is wrong with the input may be so on this node alone."""
    console.quiet = True
    try:
        return task(part)
    except InputError as error:
        raise InputError(f"on node {socket.gethostname()}: {error}") from None


def _result(ray: Any, done: Any, part: P) -> Any:
    try:
        return ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise told(part, error.cause) from error.cause.__cause__
    except ray.exceptions.RayError as error:
        raise died(part, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from None
