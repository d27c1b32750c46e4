"""A shop's rules as searches use them: read against an index, looked up by query and time, read again when changed.

A query is looked up among all rules by a dictionary of whole queries and one of words, so that rules which are for
other queries cost next to nothing.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from smar.core.errors import InputError
from smar.core.files import atomic
from smar.data.text import normalise
from smar.data.words import words
from smar.search.columns import Kind, kind_of
from smar.search.expansion import Expansion
from smar.search.filter_parser import parse_filter
from smar.search.filters import Both, Comparison, Node
from smar.search.local import NO_INFLUENCE, EmbeddedIndex, Influence, Pin, Rule, moved_by
from smar.serving.renaming import Renaming
from smar.serving.rules import RuleIn, RulesIn, parse_rules


@dataclass(frozen=True, slots=True)
class Told:
    """What the rules say of one query."""

    influence: Influence = NO_INFLUENCE
    expansion: Expansion | None = None


NOTHING_TOLD = Told()
_KEPT = 1000
"""Sets of rules that were met."""


class Rulebook:
    """A file of rules that is followed; safe to share between threads.

    What was read last and is right is written to `kept`: a worker that starts while the file is wrong goes on with it.
    """

    def __init__(self, path: Path, kept: Path | None = None) -> None:
        """Read the file.

        Raises:
            InputError: it cannot be read or is wrong; the message names file, rule, field and what was seen.
        """
        self.path, self._kept = path, kept
        self.problem: str | None = None
        """Why the file as it is now is not what holds; None when it is."""
        self._looks: object = None
        self._rules: RulesIn | None = None
        self._active: Active | None = None

    @classmethod
    def open(cls, path: Path, index: EmbeddedIndex, kept: Path | None = None) -> "Rulebook":
        """Read the file, or where it is wrong what was kept, and read it against an index.

        Raises:
            InputError: it cannot be read or is wrong, and nothing was kept.
        """
        book = cls(path, kept)
        try:
            book.refresh(index)
        except InputError as error:
            if kept is None or not kept.is_file():
                raise
            book.problem = str(error)
            book._take(parse_rules(kept.read_text("utf-8"), kept), index, strict=False)
        return book

    def refresh(self, index: EmbeddedIndex) -> bool:
        """Take a changed file; returns whether there was one.

        Raises:
            InputError: it is wrong, and the rules before stay; `problem` says so until it is mended.
        """
        if (looks := _looks(self.path)) == self._looks:
            return False
        self._looks = looks
        try:
            text = _text(self.path)
            self._take(parse_rules(text, self.path), index, strict=True)
        except InputError as error:
            self.problem = str(error)
            raise
        self.problem = None
        if self._kept is not None:
            with contextlib.suppress(OSError), atomic(self._kept) as partial:
                partial.write_text(text, encoding="utf-8")
        return True

    def _take(self, rules: RulesIn, index: EmbeddedIndex, strict: bool) -> None:
        bound, problems = _bound(rules, self.path, index.schema)
        if problems and strict:
            raise InputError("\n  ".join(problems))
        self._rules = rules
        self._active = Active(rules, bound, index, time.time())

    def active(self, index: EmbeddedIndex) -> "Active":
        """The rules that hold now. Those that do not fit another index any more are left out; `problem` names them."""
        held, rules, now = self._active, self._rules, time.time()
        assert held is not None
        assert rules is not None
        if held.index is index and now < held.until:
            return held
        if held.index.schema is index.schema or held.index.schema.equals(index.schema):
            bound = held.bound
        else:
            bound, problems = _bound(rules, self.path, index.schema)
            self.problem = "\n  ".join(problems) or self.problem
        self._active = active = Active(rules, bound, index, now)
        return active


def _looks(path: Path) -> object:
    with contextlib.suppress(OSError):
        found = path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


class Active:
    """The rules that hold for an index at one time, until the next one begins or ends."""

    def __init__(self, rules: RulesIn, bound: Mapping[int, Rule], index: EmbeddedIndex, now: float) -> None:
        times = {at: rule.when.times(rules.zone) for at, rule in enumerate(rules.rules)}
        self.bound, self.index = bound, index
        self.until = min((moment for both in times.values() for moment in both if moment > now), default=float("inf"))
        fit = index.manifest.hybrid
        self._language = None if fit is None else fit.language
        self._column = rules.category
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._holding: dict[str, list[tuple[frozenset[str], int]]] = defaultdict(list)
        self._always: list[int] = []
        self._renaming = Renaming(self._language)
        self._names = {at: rules.name(at) for at in bound}
        self._influences: dict[tuple[int, ...], Influence] = {}
        for at, rule in enumerate(rules.rules):
            if at in bound and times[at][0] <= now < times[at][1]:
                self._add(at, rule)
        self.everywhere = self._influence(at for at in self._always if not bound[at].categories)
        """For what is not asked for in words."""

    def _add(self, at: int, rule: RuleIn) -> None:
        for query in rule.when.exact:
            self._exact[normalise(query)].append(at)
        for phrase in rule.when.contains:
            if held := frozenset(words(phrase, self._language)):
                self._holding[min(held)].append((held, at))
        if not rule.when.exact and not rule.when.contains:
            self._always.append(at)
        self._renaming.add(at, rule.synonyms)

    def told(self, query: str) -> Told:
        """What they say of a query in its normal form; of an empty one those that are for all searches."""
        numbers, own = set(self._always), set(words(query, self._language)) if query and self._holding else set()
        numbers.update(self._exact.get(query, ()))
        numbers.update(at for word in own for held, at in self._holding.get(word, ()) if held <= own)
        if not numbers:
            return NOTHING_TOLD
        expansion, named = self._renaming.expand(query, numbers)
        if expansion is not None:
            expansion = replace(expansion, rules=tuple(self._names[at] for at in sorted(named)))
        return Told(self._influence(numbers), expansion)

    def _influence(self, numbers: Iterable[int]) -> Influence:
        """One and the same for the same rules: searches that they hold for are answered together."""
        key = tuple(sorted(at for at in numbers if self.bound[at].effects))
        if not key:
            return NO_INFLUENCE
        if key not in self._influences:
            if len(self._influences) >= _KEPT:
                self._influences.clear()
            own = [self.bound[at] for at in key]
            sure = tuple(rule for rule in own if not rule.categories)
            self._influences[key] = Influence(sure, tuple(rule for rule in own if rule.categories), self._column)
        return self._influences[key]


def _bound(rules: RulesIn, path: Path, schema: pa.Schema) -> tuple[dict[int, Rule], list[str]]:
    """The rules by number, from 0, read against the columns of an index, and what is wrong with the others."""
    bound, problems = {}, []
    for at in range(len(rules.rules)):
        try:
            bound[at] = _rule(rules, at, schema)
        except _Misfit as error:
            problems.append(f"{path}, rule {at + 1}, {error}")
    return bound, problems


class _Misfit(ValueError):
    """A field does not fit the columns of the index."""


@contextlib.contextmanager
def _field(name: str, seen: object) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise _Misfit(f"{name}: {error} (got {seen!r})") from None


def _rule(rules: RulesIn, at: int, schema: pa.Schema) -> Rule:
    rule, name, moves = rules.rules[at], rules.name(at), []
    if rule.when.category:
        with _field("when.category", rules.category):
            kind = kind_of(schema.field(rules.category).type) if rules.category in schema.names else None
            if kind is not Kind.TEXT:
                raise InputError(f"the index has no column of texts of this name. Columns: {', '.join(schema.names)}.")
    for change, by, number in rule.changes:
        with _field(f"{by}.{number}.filter", change.filter):
            moves.append(moved_by(name, by, change.filter, schema, change.factor, change.amount))
    hidden: list[Node] = [Comparison("item_id", Kind.TEXT, "in", rule.hide.ids)] if rule.hide.ids else []
    if rule.hide.filter:
        with _field("hide.filter", rule.hide.filter):
            hidden.append(parse_filter(rule.hide.filter, schema).root)
    return Rule(
        number=at,
        name=name,
        categories=frozenset(map(normalise, rule.when.category)),
        moves=tuple(moves),
        pins=tuple(Pin(name, pin.id, pin.place) for pin in rule.pin),
        hidden=Both(tuple(hidden), any_of=True) if len(hidden) > 1 else next(iter(hidden), None),
        redirect=rule.redirect,
    )
