"""Tables on a server: https, S3, Google Cloud Storage, the Hugging Face hub, and what else fsspec reaches.

Files are copied once into the work folder. Credentials come from the environment, as the back-ends define it.
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from smar.core.errors import InputError
from smar.core.progress import track
from smar.data.arrow import STATE_FILES
from smar.storage.location import install_line, opened, scheme_of


def download(url: str, kind: str, target: Path, wanted: Callable[[str], bool]) -> Path:
    """Copy a remote file, or the files of a remote folder or glob that are `wanted`; return the file or the folder.

    Args:
        url: the address; ``*`` makes it a glob, where the server can list.
        kind: the table, for messages.
        target: new folder for the copies.
        wanted: whether a file of that name is a table.

    Raises:
        InputError: nothing is there, the server refuses, or the package for this scheme is not installed.
    """
    scheme = scheme_of(url)
    try:
        system, path = opened(url)
        names, base = _names(system, path, scheme, wanted)
        if not names:
            raise InputError(f"--{kind} {url}: no table is there. Give a file, a folder or a glob that holds one.")
        for name in track(names, f"downloading {kind}", len(names)):
            copy = target / _inside(name, base, scheme)
            copy.parent.mkdir(parents=True, exist_ok=True)
            system.get_file(name, str(copy))
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"--{kind} {url}: {error}. {install_line(scheme)}") from None
    except Exception as error:  # each back-end has errors of its own, without a common base
        raise InputError(f"--{kind} {url}: cannot be read ({type(error).__name__}: {str(error)[:300]}).") from None
    return copy if names == [path] else target


def _names(system: Any, path: str, scheme: str, wanted: Callable[[str], bool]) -> tuple[list[str], str]:
    """The files to copy, and the folder that they lie in. `http` has folders only where the address says so."""
    web = scheme.startswith("http")
    if "*" in (urlsplit(path).path if web else path):
        names, base = system.glob(path), _parent(path.partition("*")[0])
    elif path.endswith("/") if web else system.isdir(path):
        names, base = system.find(path), path.rstrip("/")
    else:
        return [path], _parent(path)
    kept = [name for name in names if wanted(_plain(name, scheme)) or _base(name) in STATE_FILES]
    return sorted(name for name in kept if system.isfile(name)), base


def _plain(name: str, scheme: str) -> str:
    """A name without what follows the path of a web address."""
    return unquote(urlsplit(name).path) if scheme.startswith("http") else name


def _base(name: str) -> str:
    return PurePosixPath(name).name


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _inside(name: str, base: str, scheme: str) -> Path:
    """Where a copy lies in its folder; no name of a server's leads out of it."""
    inside = _plain(name, scheme).removeprefix(_plain(base, scheme))
    parts = [part for part in PurePosixPath(inside).parts if part not in ("/", "..", ".")]
    return Path(*parts) if parts else Path("table")
