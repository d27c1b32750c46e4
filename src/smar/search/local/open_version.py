"""The embedded index: one folder that a process maps into memory, verified byte for byte when opened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from smar.core.errors import member
from smar.core.files import StrPath
from smar.data.voices import Voices
from smar.data.words import words as words_of
from smar.search.embeddings import QUERY_FOLDER, check_fingerprint
from smar.search.expansion import Expansion
from smar.search.filters import Filter
from smar.search.local.candidates import Blend
from smar.search.local.counted import matches_counter
from smar.search.local.facets import FacetCounts, count_facets, price_borders
from smar.search.local.fusion import as_read, ask_all, blend_of, fuse, parts_of, voices_of
from smar.search.local.payload import open_payload
from smar.search.local.postings import WordQuery
from smar.search.local.segment import CatalogueView, Segment, place, top_of
from smar.search.local.version_files import IndexManifest, read_vectors, read_words, verify_files
from smar.search.local.versions import MADE_BY, current_version
from smar.search.local.word_index import WordIndex
from smar.search.protocol import MAX_HITS, Hit, Mode, check_k, weigh
from smar.search.query import QueryEncoder, QueryVectors
from smar.search.ranked import Corrections, Queries, Ranked, Rows, Vectors

FACETS = ("category", "brand")


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Queries as a mode searches with them.

    `vectors` are as their words are read, `queries` have the mode's share of the multimodal score. `words` and how they
    are blended are there where words take part.
    """

    vectors: QueryVectors
    queries: Queries
    words: Sequence[WordQuery] | None = None
    blends: Sequence[Blend | None] = ()


class EmbeddedIndex:
    """An opened index: one version of it, with the updates since when `UpdatableIndex` made it.

    It never changes, so searching is safe from several threads while a newer one takes its place.

    >>> index = EmbeddedIndex.open("index")
    >>> hits = index.search(index.encoder.encode(["red dress"]), k=3, mode="text")[0]
    >>> len(hits)
    3
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
        self.facets = _counter(self.segments)
        self._read = _reader(self.segments)
        self.counts = matches_counter(self.segments)

    @classmethod
    def open(cls, path: StrPath, check: bool = True) -> Self:
        """Open and verify one version of an index; of an index folder the current one, without later updates.

        Args:
            path: an index folder or a version inside it.
            check: compare every byte with the manifest's checksums. Leave it out only where another process has just
                done so.

        Raises:
            InputError: it is not an index, a file is missing, truncated or damaged, or the query encoder inside is of
                another model; the message names the file and, for a model, both fingerprints.
        """
        path = Path(path)
        path = current_version(path)
        manifest = IndexManifest.read(path, MADE_BY)
        check_fingerprint(path / QUERY_FOLDER, manifest.fingerprint, manifest.dim)
        if check:
            verify_files(path, manifest)
        catalogue = open_payload(path, manifest.items, MADE_BY)
        return cls(path, manifest, [Segment(read_vectors(path, manifest), catalogue, words=read_words(path, manifest))])

    def with_segments(self, segments: Sequence[Segment]) -> "EmbeddedIndex":
        """The same version with other segments behind it."""
        return EmbeddedIndex(self.path, self.manifest, segments, self.encoder)

    @staticmethod
    def files_of(version: Path) -> list[Path]:
        """All files of a version but its updates; most of them are mapped."""
        return [version / name for name in ("manifest.json", *IndexManifest.read(version, MADE_BY).files)]

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
        return self.segments[0].catalogue.schema

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
        mode: Mode | str = Mode.ADAPTIVE,
        filter: Filter | None = None,
        explain: bool = False,
    ) -> list[list[Hit]]:
        """`rank` with the items' columns."""
        return [self.hits(ranked) for ranked in self.rank(vectors, k, mode, filter, explain)]

    def rank(
        self,
        vectors: QueryVectors,
        k: int = 10,
        mode: Mode | str = Mode.ADAPTIVE,
        filter: Filter | None = None,
        explain: bool = False,
    ) -> list[Ranked]:
        """The best `k` (1..MAX_HITS) items of each query, best first; fewer only when fewer match the filter.

        With `explain`, items know their rank without pictures, which costs a second search in the text
        vectors.

        Raises:
            InputError: `k` is out of range, or there is no such mode.
        """
        check_k(k)
        mode = member(Mode, mode, "mode")
        ready = self.prepared(vectors, mode)
        vectors, queries = ready.vectors, ready.queries
        words: list[Vectors | None] = [None] * len(queries)
        corrected: list[Corrections | None] = [None] * len(queries)
        if ready.words is not None:
            fused = fuse(self.segments, ready.blends, queries, ready.words, k, filter)
            found, words = [items for items, _ in fused], [scores for _, scores in fused]
            corrected = [query.corrected() for query in ready.words]
        else:
            found = top_of(self.segments, queries, k, filter)
        ranks: list[Rows | None] = [None] * len(found)
        if mode is Mode.TEXT:
            ranks = [np.arange(1, len(items) + 1) for items in found]
        elif explain:
            by_text = top_of(self.segments, Queries(vectors.embedding, weigh(vectors, Mode.TEXT)), MAX_HITS, filter)
            ranks = [_ranks(items.rows, text.rows) for items, text in zip(found, by_text, strict=True)]
        return [Ranked.of(*parts) for parts in zip(found, ranks, words, corrected, strict=True)]

    def prepared(self, vectors: QueryVectors, mode: Mode) -> Prepared:
        """Queries as `rank` searches with them."""
        voices = self._voices(vectors) if mode is Mode.ADAPTIVE else None
        if mode is not Mode.HYBRID and voices is None:
            return Prepared(vectors, Queries(vectors.embedding, weigh(vectors, mode)))
        words = self.words(vectors.texts, vectors.expansions)
        vectors = as_read(vectors, words, self.encoder)
        share = weigh(vectors, mode)
        blends: Sequence[Blend | None] = [blend_of(self.manifest.hybrid)] * len(words)
        if voices is not None:
            blends, share = voices_of(self.segments, vectors, words, voices)
        return Prepared(vectors, Queries(vectors.embedding, share), words, blends)

    def words(
        self, texts: Sequence[str] | None, expansions: Sequence[Expansion | None] | None = None
    ) -> list[WordQuery]:
        """The words of some queries with their synonyms, and what stands in for those that no item holds.

        Raises:
            InputError: the queries come without their texts, or the index was built without words.
        """
        if texts is None or expansions:
            return ask_all(self.segments, texts, expansions)
        return [self._read(text) for text in texts]

    def _voices(self, vectors: QueryVectors) -> Voices | None:
        """Fitted shares of words and vectors; None where the model, the index or the queries come without words."""
        held = vectors.texts is not None and all(segment.words is not None for segment in self.segments)
        return self.encoder.voices if held else None

    def prepare(self, filter: Filter) -> None:
        """Find what matches a filter; searches with it are quicker from then on."""
        for segment in self.segments:
            segment.allowed(filter)

    def count(self, filter: Filter | None) -> int:
        """How many items match."""
        allowed = (segment.allowed(filter) for segment in self.segments)
        return sum(
            len(part.store) if mask is None else mask.count for part, mask in zip(self.segments, allowed, strict=True)
        )

    def nearest(self, queries: Queries, k: int, filter: Filter | None = None) -> list[Ranked]:
        """The best `k` (1..MAX_HITS) items of queries that are vectors already."""
        check_k(k)
        return [Ranked.of(items) for items in top_of(self.segments, queries, k, filter)]

    def vectors(self, row: int) -> tuple[Vectors, Vectors]:
        """S_m and S_t of the item at `row`, float32 [k] each, as they are stored."""
        segment, at = place(self.segments, row)
        own = np.array(segment.store.vectors[at], np.float32)
        return own[: self.dim], own[self.dim :]

    def sample(self, most: int) -> Rows:
        """Rows of the version's items at even distances, ascending: int64 [most], or all there are."""
        items = len(self.segments[0].store)
        return np.linspace(0, items - 1, min(most, items)).astype(np.int64)

    def idf(self, word: str) -> float:
        """Weight of a word by its rarity."""
        base = self.segments[0].words
        assert isinstance(base, WordIndex)
        return base.idf(word)

    def unheld(self, text: str) -> float:
        """Share of a text's words, by length, that no item holds any more; 1 where it or the index has none."""
        if self.manifest.hybrid is None:
            return 1.0
        parts = parts_of(self.segments)
        size = {word: len(word) for word in words_of(text, self.manifest.hybrid.language)}
        held = sum(size[word] for word in size if any(part.holds(word) for part in parts))
        return 1 - held / sum(size.values()) if size else 1.0

    def hits(self, ranked: Ranked) -> list[Hit]:
        """The items' columns with what was found."""
        payload: list[dict[str, Any]] = self.catalogue.items(ranked.rows.tolist())
        pictured = self.catalogue.pictured(ranked.rows)
        ranks = np.full(len(ranked), -1) if ranked.rank_text is None else ranked.rank_text
        return [
            Hit(
                item_id=item["item_id"],
                score=float(ranked.score[at]),
                text_score=float(ranked.text_score[at]),
                multimodal_score=float(ranked.multimodal_score[at]),
                rank_text=int(ranks[at]) if ranks[at] > 0 else None,
                row=int(ranked.rows[at]),
                has_picture=bool(pictured[at]),
                payload=item,
                words_score=None if ranked.words_score is None else float(ranked.words_score[at]),
            )
            for at, item in enumerate(payload)
        ]


def _reader(segments: Sequence[Segment]) -> Callable[[str], WordQuery]:
    """The words of one query, kept for the latest ones; a function of the segments alone, as `_counter`."""

    @lru_cache(maxsize=2048)
    def read(text: str) -> WordQuery:
        return ask_all(segments, [text])[0]

    return read


def _counter(segments: Sequence[Segment]) -> Callable[..., FacetCounts]:
    """Counts of category, brand and price ranges among the items that match; kept for the latest 16 questions.

    A function of the segments alone: see `smar.search.local.segment` on circles of references.
    """

    @lru_cache(maxsize=1)
    def borders() -> tuple[float, ...]:
        return price_borders([segment.part(None) for segment in segments])

    @lru_cache(maxsize=16)
    def count(filter: Filter | None = None, top: int | None = None) -> FacetCounts:
        return count_facets([segment.part(filter) for segment in segments], FACETS, borders(), top)

    return count


def _ranks(rows: Rows, ranking: Rows) -> Rows:
    """Rank (from 1) of each of `rows` in `ranking`, -1 for none."""
    order = np.argsort(ranking)
    places = np.minimum(np.searchsorted(ranking, rows, sorter=order), len(ranking) - 1)
    return np.where(ranking[order[places]] == rows, order[places] + 1, -1)
