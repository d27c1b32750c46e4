"""Addresses such as ``s3://bucket/run``, and the back-end of fsspec that reads and writes there."""

import re
from typing import Any

from smar.core.errors import InputError

STORES = ("s3", "s3a", "gs", "gcs", "memory")
"""Schemes under which a folder of a stage may lie: those that replace an object in one go (`memory` is for tests)."""
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_EXTRAS = {"http": "http", "https": "http", "s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}
"""Scheme -> extra of smar that installs its back-end."""


def is_remote(path: str) -> bool:
    """Whether a path is an address such as https://... or s3://..."""
    return _ADDRESS.match(path) is not None


def is_store(path: object) -> bool:
    """Whether it is an address in an object store.

    >>> is_store("s3://bucket/run"), is_store("postgresql://host/shop"), is_store("run")
    (True, False, False)
    """
    return isinstance(path, str) and is_remote(path) and scheme_of(path) in STORES


def scheme_of(url: str) -> str:
    """What stands before ``://``, in small letters."""
    return url.partition("://")[0].lower()


def opened(url: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        InputError: nobody knows the scheme.
        ImportError: its package is not installed; `install_line` says how it is.
    """
    import fsspec
    from fsspec.registry import known_implementations, registry

    scheme = scheme_of(url)
    if scheme not in known_implementations and scheme not in registry:
        raise InputError(
            f"{url}: {scheme}:// is no known kind of address. Allowed: https://, s3://, gs://, hf://, and the others "
            "of fsspec (https://filesystem-spec.readthedocs.io)."
        )
    # What lists a folder twice wants to see what others wrote meanwhile.
    options = {"use_listings_cache": False} if scheme in ("s3", "s3a", "gs", "gcs") else {}
    system, path = fsspec.core.url_to_fs(url, **options)
    return system, str(path)


def install_line(scheme: str) -> str:
    """How to install the back-end of a scheme."""
    extra = _EXTRAS.get(scheme)
    return f"pip install 'smar[{extra}]'" if extra else "Install that package."
