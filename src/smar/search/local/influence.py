"""A shop's rules in a search: what is hidden, moved up and down, and put in a certain place.

Hidden items are left out by a filter, so nothing counts them. A boost or bury is an `Expression` of the score, as
`rank` is, computed for the best `candidates`. Pinned items are found, and scored, even where nothing else would find
them, and come to their places once all others are in order.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.data.text import normalise
from smar.search.filter_parser import parse_filter
from smar.search.filters import Both, Filter, Hidden, Node, along, columns_of
from smar.search.local.expressions import Matches, Values, matching_rows
from smar.search.local.segment import CatalogueView, Segment, place
from smar.search.local.taken import texts
from smar.search.ranked import Ranked, Rows

FIRST = 10
"""Hits that tell the category of a search: that of more than half of them."""
_BROWSED = 1000
"""The same of what is browsed, evenly spread."""


By: TypeAlias = Literal["boost", "bury"]
Scores: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Move:
    """A boost or bury of the items that `matches` says: by a `factor` of the score's size, or an `amount`.

    A factor is one of the size, so that a negative score is moved the same way.
    """

    rule: str
    by: By
    matches: Matches
    factor: float | None
    amount: float

    @property
    def adds(self) -> bool:
        """Whether a score of 0 is moved, too."""
        return self.factor is None

    def moved(self, segments: Sequence[Segment], rows: Rows, score: Values) -> Values:
        """The scores [n] of some rows after it."""
        held = matching_rows(self.matches, segments, rows)
        change: Values = self.amount * held if self.factor is None else (self.factor - 1) * (np.abs(score) * held)
        return score + change


@dataclass(frozen=True, slots=True)
class Pin:
    """An item that a rule puts in a place, from 1.

    >>> Influence((Rule(0, "sale", pins=(Pin("sale", "b", 7), Pin("sale", "a", 2))),)).pins[0].item_id
    'a'
    """

    rule: str
    item_id: str
    place: int


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One rule; `number` is its place among all. With `categories`, only where most first hits are of them.

    >>> Rule(0, "sale", redirect="/sale").effects
    ['redirect']
    """

    number: int
    name: str
    categories: frozenset[str] = frozenset()
    moves: tuple[Move, ...] = ()
    pins: tuple[Pin, ...] = ()
    hidden: Node | None = None
    redirect: str | None = None

    @property
    def effects(self) -> list[str]:
        """What it does, by name."""
        made = {"pin": self.pins, "hide": self.hidden, "redirect": self.redirect}
        moved = dict.fromkeys(move.by for move in self.moves)
        return [*(name for name, what in made.items() if what), *moved]


@dataclass(frozen=True, eq=False)
class Influence:
    """The `rules` that hold for a search, and those that hold if most first hits have a certain value of `column`.

    >>> rule = Rule(0, "watches", categories=frozenset({"watch"}), redirect="/watches")
    >>> influence = Influence((), conditional=(rule,))
    >>> influence.redirect, influence.of("shirt").redirect, influence.of("watch").redirect
    (None, None, '/watches')
    """

    rules: tuple[Rule, ...]
    conditional: tuple[Rule, ...] = ()
    column: str = "category"
    settled: dict[str, "Influence"] = field(default_factory=dict, repr=False)

    def of(self, category: str | None) -> "Influence":
        """The rules that hold, now that the category of the hits is known."""
        known = category or ""
        if known not in self.settled:
            more = [rule for rule in self.conditional if known in rule.categories]
            rules = sorted((*self.rules, *more), key=lambda rule: rule.number)
            self.settled[known] = Influence(tuple(rules))
        return self.settled[known]

    @cached_property
    def moves(self) -> tuple[Move, ...]:
        """Boosts and buries, in the order of the rules."""
        return tuple(move for rule in self.rules for move in rule.moves)

    @cached_property
    def pins(self) -> tuple[Pin, ...]:
        """By place; of one item's the first rule's counts."""
        first = {pin.item_id: pin for rule in reversed(self.rules) for pin in reversed(rule.pins)}
        order = [pin for rule in self.rules for pin in rule.pins if first[pin.item_id] is pin]
        return tuple(sorted(order, key=lambda pin: pin.place))

    @cached_property
    def redirect(self) -> str | None:
        """The address of the first rule that has one."""
        return next((rule.redirect for rule in self.rules if rule.redirect), None)

    @cached_property
    def _hidden(self) -> Hidden | None:
        nodes = tuple(rule.hidden for rule in self.rules if rule.hidden is not None)
        return Hidden(Both(nodes, any_of=True) if len(nodes) > 1 else nodes[0]) if nodes else None

    def shown(self, filter: Filter | None) -> Filter | None:
        """A filter without what is hidden."""
        if filter is None:
            return self._hiding
        return filter if self._hidden is None else along(filter, self._hidden)

    @cached_property
    def _hiding(self) -> Filter | None:
        """One and the same for every search, so that what is known of it is found without comparing."""
        return None if self._hidden is None else along(None, self._hidden)

    def told(self) -> list[dict[str, Any]]:
        """The rules that hold and what each does."""
        return [{"rule": rule.name, "effects": rule.effects} for rule in self.rules]


NO_INFLUENCE = Influence(())


def moved_by(rule: str, by: By, chosen: str, schema: pa.Schema, factor: float | None, amount: float | None) -> Move:
    """A boost or bury of the items that a filter chooses, by a `factor` of the score or an `amount`.

    Raises:
        InputError: the filter is wrong.
    """
    filter = parse_filter(chosen, schema)
    matches = Matches(filter, tuple(sorted(columns_of(filter.root))), again=True)
    return Move(rule, by, matches, factor, (amount or 0.0) * (1 if by == "boost" else -1))


def category_of(segments: Sequence[Segment], column: str, rows: Rows, browsed: bool = False) -> str | None:
    """The value, in normal form, that more than half of the first hits have; of what is `browsed`, of all of it."""
    some = rows[:: len(rows) // _BROWSED + 1] if browsed else rows[:FIRST]
    if not len(some) or column not in segments[0].catalogue.schema.names:
        return None
    (value, count), *_ = Counter(texts(segments, column, some)).most_common(1)
    return normalise(value) if value is not None and 2 * count > len(some) else None


def pinned(segments: Sequence[Segment], pins: Sequence[Pin], filter: Filter | None) -> list[tuple[int, Pin]]:
    """Rows of the pinned items that are there and match, by place."""
    view, found = CatalogueView(segments), []
    for pin in pins:
        if (row := view.row_of(pin.item_id)) is None:
            continue
        segment, at = place(segments, row)
        allowed = segment.allowed(filter)
        if allowed is None or allowed.mask[at]:
            found.append((row, pin))
    return found


def in_places(places: Rows, wanted: Sequence[int]) -> Rows:
    """`places` of hits with the first ones at the place, from 1, that each is `wanted` at, or next to it."""
    if not wanted:
        return places
    own = np.sort(places[places < len(wanted)])
    others, last, at = places[places >= len(wanted)], -1, []
    for number, pin in enumerate(own.tolist()):
        last = max(wanted[pin] - 1, last + 1)
        at.append(min(last - number, len(others)))
    return np.insert(others, at, own)


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """Hits in their order, as places in what was `found`; None for the order in which they were found.

    `score` float32 is what orders them now, and `amounts` are what each step, told in `steps`, has added to it; both
    by place in `found`.
    """

    found: Ranked
    score: Scores
    order: Rows | None = None
    amounts: tuple[npt.NDArray[np.float64], ...] = ()
    steps: tuple[dict[str, str], ...] = ()

    @classmethod
    def of(cls, found: Ranked) -> "Moved":
        """As it was found."""
        return cls(found, found.score)

    def __len__(self) -> int:
        return len(self.found if self.order is None else self.order)

    @property
    def rows(self) -> Rows:
        """Their rows [n]."""
        return self.found.rows if self.order is None else self.found.rows[self.order]

    @property
    def now(self) -> Ranked:
        """The hits with the scores that order them."""
        return self.before if not self.steps else self.before.scored(self.of_each(self.score))

    @property
    def before(self) -> Ranked:
        """The hits with the scores that they were found by."""
        return self.found if self.order is None else self.found.pick(self.order)

    def of_each(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values by place in `found`, in the order of the hits."""
        return values if self.order is None else values[self.order]

    @property
    def places(self) -> Rows:
        """Their places in `found`."""
        return np.arange(len(self.found)) if self.order is None else self.order

    def pick(self, places: Rows) -> "Moved":
        """Some of them."""
        order = places if self.order is None else self.order[places]
        return Moved(self.found, self.score, order, self.amounts, self.steps)

    def step(self, places: Rows, score: npt.NDArray[np.float64], **told: str) -> "Moved":
        """The same with other scores of some `places` in `found`, not yet in their order."""
        now, amount = self.score.copy(), np.zeros(len(self.score))
        amount[places] = score - now[places]
        now[places] = score
        return Moved(self.found, now, self.order, (*self.amounts, amount), (*self.steps, told))

    def by(self, segments: Sequence[Segment], moves: Sequence[Move], most: int) -> "Moved":
        """The best `most` in the order that boosts and buries give, the others after them as they were."""
        if not moves or not len(self):
            return self
        order = self.places
        best, score, amounts = order[:most], self.score[order[:most]], []
        rows = self.found.rows[best]
        for move in moves:
            after = move.moved(segments, rows, score.astype(np.float64))
            amounts.append(np.zeros(len(self.score)))
            amounts[-1][best] = after - score
            score = after.astype(np.float32)
        now, steps = self.score.copy(), tuple({"by": move.by, "rule": move.rule} for move in moves)
        now[best] = score
        order = np.concatenate([best[np.argsort(-score, kind="stable")], order[most:]])
        return Moved(self.found, now, order, (*self.amounts, *amounts), (*self.steps, *steps))

    def told(self) -> list[list[dict[str, Any]]]:
        """What has moved each of them, and by how much."""
        amounts = np.array([self.of_each(amount) for amount in self.amounts]).reshape(len(self.steps), len(self))
        return [
            [
                {**step, "amount": round(amount, 7)}
                for step, amount in zip(self.steps, own, strict=True)
                if abs(amount) > 1e-9
            ]
            for own in amounts.T.tolist()
        ]
