"""The embedded index: one folder that a process maps into memory, verified byte for byte when opened."""

from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

import faiss
import numpy as np
import pyarrow as pa
from pydantic import Field

from smar.errors import InputError
from smar.files import FileEntry, Manifest, verify
from smar.index.base import MAX_HITS, Hit, Mode, weigh, widen
from smar.index.catalogue import Catalogue
from smar.index.embeddings import PAYLOAD_FILE, PICTURES_FILE, QUERY_FOLDER, read_payload
from smar.index.filters import Filter
from smar.index.query import QueryEncoder, QueryManifest, QueryVectors
from smar.index.vectors import Allowed, Rows, Vectors, VectorStore

FAISS_FILE = "vectors.faiss"
EXACT_FILE = "vectors.npy"
MADE_BY = "smar index"
_CACHED_FILTERS = 64


class IndexManifest(Manifest):
    """``INDEX/manifest.json``: what the index holds and how each of its files must look."""

    format: Literal["smar-index/1"] = "smar-index/1"
    fingerprint: str
    kind: str
    dim: int = Field(ge=1)
    items: int = Field(ge=1)
    created: str = Field(description="UTC, ISO 8601")
    index_type: str = Field(description="faiss factory string")
    nprobe: int | None = Field(None, description="lists visited per query; None when the search is exact")
    recall: float | None = Field(None, description="recall@50 against exact search at that nprobe; None when exact")
    files: dict[str, FileEntry]


def check_fingerprint(path: Path, fingerprint: str, dim: int) -> None:
    """Refuse a query encoder folder at `path` made by another model than `fingerprint`."""
    query = QueryManifest.read(path, MADE_BY)
    if query.fingerprint != fingerprint or query.dim != dim:
        raise InputError(
            f"{path / 'manifest.json'}: the query encoder is of model {query.fingerprint} (dim {query.dim}), "
            f"the vectors are of model {fingerprint} (dim {dim}); their scores would mean nothing. "
            "Embed and index again."
        )


def _verify(path: Path, manifest: IndexManifest) -> None:
    for name, entry in manifest.files.items():
        file = path / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{path / 'manifest.json'} names {name!r}, which lies outside the index.")
        if file.is_file() and (size := file.stat().st_size) != entry.size:  # cheaper than its checksum
            raise InputError(f"{file} has {size:,} bytes, expected {entry.size:,}. Run `{MADE_BY}` again.")
        verify(file, entry.sha256, f"Run `{MADE_BY}` again.")


def _read_vectors(path: Path, manifest: IndexManifest) -> VectorStore:
    file = path / FAISS_FILE
    try:
        index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise InputError(f"{file} cannot be read by faiss: {error}. Run `{MADE_BY}` again.") from None
    if index.ntotal != manifest.items or index.d != 2 * manifest.dim:
        raise InputError(
            f"{file} holds {index.ntotal:,} vectors of {index.d} dimensions, expected {manifest.items:,} of "
            f"{2 * manifest.dim}. Run `{MADE_BY}` again."
        )
    vectors: Vectors
    if manifest.nprobe is None:
        vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    else:
        vectors = np.load(path / EXACT_FILE, mmap_mode="r", allow_pickle=False)
    if vectors.shape != (manifest.items, 2 * manifest.dim):
        raise InputError(f"{path / EXACT_FILE} has shape {vectors.shape}. Run `{MADE_BY}` again.")
    return VectorStore(index, vectors, manifest.nprobe)


class EmbeddedIndex:
    """An opened index folder; searching is safe from several threads."""

    def __init__(self, path: Path, manifest: IndexManifest, store: VectorStore, catalogue: Catalogue) -> None:
        self.path = path
        self.manifest = manifest
        self.catalogue = catalogue
        self._store = store
        self._allowed = lru_cache(maxsize=_CACHED_FILTERS)(self._find_allowed)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open and verify an index folder.

        Raises:
            InputError: it is not an index, a file is missing, truncated or damaged, or the query encoder inside is of
                another model; the message names the file and, for a model, both fingerprints.
        """
        manifest = IndexManifest.read(path, MADE_BY)
        check_fingerprint(path / QUERY_FOLDER, manifest.fingerprint, manifest.dim)
        _verify(path, manifest)
        payload = read_payload(path / PAYLOAD_FILE, manifest.items, MADE_BY)
        return cls(path, manifest, _read_vectors(path, manifest), Catalogue(payload, path / PICTURES_FILE))

    @property
    def fingerprint(self) -> str:
        """Of the model that made the vectors."""
        return self.manifest.fingerprint

    @property
    def dim(self) -> int:
        """k, the size of one query vector."""
        return self.manifest.dim

    @property
    def schema(self) -> pa.Schema:
        """Item columns that filters may name."""
        return self.catalogue.table.schema

    def __len__(self) -> int:
        return self.manifest.items

    def load_encoder(self) -> QueryEncoder:
        """The query encoder that belongs to these vectors."""
        return QueryEncoder.load(self.path / QUERY_FOLDER)

    def search(
        self,
        vectors: QueryVectors,
        k: int = 10,
        mode: Mode = Mode.ADAPTIVE,
        filter: Filter | None = None,
        explain: bool = False,
    ) -> list[list[Hit]]:
        """The best `k` (1..MAX_HITS) items of each query, best first; fewer only when fewer match the filter.

        With `explain`, hits know their rank without pictures, which costs a second search in the text
        vectors.
        """
        if not 1 <= k <= MAX_HITS:
            raise InputError(f"k is {k}; allowed: 1 to {MAX_HITS}.")
        allowed = self._allowed(filter) if filter is not None else None
        found = self._store.top(widen(vectors, mode), k, allowed)
        if mode is Mode.TEXT:
            ranks = [_ranks(rows) for rows in found]
        elif explain:
            ranks = [_ranks(rows) for rows in self._store.top(widen(vectors, Mode.TEXT), MAX_HITS, allowed)]
        else:
            ranks = [{} for _ in found]
        share = weigh(vectors, mode)
        return [
            self._hits(rows, query, float(weight), rank)
            for rows, query, weight, rank in zip(found, vectors.embedding, share, ranks, strict=True)
        ]

    def allowed_rows(self, filter: Filter) -> Rows:
        """Rows that match `filter`, ascending."""
        return self._allowed(filter).rows

    def _find_allowed(self, filter: Filter) -> Allowed:
        return Allowed.of(filter.mask(self.catalogue.table))

    def _hits(self, rows: Rows, query: Vectors, share: float, rank_text: dict[int, int]) -> list[Hit]:
        block = self._store.vectors[rows]
        multimodal = block[:, : self.dim] @ query
        text = block[:, self.dim :] @ query
        score = share * multimodal + (1 - share) * text
        payload: list[dict[str, Any]] = self.catalogue.items(rows.tolist())
        return [
            Hit(
                item_id=item["item_id"],
                score=float(score[at]),
                text_score=float(text[at]),
                multimodal_score=float(multimodal[at]),
                rank_text=rank_text.get(int(rows[at])),
                row=int(rows[at]),
                has_picture=self.catalogue.has_picture(int(rows[at])),
                payload=item,
            )
            for at, item in enumerate(payload)
        ]


def _ranks(rows: Rows) -> dict[int, int]:
    return {int(row): rank for rank, row in enumerate(rows, start=1)}
