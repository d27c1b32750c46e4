"""What another engine found as a small index of its own, so that its page is arranged and shown as ours is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from smar.core.errors import InputError
from smar.search.counts import ColumnCounts
from smar.search.local.arrange import arranged
from smar.search.local.asked import Asked
from smar.search.local.counted import count_column
from smar.search.local.item_store import Catalogue
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.segment import Segment
from smar.search.local.shape import NOTHING, Page, Plan, Relation, Total
from smar.search.local.vectors import VectorStore
from smar.search.local.version_files import IndexManifest
from smar.search.protocol import Hit, Mode
from smar.search.query import QueryVectors
from smar.search.ranked import Ranked

_NO_QUERY = QueryVectors(np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
"""What was found is arranged without asking again."""


class FoundItems:
    """The hits of one query, best first; `version`, `fingerprint` and `dim` are those of the index that found them.

    >>> hit = Hit("a", 0.5, 0.5, 0.5, None, 0, False, {"item_id": "a"})
    >>> len(FoundItems([hit], pa.schema({"item_id": pa.string()}), "v0001", "0123", 32).index)
    1
    """

    def __init__(self, hits: Sequence[Hit], schema: pa.Schema, version: str, fingerprint: str, dim: int) -> None:
        table = pa.Table.from_pylist([dict(hit.payload) for hit in hits], schema)
        pictured = pa.array([int(hit.has_picture) for hit in hits], pa.int64())
        located = table.append_column("picture_offset", pictured).append_column("picture_length", pictured)
        manifest = IndexManifest(
            fingerprint=fingerprint,
            kind="found",
            dim=dim,
            items=max(len(hits), 1),
            created="",
            index_type="found",
            files={},
        )
        store = VectorStore(None, np.zeros((len(hits), 1), np.float32), None)
        self.index = EmbeddedIndex(Path(version), manifest, [Segment(store, Catalogue(located, None))])
        ranks = [-1 if hit.rank_text is None else hit.rank_text for hit in hits]
        told = any(hit.rank_text is not None for hit in hits)
        scores = np.array([(hit.score, hit.text_score, hit.multimodal_score) for hit in hits], np.float32)
        score, text, multimodal = scores.reshape(len(hits), 3).T.copy()
        by_words = np.array(ranks, np.int64) if told else None
        self.ranked = Ranked(np.arange(len(hits)), score, text, multimodal, by_words)

    def page(self, k: int, offset: int, plan: Plan, explain: bool, total: Total) -> Page:
        """Hits number `offset` + 1 and on, arranged; of cards it could not be told what they stand for."""
        if plan.shape.collapse is not None:
            raise InputError(
                "collapse: one hit for several items is answered by the embedded index alone, which knows all of them."
            )
        if plan is NOTHING:
            return Page(self.ranked.pick(np.arange(len(self.ranked))[offset : offset + k]), offset, total)
        page = arranged(Asked(self.index, _NO_QUERY, Mode.ADAPTIVE, explain, plan), self.ranked, k, None, offset)
        everything = total.relation is Relation.EXACT and total.value == len(self.ranked)
        told = None if page.sorted is None else replace(page.sorted, all=everything)
        return replace(page, total=page.total if plan.fixed else total, sorted=told)

    def count(self, name: str, top: int, borders: Mapping[str, Sequence[float]]) -> ColumnCounts:
        """A facet of these hits, whose ranges have the whole catalogue's `borders`."""
        segments = self.index.segments
        segments[0].catalogue.columns.keep("borders", name, lambda: np.array(borders.get(name, ()), np.float64))
        return count_column(segments, self.ranked.rows, name, top)
