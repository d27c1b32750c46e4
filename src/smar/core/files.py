"""Files that are whole or absent: atomic writes, checksums, and typed JSON manifests.

A stage writes into ``NAME.partial`` and renames once everything is on disk, so a reader never meets half a
file. No library that we use notices a flipped byte in its own files, hence the checksums in every manifest.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar
from uuid import uuid4

import xxhash
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smar.core.errors import InputError

T = TypeVar("T")
StrPath = str | Path
"""A path as the functions that others call take it."""
_READ = 1 << 23


class FileEntry(BaseModel):
    """Size in bytes and SHA-256 of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(ge=0)
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """As the file is now."""
        return cls(size=path.stat().st_size, sha256=sha256(path))


class Manifest(BaseModel):
    """Base of every ``manifest.json``: strict, immutable, written atomically."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def read(cls, folder: StrPath, made_by: str) -> Self:
        """Read ``folder/manifest.json``; raises InputError naming the command that should have made it."""
        path = Path(folder) / "manifest.json"
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise InputError(
                f"{path} is missing: {folder} was not made by `{made_by}`, or it did not finish. Run `{made_by}`."
            ) from None
        except (ValidationError, NotADirectoryError) as error:
            raise InputError(f"{path} is not a manifest of `{made_by}`: {error}. Make it again.") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error}.") from None

    def write(self, folder: Path) -> None:
        """Write ``folder/manifest.json`` atomically."""
        with atomic(folder / "manifest.json") as partial:
            partial.write_text(self.model_dump_json(indent=2) + "\n")


@contextmanager
def atomic(path: Path, shared: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path`; on success flush it to disk and rename it into place, else remove it.

    Where several processes may write the same file (`shared`), each has a temporary path of its own.
    """
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial" if shared else path.name + ".partial")
    try:
        yield partial
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def make_writable(folder: Path) -> None:
    """Make a folder where it is not there; raises OSError where that, or writing into it, fails."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def create(path: Path, text: str) -> None:
    """Write a file, unless it is there; of several processes that do so at once, one's is there and whole."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.partial")
    try:
        partial.write_text(text)
        os.link(partial, path)
    except FileExistsError:
        pass
    except OSError:  # a file system that cannot link
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def xxh3(path: Path) -> str:
    """Hex XXH3 of 128 bits: finds damage as SHA-256 does, in an eighth of its time; it is no help against forgery.

    Read in large blocks: after each a thread waits for its turn, long while another one imports modules.
    """
    digest, block = xxhash.xxh3_128(), memoryview(bytearray(_READ))
    with path.open("rb", buffering=0) as handle:
        while size := handle.readinto(block):
            digest.update(block[:size])
    return digest.hexdigest()


def verify(path: Path, expected: str, remedy: str, checksum: Callable[[Path], str] = sha256) -> None:
    """Raise InputError, ending in `remedy`, unless the file is there, can be read and has the expected checksum."""
    if not path.is_file():
        raise InputError(f"{path} is missing. {remedy}")
    try:
        seen = checksum(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}. {remedy}") from None
    if seen != expected:
        raise InputError(f"{path} is damaged: checksum {seen[:12]}, expected {expected[:12]}. {remedy}")


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic(path) as partial:
        partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def link_or_copy(source: Path, target: Path) -> None:
    """Give `source` a second name (no bytes are written); copy it where the file system cannot link."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def describe(folder: Path, entry: Callable[[Path], T]) -> dict[str, T]:
    """Every file below `folder`, flushed to disk: path inside it -> what `entry` says of it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in files:
        with path.open("rb") as handle:  # which suffices, also for files that only their owner may write
            os.fsync(handle.fileno())
    return {path.relative_to(folder).as_posix(): entry(path) for path in files}


def publish(partial: Path, out: Path) -> None:
    """Rename the finished folder `partial` to `out`; an older `out` stays whole until its name is free."""
    with tempfile.TemporaryDirectory(prefix=f"{out.name}.old-", dir=out.parent) as old:
        replaced = Path(old) / "replaced"
        if out.exists():
            out.rename(replaced)
        try:
            partial.rename(out)
        except OSError:
            if replaced.exists():
                replaced.rename(out)
            raise
