"""Search in an engine behind a URL, with the answers of `smar.serving.engine`: hits, page, timings."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from smar.search.engines import DEADLINE, Engine, open_engine
from smar.search.filters import Filter, without
from smar.search.local import FoundItems, Page, Plan, Total
from smar.search.protocol import Hit
from smar.search.remote_index import RemoteIndex
from smar.serving.engine import Searching, SearchResult, timed
from smar.serving.question import Question, RequestError


class RemoteEngine(Searching):
    """An engine whose answers are those of the embedded one; every call may wait for the network.

    ``RemoteEngine.open("postgresql://host/shop").search("red dress", filter="price<50").hits``
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    @classmethod
    def open(cls, url: str, folder: Path | None = None, deadline: float = DEADLINE) -> "RemoteEngine":
        """Connect when first asked; `folder` and `deadline` as of `open_engine`. Raises InputError."""
        return cls(open_engine(url, folder, deadline))

    @property
    def name(self) -> str:
        """Of the engine, for messages."""
        return self._engine.store.name

    @property
    def index(self) -> RemoteIndex:
        """The version that is searched now; raises EngineDown."""
        return self._engine.index

    def ask(self, asked: Question) -> SearchResult:
        """Answer one question; raises as `search`."""
        index, timings = self.index, dict[str, float]()
        plan, chosen = Plan.of(asked.shape, index.schema), self.filter(asked.filter, index)
        if asked.browses:
            return self._browse(index, asked, plan, chosen)
        vectors = index.encoder.encode([asked.query], timings)
        depth = plan.depth(asked.offset + asked.k)

        def best(filter: Filter | None) -> list[Hit]:
            return index.search(vectors, depth, asked.mode, filter, asked.explain)[0]

        with timed(timings, "search"):
            hits = best(chosen)
            total = Total.bounded(index.count(None)) if chosen is None else Total(index.count(chosen))
            page, found = _page(index, hits, asked, plan, total)
            page = self._with_facets(index, page, asked, chosen, best)
        share = float(vectors.image_probability[0])
        unknown = 0.0 if vectors.unknown is None else float(vectors.unknown[0])
        note = index.unserved(asked.mode)
        told = asked.query, asked.mode, share, share > vectors.threshold, unknown, page, timings
        return SearchResult(*told, found.index, note=note)

    def _browse(self, index: RemoteIndex, asked: Question, plan: Plan, chosen: Filter | None) -> SearchResult:
        timings: dict[str, float] = {}
        if asked.shape.rank or asked.shape.collapse or asked.shape.diversify:
            raise RequestError(
                "invalid_request",
                f"{self.name} browses by filter and sort alone; rank, collapse and diversify need a query.",
            )
        with timed(timings, "search"):
            hits, count = index.browse(asked.k, chosen, asked.shape.sort, asked.offset)
            found = found_items(index, hits)
            page = Page(found.ranked, asked.offset, Total(count))
            page = self._with_facets(index, page, asked, chosen, None)
        return SearchResult("", asked.mode, 0.0, False, 0.0, page, timings, found.index)

    def _with_facets(
        self,
        index: RemoteIndex,
        page: Page,
        asked: Question,
        chosen: Filter | None,
        best: Callable[[Filter | None], list[Hit]] | None,
    ) -> Page:
        """Facets among the best hits or among all that matches, as if nothing had been chosen of each."""
        if (wanted := asked.shape.facets) is None:
            return page
        if wanted.contains:
            raise RequestError("invalid_request", f"facets: {self.name} counts values, but does not look into them.")
        counts = {}
        for name in wanted.columns:
            bare = chosen if wanted.within else without(chosen, name)
            if wanted.of == "matches" or best is None:
                counts[name] = index.facet(name, bare, wanted.top)
            else:
                some = found_items(index, best(bare)[: asked.shape.candidates])
                counts[name] = some.count(name, wanted.top, index.about.borders)
        return replace(page, facets=counts)


def found_items(index: RemoteIndex, hits: Sequence[Hit]) -> FoundItems:
    """Hits as a small index."""
    return FoundItems(hits, index.schema, index.version, index.fingerprint, index.dim)


def _page(
    index: RemoteIndex, hits: Sequence[Hit], asked: Question, plan: Plan, total: Total
) -> tuple[Page, FoundItems]:
    found = found_items(index, hits)
    return found.page(asked.k, asked.offset, plan, asked.explain, total), found


def similar_page(
    index: RemoteIndex, item_id: str, k: int, offset: int, filter: Filter | None
) -> tuple[Page, FoundItems]:
    """Items like an item, as a page."""
    found = found_items(index, index.similar(item_id, offset + k, filter)[offset:])
    others = Total(max(index.count(filter) - 1, 0)) if filter is not None else Total.bounded(len(index) - 1)
    return Page(found.ranked, offset, others), found
