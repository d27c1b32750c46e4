"""One query of a search that is arranged: what it finds, whatever a shop's rules bring into it."""

from dataclasses import dataclass, replace

import numpy as np

from smar.search.column_values import Kind
from smar.search.expansion import Expansion
from smar.search.filters import Comparison, Filter
from smar.search.local.cutoff import Cut
from smar.search.local.cutoff_scores import above
from smar.search.local.fusion import blend_of
from smar.search.local.influence import Moved, category_of, pinned
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.shape import Plan
from smar.search.protocol import Mode
from smar.search.query import QueryVectors
from smar.search.ranked import Ranked, Rows


@dataclass(frozen=True, slots=True)
class Asked:
    """One query of a search that is arranged."""

    index: EmbeddedIndex
    vectors: QueryVectors
    mode: Mode
    explain: bool
    plan: Plan
    cut: Cut | None = None

    @property
    def expansion(self) -> Expansion | None:
        """The synonyms of its words."""
        return self.vectors.expansions[0] if self.vectors.expansions else None

    def rank(self, depth: int, filter: Filter | None) -> Ranked:
        """The best `depth`."""
        return self.index.rank(self.vectors, depth, self.mode, filter, self.explain)[0]

    def only(self, vectors: QueryVectors, rows: Rows) -> Ranked:
        """The scores of some rows by what they would be found by."""
        names = tuple(map(self.index.catalogue.item_id, rows.tolist()))
        these = Filter(Comparison("item_id", Kind.TEXT, "in", names))
        return self.index.rank(vectors, len(rows), self.mode, these)[0]

    def kept(self, found: Ranked) -> Ranked:
        """What was not cut off."""
        return found if self.cut is None else above(found, self.cut)

    def with_pinned(self, found: Ranked, filter: Filter | None) -> Ranked:
        """What was found, and after it what is pinned, matches, and was not found."""
        if not (pins := pinned(self.index.segments, self.plan.influence.pins, filter)):
            return found
        known = set(found.rows.tolist())
        missing = np.array([row for row, _ in pins if row not in known], np.int64)
        return found.followed(self.only(self.vectors, missing)) if len(missing) else found

    def best_rows(self, filter: Filter | None) -> Rows:
        """What facets count under another filter."""
        most = self.plan.shape.candidates
        found = self.kept(self.index.rank(self.vectors, most, self.mode, filter)[0])
        return self.with_pinned(found.pick(np.arange(min(most, len(found)))), filter).rows

    def with_synonyms(self, found: Ranked) -> Moved:
        """What was found, and what synonyms added to the score of each, where that is to be told."""
        if not self.explain or self.expansion is None or self.vectors.texts is None or not len(found):
            return Moved.of(found)
        if self.mode is Mode.HYBRID and blend_of(self.index.manifest.hybrid) is None:  # a sum of ranks, which differ
            return Moved.of(found)
        typed = self.only(self.index.encoder.encode(self.vectors.texts), found.rows)
        scores = dict(zip(typed.rows.tolist(), typed.score.tolist(), strict=True))
        typed_scores = np.array([scores[row] for row in found.rows.tolist()])
        added = found.score.astype(np.float64) - typed_scores
        told = {"by": "synonyms", "rule": ", ".join(self.expansion.rules)}
        return Moved(found, found.score, None, (added,), (told,))

    def settled(self, found: Ranked) -> "Asked":
        """With the rules that hold for the category of what was found."""
        influence = self.plan.influence
        seen = category_of(self.index.segments, influence.column, found.rows)
        return replace(self, plan=replace(self.plan, influence=influence.of(seen)))
