"""Ids of sessions and clients as hashes that only who has the folder's secret can make again."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from smar.core.errors import InputError

SECRET = "sessions.key"  # nosec B105: a file's name
_KEY, _SALT = 32, 16


class Hasher:
    """Keyed, salted BLAKE2b of an id; equal ids of one kind have equal hashes as long as the secret stays."""

    def __init__(self, secret: bytes) -> None:
        self._key, self._salt = secret[:_KEY], secret[_KEY:]
        self._known = lru_cache(maxsize=4096)(self._hash)  # the events of a body are of one session

    @classmethod
    def of(cls, folder: Path) -> "Hasher":
        """With the secret of a folder, which whoever comes first makes.

        Raises:
            InputError: the file is not a secret that was made so.
        """
        file = folder / SECRET
        partial = file.with_name(f".{SECRET}-{os.getpid()}")
        try:
            with open(partial, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as new:
                new.write(os.urandom(_KEY + _SALT))
                os.fsync(new.fileno())
            os.link(partial, file)
        except FileExistsError:
            pass
        finally:
            partial.unlink(missing_ok=True)
        secret = file.read_bytes()
        if len(secret) != _KEY + _SALT:
            raise InputError(f"{file} has {len(secret)} bytes, not {_KEY + _SALT}: remove it to begin anew.")
        return cls(secret)

    def __call__(self, kind: str, name: str | None) -> str | None:
        """The hash of an id of this kind, 32 hexadecimal digits; None for none."""
        return self._known(kind, name) if name else None

    def _hash(self, kind: str, name: str) -> str:
        person = kind.encode()
        return hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=16, key=self._key, salt=self._salt,
                               person=person).hexdigest()  # fmt: skip
