"""An index for a Python program: built of embeddings or of vectors in memory, opened, searched. Needs no torch."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.search.engines import is_url
from smar.search.local import CANDIDATES, RECALL_TARGET, Collapse, Facets, Shape, build_index
from smar.search.protocol import MAX_HITS, Mode
from smar.serving.engine import Engine, SearchResult
from smar.serving.remote_engine import RemoteEngine
from smar.storage.copies import with_copies

if TYPE_CHECKING:
    from smar.api.loaded import Encoder
    from smar.model.encoder import ItemVectors


class Index:
    """A searchable catalogue with the query encoder of its model; `engine` is what the service searches with.

    >>> import smar
    >>> index = smar.Index.open("index")
    >>> len(index)
    300
    >>> found = index.search("red dress", k=3, mode="text", filter="price<500")
    >>> len(found.hits), sorted(found.hits[0].payload)[:2]
    (3, ['brand', 'category'])
    """

    def __init__(self, engine: Engine | RemoteEngine) -> None:
        self.engine = engine

    @classmethod
    @with_copies
    def open(cls, index: StrPath, folder: StrPath | None = None, *, rules: StrPath | None = None) -> Self:
        """Open an index folder, with a file of a shop's `rules` (docs/rules.md), or an engine's URL (docs/engines.md).

        Of a folder in a store, such as ``s3://bucket/index`` (docs/storage.md), the newest version is copied first.
        `folder` is where a URL's query encoder and pictures lie, if not where it was loaded from. Raises InputError,
        which names the file, where an index is damaged or none, or a rule is wrong, and EngineDown where an engine
        does not answer.
        """
        return cls(open_engine(index, folder, rules))

    @classmethod
    @with_copies
    def build(
        cls,
        embeddings: "StrPath | ItemVectors | Mapping[str, Any]",
        out: StrPath = "index",
        *,
        items: Any = None,
        encoder: "Encoder | None" = None,
        recall: float = RECALL_TARGET,
    ) -> Self:
        """Add a version to the index folder `out`, serve it, and open it.

        >>> import smar
        >>> rows = [{"item_id": "a", "title": "Red dress", "price": 20.0}]
        >>> rows += [{"item_id": "b", "title": "Kettle", "price": 9.0}]
        >>> encoder = smar.load("run")
        >>> index = smar.Index.build(encoder.encode_item(rows), "small-index", items=rows, encoder=encoder)
        >>> [hit.item_id for hit in index.search("dress", filter="price>10").hits]
        ['a']

        Args:
            embeddings: folder of `embed`, here or in a store; or vectors of items, as `Encoder.encode_item` gives them
                or as a mapping of `text` and `multimodal`, arrays [n, k] of unit vectors.
            out: the index, here or in a store.
            items: of vectors in memory: one row an item, with `item_id` and the columns to show and to filter by, as a
                table of pandas, polars or pyarrow, or a list of dicts. A key `image` is left out: the index of arrays
                shows no pictures.
            encoder: of vectors in memory: their model.
            recall: recall@50 against exact search to tune to, above 100,000 items.

        Raises:
            InputError: embeddings, items and encoder do not fit each other, or `out` is something other than an index.
        """
        if isinstance(embeddings, str | Path):
            if items is not None or encoder is not None:
                raise InputError("items and encoder belong to vectors in memory: a folder of embeddings has both.")
            build_index(embeddings, out, recall=recall)
            return cls.open(out)
        from smar.embedding.arrays import write_arrays

        if items is None or encoder is None:
            raise InputError("vectors in memory need items=, what they are of, and encoder=, what made them.")
        text, served = _arrays(embeddings)
        with tempfile.TemporaryDirectory() as folder:
            write_arrays(encoder.towers, _table(items), text, served, Path(folder))
            build_index(folder, out, recall=recall)
        return cls.open(out)

    def __len__(self) -> int:
        return len(self.engine.index)

    def search(
        self,
        query: str,
        k: int = 10,
        mode: Mode | str = Mode.ADAPTIVE,
        filter: str | None = None,
        *,
        offset: int = 0,
        sort: str | Sequence[str] = (),
        rank: str | None = None,
        collapse: str | None = None,
        facets: str | Sequence[str] = (),
        cutoff: bool = False,
    ) -> SearchResult:
        """Find items: `hits` of the result are the best `k` from number `offset` + 1 on (docs/api.md).

        Args:
            query: words; empty to browse what the filter leaves.
            k: at most 200.
            mode: `adaptive`, `route`, `text`, `multimodal` or `hybrid`.
            filter: such as ``price<50 and category in (Shirt, Dress)``.
            offset: hits to leave out before them.
            sort: columns, such as ``price``, or ``-price`` for descending.
            rank: an expression such as ``score * (1 + 0.2 * log1p(sold))``.
            collapse: a column of which equal values are one hit.
            facets: columns to count.
            cutoff: leave out hits that are not relevant to the query (docs/index.md).

        Raises:
            InputError: the query is too long, or one of the others is wrong; the message says what is allowed.
        """
        shape = Shape(
            cutoff=cutoff,
            candidates=MAX_HITS if cutoff else CANDIDATES,
            rank=rank,
            sort=_names(sort),
            collapse=Collapse(collapse) if collapse else None,
            facets=Facets(_names(facets)) if facets else None,
        )
        return self.engine.search(query, k, mode, filter, False, offset, shape)


def open_engine(index: StrPath, folder: StrPath | None = None, rules: StrPath | None = None) -> Engine | RemoteEngine:
    """What searches a folder or an engine behind a URL."""
    if is_url(str(index)):
        if rules is not None:
            raise InputError("rules are followed by the embedded index alone; an engine behind a URL has none.")
        return RemoteEngine.open(str(index), None if folder is None else Path(folder))
    if folder is not None:
        raise InputError("the folder of a query encoder belongs to an engine's URL; an index folder has its own.")
    return Engine.open(index, rules=rules)


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _arrays(vectors: "ItemVectors | Mapping[str, Any]") -> list[Any]:
    """Text and served vectors float32 [n, k]; that they have length 1 is seen when they are read again."""
    if isinstance(vectors, Mapping):
        if missing := {"text", "multimodal"} - vectors.keys():
            raise InputError(
                f"the vectors lack {' and '.join(sorted(missing))}; give text and multimodal, [n, k] each."
            )
        both = [vectors["text"], vectors["multimodal"]]
    else:
        both = [vectors.text, vectors.served]
    return [np.ascontiguousarray(matrix, np.float32) for matrix in both]


def _table(items: Any) -> pa.Table:
    if isinstance(items, Sequence):
        items = pa.Table.from_pylist([{name: row[name] for name in row if name != "image"} for row in items])
    elif hasattr(items, "__arrow_c_stream__"):
        items = pa.table(items)
    else:
        raise InputError(
            f"the items are a {type(items).__name__}; give a table of pandas, polars or pyarrow, or dicts."
        )
    return items.drop_columns(["image"]) if "image" in items.column_names else items
