"""A shop's rules as searches use them: read against an index, looked up by query and time, read again when changed.

A query is looked up among all rules by a dictionary of whole queries and one of words, so that rules which are for
other queries cost next to nothing.
"""

import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from smar.core.errors import InputError
from smar.core.files import atomic
from smar.data.text import normalise
from smar.data.words import words
from smar.search.expansion import Expansion
from smar.search.local import NO_INFLUENCE, EmbeddedIndex, Influence, Rule
from smar.serving.binding import bound_rules
from smar.serving.renaming import Renaming
from smar.serving.rules import RuleIn, RulesIn, parse_rules

logger = logging.getLogger("smar.serving")


@dataclass(frozen=True, slots=True)
class Told:
    """What the rules say of one query."""

    influence: Influence = NO_INFLUENCE
    expansion: Expansion | None = None


NOTHING_TOLD = Told()
_UNSEEN = object()
_KEPT = 1000
"""Sets of rules that were met."""


class Rulebook:
    """A file of rules that is followed; safe to share between threads.

    What was read last and is right is written to `kept`: a worker that starts while the file is wrong goes on with it.
    """

    def __init__(self, path: Path, kept: Path | None = None) -> None:
        self.path, self._kept = path, kept
        self._wrong, self._misfit = "", ""
        self._looks: object = _UNSEEN
        self._taking = threading.Lock()
        self._held: tuple[RulesIn, Active, EmbeddedIndex] | None = None

    @property
    def problem(self) -> str | None:
        """Why not all of the file as it is now holds; None when it does."""
        return self._wrong or self._misfit or None

    @classmethod
    def open(cls, path: Path, index: EmbeddedIndex, kept: Path | None = None) -> "Rulebook":
        """Read the file, or where it is wrong what was kept, and read it against an index.

        Raises:
            InputError: it cannot be read or is wrong, and nothing was kept.
        """
        book = cls(path, kept)
        try:
            book.refresh(index)
        except InputError:
            if kept is None or not kept.is_file():
                raise
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
            self._wrong = str(error)
            raise
        self._wrong = ""
        if self._kept is not None:
            with contextlib.suppress(OSError), atomic(self._kept) as partial:
                partial.write_text(text, encoding="utf-8")
        return True

    def _take(self, rules: RulesIn, index: EmbeddedIndex, strict: bool) -> None:
        bound, problems = bound_rules(rules, self.path, index.schema)
        if problems and strict:
            raise InputError("\n  ".join(problems))
        with self._taking:
            self._misfit = "\n  ".join(problems)
            self._held = rules, Active(rules, bound, index, time.time()), index

    def active(self, index: EmbeddedIndex) -> "Active":
        """The rules that hold now. Those that do not fit another index any more are left out; `problem` names them."""
        assert self._held is not None
        _, active, known = self._held
        return active if known is index and time.time() < active.until else self._again(index)

    def _again(self, index: EmbeddedIndex) -> "Active":
        """The rules for an index that has changed, or at a time when others hold."""
        with self._taking:
            assert self._held is not None
            rules, active, _ = self._held
            bound, now = active.bound, time.time()
            if not active.schema.equals(index.schema):
                bound, problems = bound_rules(rules, self.path, index.schema)
                self._misfit = "\n  ".join(problems)
                if problems:
                    logger.error("rules do not fit the index as it is now, the others hold: %s", self._misfit)
            if bound is not active.bound or now >= active.until or active.language != language_of(index):
                active = Active(rules, bound, index, now)
            self._held = rules, active, index
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


def language_of(index: EmbeddedIndex) -> str | None:
    """Whose stemmer shortens the index's words; None for none."""
    fit = index.manifest.hybrid
    return None if fit is None else fit.language


class Active:
    """The rules that hold for an index at one time, until the next one begins or ends."""

    def __init__(self, rules: RulesIn, bound: Mapping[int, Rule], index: EmbeddedIndex, now: float) -> None:
        times = {at: rule.when.times(rules.zone) for at, rule in enumerate(rules.rules)}
        self.bound, self.schema, self.language = bound, index.schema, language_of(index)
        self.until = min((moment for both in times.values() for moment in both if moment > now), default=float("inf"))
        self._column = rules.category
        self._exact: dict[str, list[int]] = defaultdict(list)
        self._holding: dict[str, list[tuple[frozenset[str], int]]] = defaultdict(list)
        self._always: list[int] = []
        self._renaming = Renaming(self.language)
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
            if held := frozenset(words(phrase, self.language)):
                self._holding[min(held)].append((held, at))
        if not rule.when.exact and not rule.when.contains:
            self._always.append(at)
        self._renaming.add(at, rule.synonyms)

    def told(self, query: str) -> Told:
        """What they say of a query in its normal form; of an empty one those that are for all searches."""
        numbers, own = set(self._always), set(words(query, self.language)) if query and self._holding else set()
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
