"""Manifests that know when they were changed: the file holds a SHA-256 of its own bytes."""

import hashlib
import re
from pathlib import Path
from typing import Self, get_args

from smar.core.errors import InputError
from smar.core.files import Manifest, StrPath, atomic

_SEAL = re.compile(rb'"seal": "([0-9a-f]{64})"')
_FORMAT = re.compile(rb'"format": "(smar-[\w/-]{1,40})"')
_OPEN = b"0" * 64


class Sealed(Manifest):
    """A manifest whose `seal` is the SHA-256 of the file's bytes with the seal itself written as zeros."""

    seal: str = "0" * 64

    @classmethod
    def read(cls, folder: StrPath, made_by: str) -> Self:
        """As `Manifest.read`, and refuse a file that differs by a byte from what was written."""
        return cls.read_file(Path(folder) / "manifest.json", made_by)

    @classmethod
    def read_file(cls, path: Path, made_by: str) -> Self:
        """Read a sealed file of any name; raises InputError naming it when it is missing or damaged."""
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise InputError(
                f"{path} is missing: {path.parent} was not made by `{made_by}`, or it did not finish. Run `{made_by}`."
            ) from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error}. Run `{made_by}` again.") from None
        found = _SEAL.search(content)
        if found is None or hashlib.sha256(_SEAL.sub(b'"seal": "%s"' % _OPEN, content)).hexdigest() != (
            found[1].decode()
        ):
            raise InputError(
                f"{path} is damaged or is not a manifest of `{made_by}`: its bytes do not fit their checksum. "
                f"Run `{made_by}` again."
            )
        formats: tuple[str, ...] = get_args(cls.model_fields["format"].annotation)
        seen = written[1].decode() if (written := _FORMAT.search(content)) else formats[0]
        if seen not in formats and seen.partition("/")[0] == formats[0].partition("/")[0]:
            raise InputError(
                f"{path} is of format {seen}; this smar reads {', '.join(formats)}. Build it again with `{made_by}`."
            )
        try:
            return cls.model_validate_json(content)
        except ValueError as error:
            raise InputError(f"{path} is not a manifest of `{made_by}`: {error}. Make it again.") from None

    def write(self, folder: Path) -> None:
        """Write ``folder/manifest.json`` atomically, sealed."""
        self.write_file(folder / "manifest.json")

    def write_file(self, path: Path) -> None:
        """Write a sealed file of any name atomically."""
        content = self.model_copy(update={"seal": _OPEN.decode()}).model_dump_json(indent=2).encode() + b"\n"
        seal = hashlib.sha256(content).hexdigest().encode()
        with atomic(path) as partial:
            partial.write_bytes(_SEAL.sub(b'"seal": "%s"' % seal, content, count=1))
