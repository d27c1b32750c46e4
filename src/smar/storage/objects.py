"""What lies below a folder's address in a store: parts of files, and manifests of what the folder consisted of.

- ``files/PATH/SHA256``: the parts (of 64 MiB) of the file PATH, each called by its checksum. A part that is there is
  not sent again, and none is ever changed; a file of one part is an object that other programs can read.
- ``manifests/00000001.json`` ...: size and parts of each file. It is written last, and created only if it is not there:
  of two that publish at once, one is refused. The highest number counts.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smar.core.errors import InputError
from smar.core.files import Manifest
from smar.storage.location import install_line, opened, scheme_of

KEPT = 2
"""Complete states of a folder that stay, beside an incomplete one that is newer."""


class StoreDown(OSError):
    """The store does not answer, or refuses."""


class StoredFile(BaseModel):
    """Size in bytes, and SHA-256 of each part in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(ge=0)
    parts: tuple[str, ...]


class Published(Manifest):
    """What a folder consists of."""

    format: Literal["smar-store/1"] = "smar-store/1"
    number: int = Field(ge=1)
    complete: bool
    part: int = Field(gt=0)
    files: dict[str, StoredFile]


class Objects:
    """The objects of one folder.

    >>> objects = Objects("memory://doctest/objects")
    >>> objects.put(objects.key("words.txt", "0a"), b"red dress")
    >>> objects.get(objects.key("words.txt", "0a"), 4, 9), objects.manifests()
    (b'dress', [])

    Raises:
        InputError: the scheme is not known, or its package is not installed.
        StoreDown: the store does not answer; what is asked for and not there is a FileNotFoundError.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._system, self._root = opened(url)
        except ImportError as error:
            raise InputError(f"{url}: {error}. {install_line(scheme_of(url))}") from None

    def key(self, name: str, digest: str) -> str:
        """Of a part."""
        return f"{self._root}/files/{name}/{digest}"

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self._ask(self._system.pipe_file, key, content)

    def get(self, key: str, start: int | None = None, end: int | None = None) -> bytes:
        """An object's bytes, or those from `start` to `end` (exclusive)."""
        content: bytes = self._ask(self._system.cat_file, key, start=start, end=end)
        return content

    def part(self, name: str, digest: str) -> bytes:
        """A part's bytes; InputError where it is missing or was altered."""
        key = self.key(name, digest)
        try:
            block = self.get(key)
        except FileNotFoundError:
            raise InputError(f"{self.url}: {key}, a part of {name}, is missing. Publish the folder again.") from None
        if hashlib.sha256(block).hexdigest() != digest:
            raise InputError(
                f"{self.url}: {name} was altered in the store: {key} does not have the checksum that it is called by. "
                "Remove that object and publish the folder again."
            )
        return block

    def sizes(self) -> dict[str, int]:
        """Size of each part that is there, by its key."""
        return {name: entry["size"] for name, entry in self._found("files", detail=True).items()}

    def manifests(self) -> list[int]:
        """Numbers of the manifests that are there, ascending."""
        stems = (PurePosixPath(name).stem for name in self._found("manifests") if name.endswith(".json"))
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def newest(self, complete: bool) -> Published | None:
        """The newest manifest, or None; with `complete`, of a finished folder. InputError where one is damaged."""
        for number in reversed(self.manifests()):
            found = self._manifest(number)
            if found is not None and (found.complete or not complete):
                return found
        return None

    def create(self, made: Published) -> None:
        """Write a manifest unless there is one of its number or a higher one, which is an InputError."""
        content = made.model_dump_json().encode()
        try:
            if max(self.manifests(), default=0) >= made.number:
                raise FileExistsError
            self._ask(self._system.pipe_file, self._place(made.number), content, mode="create")
        except FileExistsError:
            raise InputError(f"{self.url}: another process published there meanwhile. Run it again.") from None

    def remove_old(self) -> None:
        """Remove manifests that are not kept, and the parts that only they name. A part that nobody names yet stays."""
        states = [state for number in reversed(self.manifests()) if (state := self._manifest(number)) is not None]
        finished = [state for state in states if state.complete][:KEPT]
        kept = {state.number: state for state in (*states[:1], *finished)}
        held = {key for state in kept.values() for key in self._keys(state)}
        old = [state for state in states if state.number not in kept]
        for key in [self._place(state.number) for state in old]:
            self._ask(self._system.rm_file, key)
        for key in {key for state in old for key in self._keys(state)} - held:
            try:
                self._ask(self._system.rm_file, key)
            except FileNotFoundError:
                continue  # gone since it was listed

    def _found(self, below: str, **options: bool) -> Any:
        try:
            return self._ask(self._system.find, f"{self._root}/{below}", **options)
        except FileNotFoundError:
            return {}

    def _manifest(self, number: int) -> Published | None:
        try:
            return Published.model_validate_json(self.get(self._place(number)))
        except FileNotFoundError:  # removed since it was listed
            return None
        except ValidationError as error:
            place = self._place(number)
            raise InputError(f"{self.url}: {place} is damaged: {error}. Remove it and publish again.") from None

    def _keys(self, state: Published) -> Iterator[str]:
        return (self.key(name, digest) for name, file in state.files.items() for digest in file.parts)

    def _place(self, number: int) -> str:
        return f"{self._root}/manifests/{number:08d}.json"

    def _ask(self, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return call(*given, **named)
        except (FileNotFoundError, FileExistsError):
            raise
        except Exception as error:  # each back-end has errors of its own, without a common base
            raise StoreDown(
                f"{self.url}: the store does not answer or refuses ({type(error).__name__}: {error!s:.300})."
            ) from error
