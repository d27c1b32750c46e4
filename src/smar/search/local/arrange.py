"""From what a search found to the page that is shown: candidates -> ranked anew -> sorted -> cards -> page.

A search without any of this is a page of the ranking, and costs no more than it did. Ranked and sorted are the best
`candidates`, the same ones on every page. What is browsed (no query) is all that matches, and sorted whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from smar.core.errors import InputError
from smar.search.counts import ColumnCounts
from smar.search.filters import Filter, without
from smar.search.local.asked import Asked
from smar.search.local.cards import COUNTED, Collapse, Others, Variants, best_of_each, card_ids, diverse
from smar.search.local.counted import count_column
from smar.search.local.cutoff import HEAD, Cut
from smar.search.local.cutoff_scores import cuts
from smar.search.local.expressions import Expression
from smar.search.local.influence import NO_INFLUENCE, Moved, Pin, category_of, in_places, pinned
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.segment import Segment, place
from smar.search.local.shape import NOTHING, Page, Plan, RankedBy, Relation, Shape, Sorted, Total
from smar.search.local.sorting import sorted_places
from smar.search.local.taken import by_segment, matching
from smar.search.local.vectors import Allowed
from smar.search.protocol import MAX_HITS, Mode
from smar.search.query import QueryVectors
from smar.search.ranked import Ranked, Rows

_BROWSED = 20_000
"""Items of what is browsed among which its first cards mostly are."""


def check_place(offset: int, k: int) -> None:
    """Raise InputError where a page begins before the first hit or ends beyond the last one that can be shown."""
    if offset < 0 or offset + k > MAX_HITS:
        raise InputError(f"offset is {offset} and k {k}; allowed: offset from 0, together at most {MAX_HITS}.")


def search(
    index: EmbeddedIndex,
    vectors: QueryVectors,
    k: int,
    mode: Mode,
    filter: Filter | None,
    explain: bool,
    offset: int = 0,
    plan: Plan = NOTHING,
) -> list[Page]:
    """A page of each query: `k` hits from number `offset` + 1 on.

    Raises:
        InputError: the page does not lie among the first `MAX_HITS` hits, or what is asked of it is impossible.
    """
    check_place(offset, k)
    shown = plan.influence.shown(filter)
    found = index.rank(vectors, plan.depth(offset + k), mode, shown, explain)
    if plan is NOTHING and not (explain and vectors.expansions):
        return [page_of(index, items, filter, offset) for items in found]
    limits: Sequence[Cut | None] = [None] * len(found)
    if plan.shape.cutoff:
        known = shown is None and plan.depth(offset + k) >= HEAD  # a cut-off is the same under every filter
        limits = cuts(index, vectors, mode, found if known else index.rank(vectors, HEAD, mode))
    return [
        _page(Asked(index, vectors[at : at + 1], mode, explain, plan, cut), items, filter, k, offset)
        for at, (items, cut) in enumerate(zip(found, limits, strict=True))
    ]


def _page(asked: Asked, items: Ranked, filter: Filter | None, k: int, offset: int) -> Page:
    index, depth = asked.index, asked.plan.depth(offset + k)
    before = asked.plan.influence.shown(filter)
    if asked.plan.influence.conditional:
        asked = asked.settled(items)
    plan, filter = asked.plan, asked.plan.influence.shown(filter)
    if filter != before or plan.depth(offset + k) > depth:  # by what rules for the category of the hits say
        depth = max(depth, plan.depth(offset + k))
        items = asked.rank(depth, filter)
    whole, items = items, asked.kept(items)
    page = arranged(asked, items, k, filter, offset, more=len(items) == depth)
    few = not plan.fixed and asked.cut is None and len(page.hits) < k  # most of them share few cards
    if few and len(items) == depth < MAX_HITS:
        items = asked.rank(MAX_HITS, filter)
        page = arranged(asked, items, k, filter, offset)
    if plan.shape.facets is not None:
        few = len(items) <= plan.shape.candidates
        best = asked.with_pinned(items if few else items.pick(np.arange(plan.shape.candidates)), filter)
        page = replace(page, facets=_facets(index, plan.shape, filter, best.rows, asked.best_rows))
    if asked.cut is not None and not len(page.hits) and offset == 0:
        page = replace(page, near=whole.pick(_cards(index.segments, whole.rows, plan.shape)[:k]))
    return page


def _facets(
    index: EmbeddedIndex, shape: Shape, filter: Filter | None, rows: Rows, again: Callable[[Filter | None], Rows] | None
) -> dict[str, ColumnCounts]:
    """The facets among the best `rows`, or among all that matches; `again` finds the best ones under another filter."""
    assert shape.facets is not None
    collapse = None if shape.collapse is None else shape.collapse.column

    def with_cards(rows: Rows) -> tuple[Rows, Rows | None]:
        cards = None if collapse is None else card_ids(index.segments, collapse, rows)
        alone = cards is None or bool(np.diff(np.sort(cards)).all())  # each row is a card: rows are counted
        return rows, None if alone else cards

    found: dict[Filter | None, tuple[Rows, Rows | None]] = {}
    counts = {}
    for name in shape.facets.columns:
        bare = filter if shape.facets.within else without(filter, name)
        if shape.facets.of == "matches" or again is None:
            counts[name] = index.counts(name, bare, shape.facets.top, collapse, shape.facets.contains)
            continue
        if bare not in found:
            found[bare] = with_cards(rows if bare == filter else again(bare))
        best, cards = found[bare]
        counts[name] = count_column(index.segments, best, name, shape.facets.top, cards, shape.facets.contains)
    return counts


def arranged(asked: Asked, items: Ranked, k: int, filter: Filter | None, offset: int, more: bool = False) -> Page:
    """A page of what was found: ranked anew, sorted, made cards, cut. Of what was cut off there may be `more`."""
    index, plan, cut = asked.index, asked.plan, asked.cut
    segments, shape, total = index.segments, plan.shape, _matching(index, filter)
    hits, ranked, told, others = asked.with_synonyms(asked.with_pinned(items, filter)), None, None, None
    if cut is not None:
        total = Total(len(hits), Relation.AT_LEAST if more and total.value > len(items) else Relation.EXACT)
    everything = total.relation is Relation.EXACT and total.value == len(hits)
    if plan.rank is not None:
        hits, ranked = _ranked(segments, plan.rank, hits)
    defined = len(hits) - (0 if ranked is None else ranked.undefined)
    hits = hits.by(segments, plan.influence.moves, min(shape.candidates, defined))
    if plan.sort:
        order = sorted_places(segments, plan.sort, hits.rows, len(hits))
        hits, told = hits.pick(order), Sorted(shape.sort, len(order), everything)
    pins = _pins(segments, plan, filter)
    hits = hits.pick(_first_of_all(hits.rows, pins)) if pins else hits
    rows = hits.rows
    cards = in_places(_cards(segments, rows, shape), [pin.place for _, pin in pins])
    shown = hits.pick(cards[offset : offset + k])
    if plan.fixed:
        total = Total(len(hits))
    if shape.collapse is not None:
        allowed = _allowed(index, filter) if cut is None else _only(index, rows)
        all_known, relation = everything or plan.fixed, total.relation
        countable = cut is not None or _count(index, filter) <= COUNTED
        others, total = _others(index, shape.collapse, shown.rows, rows, allowed, len(cards), all_known, countable)
        if cut is not None:
            total = replace(total, relation=relation)
    page = Page(shown.now, offset, total, ranked, told, others, cut=cut, redirect=plan.influence.redirect)
    synonyms = () if asked.expansion is None else asked.expansion.rules
    return _explained(page, segments, plan, shown, pins, synonyms) if asked.explain else page


def _pins(segments: Sequence[Segment], plan: Plan, filter: Filter | None) -> list[tuple[int, Pin]]:
    """Rows of what is pinned and matches; a sort is the shopper's own order, and has no places for them."""
    return pinned(segments, plan.influence.pins, filter) if plan.influence.pins and not plan.sort else []


def _first_of_all(rows: Rows, pins: Sequence[tuple[int, Pin]]) -> Rows:
    """Places in `rows` with those of the pinned ones at the beginning."""
    own = np.array([row for row, _ in pins], np.int64)
    order = np.argsort(rows)
    first = order[np.searchsorted(rows, own, sorter=order)]
    rest = np.ones(len(rows), np.bool_)
    rest[first] = False
    return np.concatenate([first, np.flatnonzero(rest)])


def _explained(
    page: Page,
    segments: Sequence[Segment],
    plan: Plan,
    shown: Moved,
    pins: Sequence[tuple[int, Pin]],
    synonyms: Sequence[str] = (),
) -> Page:
    """The page with what has moved its hits."""
    factors, moved = _factors(segments, plan.rank, shown.before), shown.told()
    own = dict(pins)
    for row, steps in zip(page.hits.rows.tolist(), moved, strict=True):
        if row in own:
            steps.append({"by": "pin", "rule": own[row].rule, "place": own[row].place})
    told = shown.steps or plan.influence is not NO_INFLUENCE
    rules = plan.influence.told() + [{"rule": name, "effects": ["synonyms"]} for name in synonyms]
    return replace(page, factors=factors, moved=moved if told else None, rules=rules or None)


def _ranked(segments: Sequence[Segment], rank: Expression, hits: Moved) -> tuple[Moved, RankedBy]:
    """Hits in the order that an expression gives, with its values as scores."""
    found = hits.now
    values = rank.values(segments, found)
    with np.errstate(over="ignore"):
        undefined = ~np.isfinite(values.astype(np.float32))
    values = np.where(undefined, 0, values)
    told = RankedBy(rank.text, len(found), int(np.count_nonzero(undefined)))
    return hits.step(hits.places, values, by="rank").pick(np.lexsort((-values, undefined))), told


def _factors(segments: Sequence[Segment], rank: Expression | None, found: Ranked) -> list[dict[str, float]] | None:
    """What each hit's rank was made of."""
    if rank is None:
        return None
    factors = {name: values.tolist() for name, values in rank.factors(segments, found).items()}
    return [{name: values[at] for name, values in factors.items()} for at in range(len(found))]


def _others(
    index: EmbeddedIndex,
    wish: Collapse,
    shown: Rows,
    ranking: Rows,
    allowed: Sequence[Allowed | None],
    cards: int,
    all_known: bool,
    countable: bool,
) -> tuple[list[Others], Total]:
    """What each shown card stands for, and how many cards there are; `cards` are known, and maybe there are no more."""
    variants = Variants(index.segments, wish.column, allowed)
    total = Total(cards) if all_known else Total(variants.count()) if countable else Total(cards, Relation.AT_LEAST)
    return variants.others(shown, ranking if wish.ids else None), total


def _cards(segments: Sequence[Segment], rows: Rows, shape: Shape) -> Rows:
    """Places in `rows` of the cards that are shown, in their order."""
    places = np.arange(len(rows))
    if shape.collapse is not None:
        places = best_of_each(card_ids(segments, shape.collapse.column, rows))
    if (wish := shape.diversify) is not None:
        places = places[diverse(card_ids(segments, wish.column, rows[places]).tolist(), wish.most, wish.among)]
    return places


def page_of(
    index: EmbeddedIndex, found: Ranked, filter: Filter | None, offset: int, without: int | None = None
) -> Page:
    """The hits of a ranking from number `offset` + 1 on.

    Args:
        index: what was searched.
        found: the ranking.
        filter: under which it was found.
        offset: hits to leave out.
        without: row of an item that is not to be found.
    """
    hits = found if offset == 0 else found.pick(np.arange(offset, len(found)))
    total = _matching(index, filter)
    if without is not None and total.relation is Relation.EXACT:
        segment, at = place(index.segments, without)
        allowed = segment.allowed(filter)
        total = Total(total.value - bool(allowed is None or allowed.mask[at]))
    return Page(hits, offset, total)


def _matching(index: EmbeddedIndex, filter: Filter | None) -> Total:
    """How many items match; the filter has counted them already."""
    return Total.bounded(len(index)) if filter is None else Total(_count(index, filter))


def _count(index: EmbeddedIndex, filter: Filter | None) -> int:
    parts = zip(index.segments, _allowed(index, filter), strict=True)
    return sum(len(segment.store) if part is None else part.count for segment, part in parts)


def browse(
    index: EmbeddedIndex,
    k: int,
    filter: Filter | None,
    offset: int = 0,
    plan: Plan = NOTHING,
    explain: bool = False,
) -> Page:
    """A page of all that matches, sorted; in the catalogue's order without a sort. Scores are 0: nothing was asked.

    Raises:
        InputError: as `search`.
    """
    check_place(offset, k)
    if plan.shape.cutoff:
        raise InputError("cutoff: nothing is typed, so nothing is more relevant than the rest; ask without cutoff.")
    segments, filter = index.segments, plan.influence.shown(filter)
    if (influence := plan.influence).conditional:
        seen = category_of(segments, influence.column, matching(segments, _allowed(index, filter)), browsed=True)
        plan = replace(plan, influence=influence.of(seen))
        filter = plan.influence.shown(filter)
    allowed = _allowed(index, filter)
    hits, ranked = Moved.of(_unscored(matching(segments, allowed))), None
    if plan.rank is not None:
        if len(hits) > COUNTED:
            raise InputError(
                f"rank: {len(hits):,} items match, of which at most {COUNTED:,} are ranked; filter further."
            )
        hits, ranked = _ranked(segments, plan.rank, hits)
    if len(hits) <= COUNTED:
        moves = [move for move in plan.influence.moves if move.adds or plan.rank is not None]
        hits = hits.by(segments, moves, len(hits) - (0 if ranked is None else ranked.undefined))
    pins = _pins(segments, plan, filter)
    hits = hits.pick(_first_of_all(hits.rows, pins)) if pins else hits
    found = hits.rows
    for first in (_BROWSED, len(found)):
        order = sorted_places(segments, plan.sort, found, min(first, len(found)))
        cards = in_places(_cards(segments, found[order], plan.shape), [pin.place for _, pin in pins])
        if len(cards) >= offset + k:
            break
    shown, others, total = hits.pick(order[cards[offset : offset + k]]), None, Total(len(found))
    if (wish := plan.shape.collapse) is not None:
        ranking, all_known = found[order], len(order) == len(found)
        countable = len(found) <= COUNTED
        others, total = _others(index, wish, shown.rows, ranking, allowed, len(cards), all_known, countable)
    facets = None if plan.shape.facets is None else _facets(index, plan.shape, filter, found, None)
    told = Sorted(plan.shape.sort, len(found), True) if plan.sort else None
    page = Page(shown.now, offset, total, ranked, told, others, facets, redirect=plan.influence.redirect)
    return _explained(page, segments, plan, shown, pins) if explain else page


def _allowed(index: EmbeddedIndex, filter: Filter | None) -> list[Allowed | None]:
    """The rows that match in each segment, None for all."""
    return [segment.allowed(filter) for segment in index.segments]


def _only(index: EmbeddedIndex, rows: Rows) -> list[Allowed]:
    """The same of some rows."""
    masks = [np.zeros(len(segment.store), np.bool_) for segment in index.segments]
    for segment, _, own in by_segment(index.segments, rows):
        masks[index.segments.index(segment)][own] = True
    return list(map(Allowed.of, masks))


def _unscored(rows: Rows) -> Ranked:
    nothing = np.zeros(len(rows), np.float32)
    return Ranked(rows, nothing, nothing, nothing, None)
