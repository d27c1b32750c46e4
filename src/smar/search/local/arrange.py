"""From what a search found to the page that is shown: candidates -> ranked anew -> sorted -> cards -> page.

A search without any of this is a page of the ranking, and costs no more than it did. Ranked and sorted are the best
`candidates`, the same ones on every page. What is browsed (no query) is all that matches, and sorted whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from smar.core.errors import InputError
from smar.search.columns import Mask
from smar.search.filters import Filter, without
from smar.search.local.cards import COUNTED, Collapse, Others, Variants, best_of_each, card_ids, diverse
from smar.search.local.counted import ColumnCounts, count_column
from smar.search.local.embedded import EmbeddedIndex
from smar.search.local.expressions import Expression
from smar.search.local.segment import Segment, place
from smar.search.local.shape import NOTHING, Page, Plan, RankedBy, Relation, Shape, Sorted, Total
from smar.search.local.sorting import sorted_places
from smar.search.local.taken import matching
from smar.search.protocol import MAX_HITS, Mode, Ranked
from smar.search.query import QueryVectors
from smar.search.ranked import Rows

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
    depth = plan.depth(offset + k)
    found = index.rank(vectors, depth, mode, filter, explain)
    if plan is NOTHING:
        return [page_of(index, items, filter, offset) for items in found]
    pages = []
    for at, items in enumerate(found):
        page = _arranged(index, items, k, filter, explain, offset, plan)
        if not plan.fixed and len(page.hits) < k and len(items) == depth < MAX_HITS:  # most of them share few cards
            (items,) = index.rank(vectors[at : at + 1], MAX_HITS, mode, filter, explain)
            page = _arranged(index, items, k, filter, explain, offset, plan)
        if plan.shape.facets is not None:
            own, most = vectors[at : at + 1], plan.shape.candidates
            again = partial(_best_rows, index, own, most, mode)
            page = replace(page, facets=_facets(index, plan.shape, filter, items.rows[:most], again))
        pages.append(page)
    return pages


def _best_rows(index: EmbeddedIndex, vectors: QueryVectors, most: int, mode: Mode, filter: Filter | None) -> Rows:
    return index.rank(vectors, most, mode, filter)[0].rows


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
            counts[name] = index.counts(name, bare, shape.facets.top, collapse)
            continue
        if bare not in found:
            found[bare] = with_cards(rows if bare == filter else again(bare))
        best, cards = found[bare]
        counts[name] = count_column(index.segments, best, name, shape.facets.top, cards)
    return counts


def _arranged(
    index: EmbeddedIndex, found: Ranked, k: int, filter: Filter | None, explain: bool, offset: int, plan: Plan
) -> Page:
    segments, shape, total = index.segments, plan.shape, _matching(index, filter)
    everything = total.relation is Relation.EXACT and total.value == len(found)
    before, ranked, told, others = found, None, None, None
    if plan.rank is not None:
        found, before, ranked = _ranked(segments, plan.rank, found)
    if plan.sort:
        order = sorted_places(segments, plan.sort, found.rows, len(found))
        found, before, told = found.pick(order), before.pick(order), Sorted(shape.sort, len(found), everything)
    cards = _cards(segments, found.rows, shape)
    places = cards[offset : offset + k]
    shown = found.pick(places)
    if plan.fixed:
        total = Total(len(found))
    if shape.collapse is not None:
        masks, all_known = _masks(index, filter), everything or plan.fixed
        others, total = _others(index, shape.collapse, shown.rows, found.rows, masks, len(cards), all_known)
    factors = _factors(segments, plan.rank, before.pick(places)) if explain else None
    return Page(shown, offset, total, ranked, told, others, factors=factors)


def _ranked(segments: Sequence[Segment], rank: Expression, found: Ranked) -> tuple[Ranked, Ranked, RankedBy]:
    """What was found in the order that an expression gives, with its values as scores and with the scores before."""
    values = rank.values(segments, found)
    with np.errstate(over="ignore"):
        undefined = ~np.isfinite(values.astype(np.float32))
    values = np.where(undefined, 0, values)
    order = np.lexsort((-values, undefined))
    before = found.pick(order)
    told = RankedBy(rank.text, len(found), int(np.count_nonzero(undefined)))
    return replace(before, score=values[order].astype(np.float32)), before, told


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
    masks: Sequence[Mask | None],
    cards: int,
    all_known: bool,
) -> tuple[list[Others], Total]:
    """What each shown card stands for, and how many cards there are; `cards` are known, and maybe there are no more."""
    variants = Variants(index.segments, wish.column, masks)
    counted = cards if all_known else variants.count()
    total = Total(cards, Relation.AT_LEAST) if counted is None else Total(counted)
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
    if filter is None:
        return Total.bounded(len(index))
    allowed = [segment.allowed(filter) for segment in index.segments]
    return Total(sum(part.count for part in allowed if part is not None))


def browse(index: EmbeddedIndex, k: int, filter: Filter | None, offset: int = 0, plan: Plan = NOTHING) -> Page:
    """A page of all that matches, sorted; in the catalogue's order without a sort. Scores are 0: nothing was asked.

    Raises:
        InputError: as `search`.
    """
    check_place(offset, k)
    segments, masks = index.segments, _masks(index, filter)
    found, ranked = _unscored(matching(segments, masks)), None
    if plan.rank is not None:
        if len(found) > COUNTED:
            raise InputError(
                f"rank: {len(found):,} items match, of which at most {COUNTED:,} are ranked; filter further."
            )
        found, _, ranked = _ranked(segments, plan.rank, found)
    for first in (_BROWSED, len(found)):
        order = sorted_places(segments, plan.sort, found.rows, min(first, len(found)))
        cards = _cards(segments, found.rows[order], plan.shape)
        if len(cards) >= offset + k:
            break
    shown, others, total = found.pick(order[cards[offset : offset + k]]), None, Total(len(found))
    if (wish := plan.shape.collapse) is not None:
        ranking, all_known = found.rows[order], len(order) == len(found)
        others, total = _others(index, wish, shown.rows, ranking, masks, len(cards), all_known)
    facets = None if plan.shape.facets is None else _facets(index, plan.shape, filter, found.rows, None)
    told = Sorted(plan.shape.sort, len(found), True) if plan.sort else None
    return Page(shown, offset, total, ranked, told, others, facets)


def _masks(index: EmbeddedIndex, filter: Filter | None) -> list[Mask | None]:
    """The rows that match in each segment, None for all."""
    allowed = [segment.allowed(filter) for segment in index.segments]
    return [None if part is None else part.mask for part in allowed]


def _unscored(rows: Rows) -> Ranked:
    nothing = np.zeros(len(rows), np.float32)
    return Ranked(rows, nothing, nothing, nothing, None)
