"""An index that an engine behind a URL holds: what is the same of all engines.

`smar.search.store.Store` is what one engine has to do; candidates are scored here, exactly, from the vectors that come
with them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from smar.core.errors import InputError, member
from smar.core.files import atomic
from smar.data.voices import query_features
from smar.search.column_values import Kind
from smar.search.counts import ColumnCounts
from smar.search.embeddings import PICTURES_FILE, QUERY_FOLDER, check_fingerprint
from smar.search.filters import Filter
from smar.search.items import PICTURE as ITEM_PICTURE
from smar.search.items import Items
from smar.search.predicates import Predicate, Present, joined, positive
from smar.search.protocol import MAX_HITS, Hit, Index, Mode, check_k, weigh
from smar.search.query import QueryEncoder, QueryVectors
from smar.search.ranked import Queries, Query, Vectors
from smar.search.rarity import CountedWords
from smar.search.store import About, Store
from smar.search.stored import ID, PICTURE, VECTOR, Column

ADDED_FOLDER = "pictures"
"""Pictures of items that were upserted, named by their checksum."""
MOST_SORTED = 200_000
_HALF = np.full(1, 0.5, np.float32)


@dataclass(frozen=True)
class RemoteIndex(Index):
    """One version in an engine, as `smar.search.protocol.Index` has it; `folder` holds query encoder and pictures.

    ``open_engine("lance:///tmp/shop").index.search(vectors, 10, "text")``
    """

    store: Store
    version: str
    about: About
    folder: Path

    @property
    def fingerprint(self) -> str:
        return self.about.fingerprint

    @property
    def dim(self) -> int:
        return self.about.dim

    @property
    def schema(self) -> pa.Schema:
        return self.about.stored.schema

    @cached_property
    def encoder(self) -> QueryEncoder:
        """The query encoder in the folder, loaded when first asked for."""
        check_fingerprint(self.folder / QUERY_FOLDER, self.fingerprint, self.dim)
        return QueryEncoder.load(self.folder / QUERY_FOLDER)

    def __len__(self) -> int:
        return self.count()

    def count(self, filter: Filter | None = None) -> int:
        return self.store.count(self.version, positive(filter, self.about.stored))

    def pictured(self, filter: Filter | None = None) -> int:
        """How many of these have a picture."""
        there: Predicate = Present(Column("picture", pa.string(), PICTURE, Kind.TEXT), True)
        asked = positive(filter, self.about.stored)
        return self.store.count(self.version, there if asked is None else joined([asked, there], False))

    def search(
        self,
        vectors: QueryVectors,
        k: int = 10,
        mode: Mode | str = Mode.ADAPTIVE,
        filter: Filter | None = None,
        explain: bool = False,
    ) -> list[list[Hit]]:
        """See `smar.search.protocol.Index`; `words_score` is None, as no words are held."""
        mode = member(Mode, mode, "mode")
        check_k(k)
        if mode is Mode.HYBRID:
            raise InputError(
                f"{self.store.name} does not answer mode hybrid: it holds no words to rank by. Ask for another mode, "
                "or serve the embedded index (`smar index EMBEDDINGS --out INDEX`)."
            )
        predicate = positive(filter, self.about.stored)
        queries = Queries(vectors.embedding, self._share(vectors, mode))
        found = [self._nearest(queries[at], queries.wide[at], k, predicate, mode) for at in range(len(queries))]
        if mode is Mode.TEXT:
            return [self._hits(*own, ranks=range(1, k + 1)) for own in found]
        if not explain:
            return [self._hits(*own) for own in found]
        words = Queries(vectors.embedding, weigh(vectors, Mode.TEXT))
        answers = []
        for at, (rows, scores) in enumerate(found):
            by_words, _ = self._nearest(words[at], words.wide[at], MAX_HITS, predicate, Mode.TEXT)
            rank = {item_id: place for place, item_id in enumerate(by_words[ID].to_pylist(), start=1)}
            answers.append(self._hits(rows, scores, [rank.get(item_id) for item_id in rows[ID].to_pylist()]))
        return answers

    def unserved(self, mode: Mode) -> str | None:
        """What an answer in `mode` leaves out; None where that is nothing."""
        if mode is not Mode.ADAPTIVE or self.encoder.voices is None:
            return None
        return (
            f"the gate gives words a share of their own, which {self.store.name} does not serve: the shares of the "
            "two vectors are scaled up to one"
        )

    def _share(self, vectors: QueryVectors, mode: Mode) -> Vectors:
        """Share of the multimodal score [n]; where words have a share of their own, of what that leaves."""
        voices = self.encoder.voices if mode is Mode.ADAPTIVE and vectors.texts is not None else None
        if voices is None or vectors.texts is None:
            return weigh(vectors, mode)
        features = query_features(vectors.texts, self._rarity, voices.known, vectors.image_probability)
        _, text, picture = voices.shares(features).T
        share: Vectors = (picture / np.maximum(text + picture, 1e-12)).astype(np.float32)
        return share

    @cached_property
    def _rarity(self) -> CountedWords:
        return CountedWords.read(self.folder)

    def _nearest(
        self, query: Query, wide: Vectors, k: int, predicate: Predicate | None, mode: Mode
    ) -> tuple[pa.Table, Vectors]:
        """The best rows in exact order, and their scores [3, n]: the sum, text and multimodal."""
        effort = self.about.effort.get(mode, max(self.about.effort.values(), default=0))
        rows = self.store.nearest(self.version, self.about.stored, wide, k, predicate, effort)
        return scored(rows, query, self.dim)

    def _hits(self, rows: pa.Table, scores: Vectors, ranks: Iterable[int | None] | None = None) -> list[Hit]:
        score, text, multimodal = scores.tolist()
        items = self.about.stored.items(rows).to_pylist()
        pictured = pc.is_valid(rows[PICTURE]).to_pylist()
        given = [None] * len(items) if ranks is None else ranks
        each = zip(items, score, text, multimodal, given, pictured, strict=False)
        return [
            Hit(item[ID], own, words, looks, rank, at, shown, item)
            for at, (item, own, words, looks, rank, shown) in enumerate(each)
        ]

    def similar(self, item_id: str, k: int = 10, filter: Filter | None = None) -> list[Hit]:
        """See `smar.search.protocol.Index`: half the text score, half the multimodal score."""
        if not 1 <= k < MAX_HITS:
            raise InputError(f"k is {k}; allowed: 1 to {MAX_HITS - 1}.")
        own = self.store.rows(self.version, self.about.stored, [item_id])
        if not len(own):
            raise InputError(f"there is no item {item_id[:100]!r} in this index.")
        wide = matrix(own, self.dim)
        queries = Queries(wide[:, : self.dim], _HALF, wide[:, self.dim :])
        predicate = positive(filter, self.about.stored)
        found = self._nearest(queries[0], queries.wide[0], k + 1, predicate, Mode.ADAPTIVE)
        return [hit for hit in self._hits(*found) if hit.item_id != item_id][:k]

    def facet(self, name: str, filter: Filter | None = None, top: int = 30) -> ColumnCounts:
        stored, predicate = self.about.stored, positive(filter, self.about.stored)
        column = next((column for column in stored.columns if column.name == name), None)
        if column is None or column.kind is Kind.OTHER:
            if name not in stored.schema.names or column is not None:
                said = f"facets: {name[:100]!r} is unknown or nested. Columns: {', '.join(stored.schema.names)}."
                raise InputError(said)
            return ColumnCounts(self.count(filter), ())
        return self.store.counts(self.version, column, predicate, top, self.about.borders.get(name, ()))

    def browse(
        self, k: int, filter: Filter | None = None, sort: Sequence[str] = (), offset: int = 0
    ) -> tuple[list[Hit], int]:
        """Hits number `offset` + 1 and on of all that matches, and how many that are; by id where no `sort` says more.

        Scores are 0: nothing was asked. Raises InputError where more match than are sorted here.
        """
        stored, predicate = self.about.stored, positive(filter, self.about.stored)
        if (count := self.store.count(self.version, predicate)) > MOST_SORTED:
            raise InputError(
                f"{count:,} items match, of which {self.store.name} sorts {MOST_SORTED:,}; filter further."
            )
        names = [name.removeprefix("-") for name in sort]
        fields = [column for column in stored.columns if column.name in {ID, *names}]
        order = [
            (stored.field(name.removeprefix("-")).field, "descending" if name.startswith("-") else "ascending")
            for name in sort
            if name.removeprefix("-") in {column.name for column in fields}
        ]
        table = self.store.values(self.version, fields, predicate)
        places = pc.sort_indices(table, sort_keys=[*order, (ID, "ascending")], null_placement="at_end")
        ids = table[ID].take(places[offset : offset + k]).to_pylist()
        return self.of_ids(ids), count

    def of_ids(self, ids: Sequence[str]) -> list[Hit]:
        """Some items in the order of their ids, with scores 0; those that are not there are left out."""
        rows = self.store.rows(self.version, self.about.stored, ids)
        place = {item_id: at for at, item_id in enumerate(rows[ID].to_pylist())}
        rows = rows.take(pa.array([place[item_id] for item_id in ids if item_id in place], pa.int64()))
        return self._hits(rows, np.zeros((3, len(rows)), np.float32))

    def item(self, item_id: str) -> Mapping[str, Any] | None:
        rows = self.store.rows(self.version, self.about.stored, [item_id])
        found: list[Mapping[str, Any]] = self.about.stored.items(rows).to_pylist()
        return found[0] if found else None

    def picture(self, item_id: str) -> bytes | None:
        """The encoded picture of an item, None when it has none; InputError where the folder has lost it."""
        places = self.store.rows(self.version, self.about.stored, [item_id])[PICTURE].to_pylist()
        return _read_picture(self.folder, places[0]) if places and places[0] is not None else None

    def upsert(self, items: Items) -> int:
        """See `smar.search.protocol.Index`; pictures are written to the folder first."""
        stored = self.about.stored
        table = items.as_table(stored.schema, self.fingerprint, self.dim)
        wide = np.concatenate([items.multimodal, items.text], axis=1, dtype=np.float32)
        places = [_write_picture(self.folder, picture) for picture in table[f"__{ITEM_PICTURE}"].to_pylist()]
        self.store.write(self.version, stored.table(table.select(stored.schema.names), wide, places))
        return int(table.num_rows)

    def delete(self, ids: Sequence[str]) -> int:
        return self.store.remove(self.version, list(dict.fromkeys(ids)))


def scored(rows: pa.Table, query: Query, dim: int) -> tuple[pa.Table, Vectors]:
    """Rows in the order of their exact scores, and these [3, n]: the sum, text and multimodal; equal ones by id."""
    wide = matrix(rows, dim)
    multimodal, text = wide[:, :dim] @ query.embedding, wide[:, dim:] @ query.words
    score = query.share * multimodal + (1 - query.share) * text
    order = np.lexsort((np.array(rows[ID].to_pylist(), object), -score)) if len(rows) else np.zeros(0, np.int64)
    scores: Vectors = np.stack([score, text, multimodal])[:, order]
    return rows.take(pa.array(order)), scores


def matrix(rows: pa.Table, dim: int) -> Vectors:
    """The wide vectors of some rows, float32 [n, 2k]."""
    flat: Vectors = rows[VECTOR].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(rows), 2 * dim)


def packed(offset: int | None, length: int | None) -> str | None:
    """Where a picture lies in the folder's pictures file; None where there is none."""
    return f"{offset}:{length}" if length else None


def _write_picture(folder: Path, picture: bytes | None) -> str | None:
    if picture is None:
        return None
    name = xxhash.xxh3_128_hexdigest(picture)
    (folder / ADDED_FOLDER).mkdir(exist_ok=True)
    with atomic(folder / ADDED_FOLDER / name) as partial:
        partial.write_bytes(picture)
    return name


def _read_picture(folder: Path, place: str) -> bytes:
    offset, packs, length = place.partition(":")
    path = folder / PICTURES_FILE if packs else folder / ADDED_FOLDER / place
    try:
        with path.open("rb") as file:
            file.seek(int(offset) if packs else 0)
            return file.read(int(length) if packs else -1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}.") from None
