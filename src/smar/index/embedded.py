"""The embedded index: one folder that a process maps into memory, verified byte for byte when opened."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from itertools import repeat
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

import faiss
import numpy as np
import pyarrow as pa
from pydantic import Field

from smar.errors import InputError
from smar.files import FileEntry, verify
from smar.index.base import MAX_HITS, Hit, Mode, weigh, widen
from smar.index.catalogue import Catalogue
from smar.index.embeddings import PAYLOAD_FILE, PICTURES_FILE, QUERY_FOLDER, read_payload
from smar.index.facets import FacetCounts, count_facets, price_borders
from smar.index.filters import Filter
from smar.index.fusion import Fused, HybridFit, depth_of, fuse
from smar.index.query import QueryEncoder, QueryManifest, QueryVectors
from smar.index.sealed import Sealed
from smar.index.segment import CatalogueView, Segment
from smar.index.vectors import Rows, Vectors, VectorStore
from smar.index.versions import MADE_BY, current_version
from smar.index.words import WORDS_FOLDER, WordIndex

FAISS_FILE = "vectors.faiss"
EXACT_FILE = "vectors.npy"
FACETS = ("category", "brand")


class IndexManifest(Sealed):
    """``INDEX/v0001/manifest.json``: what the index holds and how each of its files must look."""

    format: Literal["smar-index/2"] = "smar-index/2"
    fingerprint: str
    kind: str
    dim: int = Field(ge=1)
    items: int = Field(ge=1)
    created: str = Field(description="UTC, ISO 8601")
    index_type: str = Field(description="faiss factory string")
    nprobe: int | None = Field(None, description="lists visited per query; None when the search is exact")
    recall: float | None = Field(None, description="recall@50 against exact search at that nprobe; None when exact")
    recall_target: float | None = None
    hybrid: HybridFit | None = Field(None, description="None in a version from before there was hybrid search")
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
    """Sizes first, as they are cheap; then checksums, several files at a time."""
    for name, entry in manifest.files.items():
        file = path / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{path / 'manifest.json'} names {name!r}, which lies outside the index.")
        if file.is_file() and (size := file.stat().st_size) != entry.size:
            raise InputError(f"{file} has {size:,} bytes, expected {entry.size:,}. Run `{MADE_BY}` again.")

    def check(name: str) -> None:
        verify(path / name, manifest.files[name].sha256, f"Run `{MADE_BY}` again.")

    largest_first = sorted(manifest.files, key=lambda name: -manifest.files[name].size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(check, largest_first))


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


def _words(path: Path, manifest: IndexManifest) -> WordIndex | None:
    if manifest.hybrid is None:
        return None
    return WordIndex(path / WORDS_FOLDER, manifest.items, manifest.hybrid.fields, manifest.hybrid.mean_length)


class EmbeddedIndex:
    """An opened index: one version of it, with the updates since when `UpdatableIndex` made it.

    It never changes, so searching is safe from several threads while a newer one takes its place.
    """

    def __init__(
        self, path: Path, manifest: IndexManifest, segments: Sequence[Segment], encoder: QueryEncoder | None = None
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.segments = tuple(segments)
        self.catalogue = CatalogueView(self.segments)
        if encoder is not None:
            self.encoder = encoder
        self.facets = lru_cache(maxsize=16)(self._count)

    @classmethod
    def open(cls, path: Path, check: bool = True) -> Self:
        """Open and verify one version of an index; of an index folder the current one, without later updates.

        Args:
            path: an index folder or a version inside it.
            check: compare every byte with the manifest's checksums. Leave it out only where another process has just
                done so.

        Raises:
            InputError: it is not an index, a file is missing, truncated or damaged, or the query encoder inside is of
                another model; the message names the file and, for a model, both fingerprints.
        """
        path = current_version(path)
        manifest = IndexManifest.read(path, MADE_BY)
        check_fingerprint(path / QUERY_FOLDER, manifest.fingerprint, manifest.dim)
        if check:
            _verify(path, manifest)
        payload = read_payload(path / PAYLOAD_FILE, manifest.items, MADE_BY)
        catalogue = Catalogue(payload, path / PICTURES_FILE)
        return cls(path, manifest, [Segment(_read_vectors(path, manifest), catalogue, words=_words(path, manifest))])

    def with_segments(self, segments: Sequence[Segment]) -> "EmbeddedIndex":
        """The same version with other segments behind it."""
        return EmbeddedIndex(self.path, self.manifest, segments, self.encoder)

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
        return self.segments[0].catalogue.table.schema

    def __len__(self) -> int:
        return len(self.catalogue)

    @cached_property
    def encoder(self) -> QueryEncoder:
        """The query encoder that belongs to these vectors, loaded when first asked for."""
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
        widened = widen(vectors, mode)
        fused: list[Fused] | None = None
        if mode is Mode.HYBRID:
            wide = self._top(widened, depth_of(k), filter)
            fused = fuse(self.segments, self.manifest.hybrid, vectors, widened, wide, k, filter)
        found = self._top(widened, k, filter) if fused is None else [one.rows for one in fused]
        if mode is Mode.TEXT:
            ranks = [_ranks(rows) for rows in found]
        elif explain:
            ranks = [_ranks(rows) for rows in self._top(widen(vectors, Mode.TEXT), MAX_HITS, filter)]
        else:
            ranks = [{} for _ in found]
        share = weigh(vectors, mode)
        return [
            self._hits(rows, query, float(weight), rank, one)
            for rows, query, weight, rank, one in zip(
                found, vectors.embedding, share, ranks, fused or repeat(None, len(found)), strict=True
            )
        ]

    def _top(self, queries: Vectors, k: int, filter: Filter | None) -> list[Rows]:
        """Each query's best `k` rows of all segments; a row of a later segment counts from its `first_row`."""
        by_segment = [segment.top(queries, k, filter) for segment in self.segments]
        if len(by_segment) == 1:
            return by_segment[0]
        merged = []
        for query, *found in zip(queries, *by_segment, strict=True):
            pairs = list(zip(self.segments, found, strict=True))
            scores = np.concatenate([segment.store.scores(query, rows) for segment, rows in pairs])
            rows = np.concatenate([rows + segment.first_row for segment, rows in pairs])
            merged.append(rows[np.lexsort((rows, -scores))[:k]])
        return merged

    def _vectors(self, rows: Rows) -> Vectors:
        block = self.segments[0].store.vectors[np.minimum(rows, len(self.segments[0].store) - 1)]
        for segment in self.segments[1:]:
            later = rows >= segment.first_row
            block[later] = segment.store.vectors[rows[later] - segment.first_row]
        return block

    def _count(self, filter: Filter | None = None, top: int | None = None) -> FacetCounts:
        """Counts of category, brand and price ranges among the items that match; kept for the latest 16 questions."""
        parts = [segment.part(filter) for segment in self.segments]
        return count_facets(parts, FACETS, self._price_borders, top)

    @cached_property
    def _price_borders(self) -> tuple[float, ...]:
        return price_borders([segment.part(None) for segment in self.segments])

    def _hits(
        self, rows: Rows, query: Vectors, share: float, rank_text: dict[int, int], fused: Fused | None
    ) -> list[Hit]:
        block = self._vectors(rows)
        multimodal = block[:, : self.dim] @ query
        text = block[:, self.dim :] @ query
        score = share * multimodal + (1 - share) * text if fused is None else fused.score
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
                words_score=None if fused is None else float(fused.words[at]),
            )
            for at, item in enumerate(payload)
        ]


def _ranks(rows: Rows) -> dict[int, int]:
    return {int(row): rank for rank, row in enumerate(rows, start=1)}
