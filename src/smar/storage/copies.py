"""Remote arguments of a command, or of a function of `smar.api`, as local folders: fetched before, published after.

The stages work on local disk and know nothing of stores. Copies lie below ``SMAR_CACHE`` (``~/.cache/smar``),
one to read and one to write for each address.
"""

import contextlib
import fcntl
import functools
import hashlib
import inspect
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from smar.core.errors import InputError
from smar.core.progress import console, show_as
from smar.storage.folders import StoredFolder
from smar.storage.location import is_store
from smar.storage.objects import StoreDown

P = ParamSpec("P")
R = TypeVar("R")
SECONDS = 30.0
"""Between two looks for finished shards and checkpoints to publish; ``SMAR_STORE_SECONDS`` says otherwise."""
_RESUMED = ("train", "embed")
_SEAL = "seal.json"
_TABLES = ("items", "clicks", "images", "queries", "qrels", "update")
"""Arguments that are tables, which `smar.data.download` copies; `--images` may be a folder of pictures."""


def copy_of(url: str, use: str = "read") -> Path:
    """Where the local copy of an address lies."""
    cache = Path(os.environ.get("SMAR_CACHE") or Path.home() / ".cache" / "smar")
    url = url.rstrip("/")
    copy = cache / hashlib.sha256(url.encode()).hexdigest()[:16] / use / url.rpartition("/")[2]
    show_as(copy, url)
    return copy


def fetched(url: str) -> Path:
    """The local copy of a folder that is finished, verified; raises as `StoredFolder.fetch`."""
    copy = copy_of(url)
    with _locked(copy, wait=True):
        StoredFolder(url).fetch(copy)
    return copy


def served(url: str) -> Path:
    """`fetched`; where the store does not answer, what an earlier call copied: a service starts again without it."""
    try:
        return fetched(url)
    except StoreDown as error:
        copy = copy_of(url)
        if not (copy / "current").is_file():
            raise
        console.print(f"{error} What was copied before is served.", markup=False, soft_wrap=True)
        return copy


@contextlib.contextmanager
def local_copies(command: str, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The arguments of a command with folders in place of addresses; `out` is published when the block ends well.

    Where `command` is train or embed, what is finished of it is published on the way, and a job that was killed
    goes on from there, on whichever machine.

    Raises:
        InputError: an input is missing, unfinished or altered, or what is asked for cannot be done in a store.
        StoreDown: the store does not answer.
    """
    out = given.get("out")
    _refuse(command, given)
    if not is_store(out):
        yield _inputs(command, given)
        return
    if given.get("part") is not None:
        raise InputError(f"{out}: parts of a work need a folder that their processes share: give a local --out.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(f"{out}: processes of torchrun need a folder that they share, so --out has to be a local one.")
    with _writing(str(out), command) as copy:
        yield {**_inputs(command, given), "out": copy}


def _refuse(command: str, given: Mapping[str, Any]) -> None:
    """Refuse by name what would change an index in a store otherwise than by a new version."""
    source, out = given.get("source"), given.get("out")
    if command == "index" and is_store(source) and out is None and given.get("to") is None:
        raise InputError(
            f"{source}: an index in a store is changed by publishing a new version of it: "
            f"smar index EMBEDDINGS --out {source}. --update, --delete, --compact and --rollback take a local folder."
        )
    if command == "serve" and given.get("model") and _holds_store(given.get("indexes")):
        raise InputError(
            "--model writes to an index folder; an index in a store is changed by publishing a new version of it."
        )


def with_copies(function: Callable[P, R]) -> Callable[P, R]:
    """A function of the Python API that takes addresses, too, where it takes folders; its `out` is published."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        with local_copies(function.__name__, bound.arguments) as arguments:
            bound.arguments.update(arguments)
            return function(*bound.args, **bound.kwargs)

    return called


@contextlib.contextmanager
def _writing(url: str, command: str) -> Iterator[Path]:
    copy, store, resumed = copy_of(url, "write"), StoredFolder(url), command in _RESUMED
    with _locked(copy, wait=False):
        found = store.newest(complete=not resumed)
        seen = copy.parent / "number"
        ours = seen.read_text() if seen.is_file() else ""
        if (resumed or command in ("index", "build")) and found is not None and ours != str(found.number):
            store.fetch(copy, complete=not resumed)
            seen.write_text(str(found.number))
        with _progress(store, copy, seen) if resumed else contextlib.nullcontext():
            yield copy
        made = store.publish(copy, wanted=functools.partial(_whole, copy))
        seen.write_text(str(made.number))
        console.print(f"published {url}: {len(made.files):,} files", markup=False, soft_wrap=True)


@contextlib.contextmanager
def _progress(store: StoredFolder, copy: Path, seen: Path) -> Iterator[None]:
    """Publish what is finished, from time to time and when the job fails."""
    stop, every = threading.Event(), float(os.environ.get("SMAR_STORE_SECONDS") or SECONDS)

    def look() -> None:
        if not copy.is_dir() or not any(copy.iterdir()):
            return
        try:
            made = store.publish(copy, complete=False, wanted=functools.partial(_whole, copy))
            seen.write_text(str(made.number))
        except (InputError, OSError) as error:  # the job goes on, or ends by its own error
            console.print(f"not published yet: {error}", markup=False, soft_wrap=True)

    def work() -> None:
        while not stop.wait(every):
            look()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        stop.set()
        thread.join()
        look()
        raise
    stop.set()
    thread.join()


def _whole(folder: Path, path: Path) -> bool:
    """Whether a file is finished, and its checkpoint sealed."""
    parts = path.relative_to(folder).parts
    if any(part.endswith((".partial", ".fetching", "lock")) for part in parts):
        return False
    above = [parent for parent in path.parents if parent.name.startswith("checkpoint-")]
    return all((parent / _SEAL).is_file() for parent in above)


def _inputs(command: str, given: Mapping[str, Any]) -> dict[str, Any]:
    if command == "serve":
        stores = [url for _, url in given["indexes"] if is_store(url)]
        indexes = [(name, served(url) if is_store(url) else url) for name, url in given["indexes"]]
        return {**_inputs("", {**given, "indexes": indexes}), "stores": stores}
    return {name: value if name in _TABLES or name == "out" else _fetched(value) for name, value in given.items()}


def _fetched(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_fetched(each) for each in value) if _holds_store(value) else value
    return fetched(value) if is_store(value) else value


def _holds_store(value: Any) -> bool:
    return any(map(_holds_store, value)) if isinstance(value, list | tuple) else is_store(value)


@contextlib.contextmanager
def _locked(copy: Path, wait: bool) -> Iterator[None]:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with (copy.parent / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError(f"{copy} is written by another process of this machine; wait until it ends.") from None
        yield
