"""A folder in an object store, whole or absent, published and fetched in parts that are not sent twice.

`smar.storage.objects` says what lies there. After publishing, what no manifest of `KEPT` holds is removed.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from smar.core.errors import InputError
from smar.storage.objects import Objects, Published, StoredFile

PART = 64 << 20
_LAST = ("manifest.json", "current")
"""Names of files that say that others are there: they come last, wherever they lie."""


class StoredFolder:
    """A folder at an address.

    >>> import tempfile; from pathlib import Path
    >>> place = tempfile.TemporaryDirectory(); local = Path(place.name)
    >>> (local / "a").mkdir(); _ = (local / "a" / "words.txt").write_text("red dress")
    >>> folder = StoredFolder("memory://doctest/words")
    >>> folder.publish(local / "a").number
    1
    >>> folder.read("words.txt", 4, 9)
    b'dress'
    >>> _ = folder.fetch(local / "b"); (local / "b" / "words.txt").read_text()
    'red dress'

    Raises:
        InputError: the scheme is not known, or its package is not installed.
    """

    def __init__(self, url: str, part: int = PART) -> None:
        self.url, self.part = url.rstrip("/"), part
        self.objects = Objects(self.url)
        self._sent: dict[str, tuple[tuple[int, int, int], StoredFile]] = {}

    def newest(self, complete: bool = True) -> Published | None:
        """The newest manifest, or None; with `complete`, of a finished folder.

        Raises:
            StoreDown: the store does not answer.
            InputError: a manifest is damaged.
        """
        return self.objects.newest(complete)

    def publish(
        self,
        folder: Path,
        complete: bool = True,
        wanted: Callable[[Path], bool] = lambda path: True,
        base: int | None = None,
    ) -> Published:
        """Send the files of a local folder that are not there, then the manifest; return it.

        Args:
            folder: the local folder; no process changes it meanwhile, or it is not `complete`.
            complete: False: a state to go on from, which nobody reads as a result.
            wanted: which files belong to it.
            base: number of the manifest that the folder was made from; None: the one that is the newest now.

        Raises:
            InputError: another process has published since `base`.
            StoreDown: the store does not answer; the same call goes on.
        """
        base = max(self.objects.manifests(), default=0) if base is None else base
        there = self.objects.sizes()
        files: dict[str, StoredFile] = {}
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and wanted(path)):
            name = path.relative_to(folder).as_posix()
            try:
                sent = self._send(path, name, there)
            except FileNotFoundError:
                if complete:
                    raise
                continue  # removed by the job that goes on
            if sent is not None:
                files[name] = sent
            elif complete:
                raise InputError(f"{path} was changed while it was sent to {self.url}. Run the command again.")
        if not complete and (last := self.newest(complete=False)) is not None and last.files == files:
            return last
        made = Published(number=base + 1, complete=complete, part=self.part, files=files)
        self.objects.create(made)
        self.objects.remove_old()
        return made

    def fetch(self, folder: Path, complete: bool = True) -> Published:
        """Copy the newest state into a local folder, verified part by part; files that are there and right stay.

        Every file is verified before one that names others (`current`, `manifest.json`) takes its place; what the
        manifest does not hold is removed then.

        Raises:
            InputError: nothing is there, or a part is missing or was altered.
            StoreDown: the store does not answer; the same call goes on.
        """
        found = self.newest(complete)
        if found is None:
            raise InputError(f"{self.url}: nothing was published there, or it was not finished.")
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(found.files, key=lambda name: (_rank(name), name))
        for name in names:
            self._take(folder / _inside(name, self.url), name, found)
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(folder).as_posix() not in found.files and not path.name.endswith("lock"):
                path.unlink()
        return found

    def read(self, name: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive) of a file of the newest finished state; not verified, as it is a range.

        Raises:
            InputError: no such file is there.
        """
        found = self.newest()
        if found is None or name not in found.files:
            raise InputError(f"{self.url}: {name} is not there.")
        file, read = found.files[name], []
        for number, digest in enumerate(file.parts):
            first = number * found.part
            low, high = max(start, first), min(end, first + found.part, file.size)
            if low < high:
                read.append(self.objects.get(self.objects.key(name, digest), low - first, high - first))
        return b"".join(read)

    def _send(self, path: Path, name: str, there: dict[str, int]) -> StoredFile | None:
        """Send a file's absent parts; None when it was changed meanwhile."""
        before, digests, size = _stamp(path), [], 0
        if (known := self._sent.get(name)) is not None and known[0] == before:
            return known[1]
        with path.open("rb") as handle:
            while block := handle.read(self.part):
                digest, size = hashlib.sha256(block).hexdigest(), size + len(block)
                key = self.objects.key(name, digest)
                if there.get(key) != len(block):
                    self.objects.put(key, block)
                    there[key] = len(block)
                digests.append(digest)
        if _stamp(path) != before or size != before[2]:
            return None
        self._sent[name] = before, StoredFile(size=size, parts=tuple(digests))
        return self._sent[name][1]

    def _take(self, path: Path, name: str, found: Published) -> None:
        file = found.files[name]
        if path.is_file() and path.stat().st_size == file.size and _digests(path, found.part) == list(file.parts):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".fetching")
        partial.touch()  # what a killed download left stays, to go on from
        with partial.open("r+b") as handle:
            for number, digest in enumerate(file.parts):
                handle.seek(number * found.part)
                if hashlib.sha256(handle.read(found.part)).hexdigest() == digest:
                    continue
                block = self.objects.part(name, digest)
                handle.seek(number * found.part)
                handle.write(block)
            handle.truncate(file.size)
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(path)


def _rank(name: str) -> int:
    """Files that name others come last, those of the top folder after all."""
    path = PurePosixPath(name)
    return (1 if path.name in _LAST else 0) + (1 if path.name in _LAST and len(path.parts) == 1 else 0)


def _inside(name: str, url: str) -> Path:
    """A file's place in its folder; raises InputError for one that leads out of it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise InputError(f"{url}: its manifest names {name!r}, which leads out of the folder.")
    return Path(*path.parts)


def _stamp(path: Path) -> tuple[int, int, int]:
    seen = path.stat()
    return seen.st_ino, seen.st_mtime_ns, seen.st_size


def _digests(path: Path, part: int) -> list[str]:
    with path.open("rb") as handle:
        return [hashlib.sha256(block).hexdigest() for block in iter(lambda: handle.read(part), b"")]
