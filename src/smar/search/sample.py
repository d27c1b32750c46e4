"""Held-out queries and what exact search finds for them while items pass by: what efforts are chosen with."""

from typing import Any

import numpy as np
import pyarrow as pa

from smar.search.embeddings import QUERY_FOLDER, Embeddings, sample_queries
from smar.search.protocol import Mode, widen
from smar.search.query import QueryEncoder
from smar.search.ranked import Vectors
from smar.search.store import Store
from smar.search.stored import ID, Stored

_MODES = (Mode.ADAPTIVE, Mode.ROUTE, Mode.TEXT, Mode.MULTIMODAL)
_NEAREST = 50  # recall is that of so many
_SAMPLE = 60  # queries that efforts are chosen with
_CHECKED = 8

Best = dict[Mode, list[tuple[Vectors, Any]]]
"""For each mode and query the scores of the best items, and their ids."""


class Sample:
    """Held-out queries and what exact search finds for them, mode by mode, while the items pass by."""

    def __init__(self, wide: dict[Mode, Vectors]) -> None:
        self.wide = wide
        self.best: Best = {
            mode: [(np.empty(0, np.float32), np.empty(0, object))] * len(own) for mode, own in wide.items()
        }

    def see(self, rows: pa.Table, wide: Vectors) -> None:
        """Some more items."""
        ids = np.array(rows[ID].to_pylist(), object)
        self.merge({mode: [(scores, ids) for scores in queries @ wide.T] for mode, queries in self.wide.items()})

    def merge(self, best: Best) -> None:
        """What was found among some more items."""
        for mode, lists in best.items():
            for at, ((before, own), (scores, ids)) in enumerate(zip(self.best[mode], lists, strict=True)):
                score, names = np.concatenate([before, scores]), np.concatenate([own, ids])
                first = np.argsort(-score, kind="stable")[:_NEAREST]
                self.best[mode][at] = score[first], names[first]

    def tuned(
        self, store: Store, version: str, stored: Stored, efforts: tuple[int, ...], target: float
    ) -> tuple[dict[Mode, int], dict[Mode, float]]:
        """The least effort of each mode that reaches the target, or else the greatest; and the recall with it."""
        chosen, reached = {}, {}
        if len(efforts) == 1:  # exact: some queries are enough to see that it is
            self.wide = {mode: own[:_CHECKED] for mode, own in self.wide.items()}
        for mode in _MODES:
            for effort in efforts:
                chosen[mode], reached[mode] = effort, self._recall(store, version, stored, mode, effort)
                if reached[mode] >= target:
                    break
        return chosen, reached

    def _recall(self, store: Store, version: str, stored: Stored, mode: Mode, effort: int) -> float:
        shares = []
        for wide, (_, names) in zip(self.wide[mode], self.best[mode], strict=False):
            found = store.nearest(version, stored, wide, len(names), None, effort)
            shares.append(len(set(found["item_id"].to_pylist()) & set(names)) / len(names))
        return float(np.mean(shares))


def sampled(source: Embeddings) -> dict[Mode, Vectors]:
    """Validation queries, or beginnings of titles, as each mode asks."""
    encoder = QueryEncoder.load(source.path / QUERY_FOLDER)
    vectors = encoder.encode(sample_queries(source.valid(), source.payload)[:_SAMPLE])
    return {mode: widen(vectors, mode) for mode in _MODES}
