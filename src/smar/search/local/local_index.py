"""The embedded engine behind the protocol of all engines (`smar.search.protocol.Index`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from smar.core.files import StrPath
from smar.search.counts import ColumnCounts
from smar.search.filters import Filter
from smar.search.items import Items
from smar.search.local.counted import Facets, check_facets
from smar.search.local.live import UpdatableIndex
from smar.search.local.neighbours import similar
from smar.search.protocol import Hit, Index, Mode
from smar.search.query import QueryEncoder, QueryVectors


class LocalIndex(Index):
    """An index folder as every engine is asked; a change is found by the next search.

    >>> index = LocalIndex.open("index")
    >>> len(index.search(index.encoder.encode(["red dress"]), 10, "text")[0])
    10
    """

    def __init__(self, live: UpdatableIndex) -> None:
        self._live = live

    @classmethod
    def open(cls, folder: StrPath) -> "LocalIndex":
        """Open and verify; raises InputError as `UpdatableIndex.open`."""
        return cls(UpdatableIndex.open(Path(folder)))

    @property
    def fingerprint(self) -> str:
        return self._live.snapshot.fingerprint

    @property
    def dim(self) -> int:
        return self._live.snapshot.dim

    @property
    def schema(self) -> pa.Schema:
        return self._live.snapshot.schema

    @property
    def encoder(self) -> QueryEncoder:
        return self._live.snapshot.encoder

    def __len__(self) -> int:
        return len(self._live.snapshot)

    def search(
        self,
        vectors: QueryVectors,
        k: int = 10,
        mode: Mode | str = Mode.ADAPTIVE,
        filter: Filter | None = None,
        explain: bool = False,
    ) -> list[list[Hit]]:
        return self._live.snapshot.search(vectors, k, mode, filter, explain)

    def similar(self, item_id: str, k: int = 10, filter: Filter | None = None) -> list[Hit]:
        index = self._live.snapshot
        return index.hits(similar(index, item_id, k, filter))

    def count(self, filter: Filter | None = None) -> int:
        return self._live.snapshot.count(filter)

    def facet(self, name: str, filter: Filter | None = None, top: int = 30) -> ColumnCounts:
        check_facets(Facets((name,), "matches", top), self.schema)
        return self._live.snapshot.counts(name, filter, top, None)

    def item(self, item_id: str) -> Mapping[str, Any] | None:
        catalogue = self._live.snapshot.catalogue
        row = catalogue.row_of(item_id)
        return None if row is None else catalogue.items([row])[0]

    def picture(self, item_id: str) -> bytes | None:
        catalogue = self._live.snapshot.catalogue
        row = catalogue.row_of(item_id)
        return None if row is None else catalogue.picture(row)

    def upsert(self, items: Items) -> int:
        return self._live.upsert(items)

    def delete(self, ids: Sequence[str]) -> int:
        return self._live.delete(ids)
