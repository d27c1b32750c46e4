"""The index folder: versions that never change, and one small file that says which of them is served.

``INDEX/current`` names a version folder ``v0001``, ``v0002`` ... and the one before it. It is replaced by renaming, so
a reader sees the old version or the new one. Whoever changes the index (a log append, a new version) holds
``INDEX/lock``.
"""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field

from smar.core.errors import InputError
from smar.core.files import StrPath, sync_folder
from smar.search.local.sealed import Sealed

MADE_BY = "smar index"
CURRENT_FILE = "current"
Stamp: TypeAlias = tuple[int, int, bytes]
_NAME = r"^v\d{4,}$"
_OURS = re.compile(r"^(?:v(\d{4,})(?:\.partial)?|[a-z.]*lock|current\.partial|update-\w+)$")


class UnreadableIndex(InputError):
    """What lies on disk now cannot be read: it is damaged, or not whole yet. No fault of who asked."""


class Current(Sealed):
    """``INDEX/current``: the version that is served and the one to go back to."""

    format: Literal["smar-current/1"] = "smar-current/1"
    version: str = Field(pattern=_NAME)
    previous: str | None = Field(None, pattern=_NAME)


def read_current(folder: Path) -> Current:
    """What ``INDEX/current`` says; raises InputError naming the file when it is missing or damaged."""
    return Current.read_file(folder / CURRENT_FILE, MADE_BY)


def current_version(folder: StrPath) -> Path:
    """The version folder that is served; `folder` itself when it is a version folder."""
    folder = Path(folder)
    if (folder / "manifest.json").is_file() and not (folder / CURRENT_FILE).exists():
        return folder
    path = folder / read_current(folder).version
    if not (path / "manifest.json").is_file():
        raise InputError(
            f"{path / 'manifest.json'} is missing, yet {folder / CURRENT_FILE} names {path.name}. "
            f"Run `{MADE_BY}` again."
        )
    return path


@contextmanager
def locked(folder: Path, name: str = "lock", wait: bool = True) -> Iterator[None]:
    """Hold ``INDEX/name`` against other processes; without `wait`, InputError when another holds it."""
    with (folder / name).open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise InputError(f"{folder / name} is held by another process; wait until it has finished.") from None
        yield


def file_stamp(path: Path, length: int = -1) -> Stamp | None:
    """Differs once a file was replaced, or its first `length` bytes were (-1: all); None where there is none.

    Its bytes belong to it: a file that is gone leaves its number to the next, within a tick of the clock if need be.
    """
    try:
        with path.open("rb", buffering=0) as file:
            seen = os.fstat(file.fileno())
            return seen.st_ino, seen.st_mtime_ns, file.read(length)
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # `read_current` says which
        return None


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """An empty folder to build the next version in. It goes when the build fails, and what killed builds left goes now.

    It is locked while the build goes on, so that builds beside each other do not remove each other's.

    Raises:
        InputError: `folder` holds something other than an index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()}
    if not (folder / CURRENT_FILE).exists() and not all(_OURS.match(name) for name in names):
        raise InputError(f"{folder} exists and is not an index. Choose another --out, or remove it.")
    with locked(folder):
        _remove(_left_over(folder))
        partial = folder / f"v{max((_number(path.name) for path in folder.iterdir()), default=0) + 1:04d}.partial"
        partial.mkdir()
        handle = _try_lock(partial)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        if {path.name for path in folder.iterdir()} == {"lock"}:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def _try_lock(partial: Path) -> int:
    """A descriptor that holds the folder until it is closed; raises BlockingIOError when a process builds in it."""
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    return handle


def _left_over(folder: Path) -> Iterator[Path]:
    """What builds left that were killed."""
    for partial in folder.glob("v*.partial"):
        if _number(partial.name):
            with contextlib.suppress(BlockingIOError):
                os.close(_try_lock(partial))
                yield partial


def _remove(versions: Iterable[Path]) -> None:
    for path in list(versions):
        shutil.rmtree(path, ignore_errors=True)  # a process that still maps its files keeps them until it lets go


def publish_version(folder: Path, partial: Path, compacted: bool = False) -> Path:
    """Give a finished version its name and serve it; the one served until now is the one to go back to.

    With `compacted` it holds the same as that one, whose place it takes: the one to go back to stays, if there is one.
    All other versions are removed. The caller holds the lock.
    """
    now = _served(folder)
    for path in (partial, *(path for path in partial.rglob("*") if path.is_dir())):
        sync_folder(path)
    version = partial.with_suffix("")
    partial.rename(version)
    before = None if now is None else now.version
    if compacted and now is not None and now.previous is not None and (folder / now.previous).is_dir():
        before = now.previous
    _point(folder, Current(version=version.name, previous=before))
    _remove(path for path in _versions(folder) if path.name not in (version.name, before))
    _remove(_left_over(folder))
    return version


def _served(folder: Path) -> Current | None:
    """What is served; where `current` is damaged or missing, the newest version, which has the latest updates."""
    try:
        return read_current(folder)
    except InputError:
        whole = [path for path in _versions(folder) if (path / "manifest.json").is_file()]
        newest = max(whole, key=lambda path: _number(path.name), default=None)
        return None if newest is None else Current(version=newest.name)


def _versions(folder: Path) -> list[Path]:
    return [path for path in folder.glob("v*") if re.match(_NAME, path.name)]


def _number(name: str) -> int:
    found = _OURS.match(name)
    return int(found[1] or 0) if found else 0


def rollback(folder: StrPath) -> Current:
    """Serve the previous version again, with the updates it had; a second call goes forward again.

    Raises:
        InputError: there is no previous version.
    """
    folder = Path(folder)
    with locked(folder):
        now = read_current(folder)
        if now.previous is None or not (folder / now.previous).is_dir():
            raise InputError(f"{folder} has no version before {now.version}, so there is nothing to go back to.")
        pointer = Current(version=now.previous, previous=now.version)
        _point(folder, pointer)
    return pointer


def _point(folder: Path, pointer: Current) -> None:
    pointer.write_file(folder / CURRENT_FILE)
    sync_folder(folder)
