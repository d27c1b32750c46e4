"""Engines behind a URL: which there are, opening one, and loading embeddings into it.

postgresql://user@host/db?table=shop    PostgreSQL with pgvector
milvus://host:19530/shop                Milvus; milvus:///path/shop.db/shop is a file of milvus-lite
lance:///path/shop, lance+s3://bucket/shop    a Lance dataset
"""

import importlib
import threading
import time
from pathlib import Path

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.search.remote_index import RemoteIndex
from smar.search.store import About, Store

ENGINES = {
    "postgresql": ("postgres", "PostgresStore", "postgres"),
    "postgres": ("postgres", "PostgresStore", "postgres"),
    "milvus": ("milvus", "MilvusStore", "milvus"),
    "lance": ("lance", "LanceStore", "lance"),
    "lance+s3": ("lance", "LanceStore", "lance"),
}
"""Scheme of a URL -> module, class, and the extra of `smar` that brings its driver."""
DEADLINE = 2.0
"""Seconds that an engine has for one answer."""
_LOOK = 1.0  # seconds for which a version is believed to be the published one


def is_url(text: str) -> bool:
    """Whether this names an engine and not a folder: has one of the schemes, or one that looks like it."""
    return "://" in text


def open_store(url: str, deadline: float = DEADLINE) -> Store:
    """Connect to an engine.

    Raises:
        InputError: the scheme is unknown, the URL is wrong, or the engine's driver is not installed.
    """
    scheme = url.partition("://")[0]
    if scheme not in ENGINES:
        known = ", ".join(f"{name}://" for name in ENGINES)
        raise InputError(f"{scheme}:// is no engine that smar knows; there are {known}, or a folder.")
    module, kind, extra = ENGINES[scheme]
    try:
        found = getattr(importlib.import_module(f"smar.search.{module}"), kind)
        store: Store = found(url, deadline)
    except ImportError as error:
        raise InputError(f"{scheme}:// needs {error.name}: pip install 'smar[{extra}]'") from None
    return store


class Engine:
    """An engine that is open for searching; safe to share between threads.

    ``open_engine("postgresql://host/shop").index.count()``
    """

    def __init__(self, store: Store, folder: Path | None) -> None:
        self.store, self._folder = store, folder
        self._held: RemoteIndex | None = None
        self._looked = 0.0
        self._looking = threading.Lock()

    @property
    def index(self) -> RemoteIndex:
        """The version that is searched now; another one is noticed within a second.

        Raises:
            InputError: nothing is published there.
            EngineDown: the engine does not answer.
        """
        with self._looking:
            if self._held is None or time.monotonic() - self._looked > _LOOK:
                self._held = self._newest(self._held)
                self._looked = time.monotonic()
            return self._held

    def _newest(self, held: RemoteIndex | None) -> RemoteIndex:
        published = self.store.published()
        if published is None:
            raise InputError(f"{self.store.name} holds no index there; run `smar index EMBEDDINGS --to URL`.")
        version, text = published
        if held is not None and held.version == version:
            return held
        try:
            about = About.model_validate_json(text)
        except ValueError as error:
            raise InputError(f"what {self.store.name} tells of {version} cannot be read: {error}.") from None
        return RemoteIndex(self.store, version, about, self._folder or Path(about.folder))

    def close(self) -> None:
        """Let go of connections and files."""
        self.store.close()


def open_engine(url: str, folder: StrPath | None = None, deadline: float = DEADLINE) -> Engine:
    """Open what `smar index --to URL` loaded.

    `folder` holds query encoder and pictures, where that is not the folder it was loaded from; `deadline` is in
    seconds.

    Raises:
        InputError: as `open_store`.
    """
    return Engine(open_store(url, deadline), None if folder is None else Path(folder))


def password_free(url: str) -> str:
    """A URL as it may be told: without what stands between a user's name and the host.

    >>> password_free("postgresql://shop:secret@db/items")
    'postgresql://shop@db/items'
    """
    head, at, tail = url.rpartition("@")
    scheme, mark, user = head.partition("://")
    return f"{scheme}{mark}{user.partition(':')[0]}{at}{tail}" if at else url


__all__ = ["DEADLINE", "ENGINES", "Engine", "is_url", "open_engine", "open_store", "password_free"]
