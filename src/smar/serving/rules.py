"""The file of a shop's rules as it is written, and its checks; `smar.serving.rulebook` brings them into searches."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from smar.core.errors import InputError
from smar.data.text import normalise

try:  # libyaml, ten times as fast; PyYAML may have been built without it
    from yaml import CSafeLoader
except ImportError:
    from yaml import SafeLoader as CSafeLoader  # type: ignore[assignment]

MOST_RULES = 5000
_ADDRESS = re.compile(r"(https?://[^\s/]+|/(?!/))\S*")
_SEEN = 80


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _words(text: str) -> str:
    if not normalise(text):
        raise ValueError("there is no word in it")
    return text


def _moment(value: object) -> object:
    """A date as YAML reads it, or as ISO 8601 text; a number is none."""
    if isinstance(value, str):
        return date.fromisoformat(value) if len(value) == 10 else datetime.fromisoformat(value)
    if not isinstance(value, date):
        raise ValueError("a date such as 2026-09-27, or one with a time such as 2026-09-27 08:00, is wanted")
    return value


def _zone(name: object) -> object:
    try:
        return ZoneInfo(name) if isinstance(name, str) else name
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("there is no such zone; give one such as Europe/Berlin (is tzdata installed?)") from None


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise ValueError("give https://..., or a path of this shop such as /sale")
    return text


Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1000)]
Words = Annotated[Text, BeforeValidator(lambda value: _words(value) if isinstance(value, str) else value)]
Names = Annotated[tuple[Words, ...], BeforeValidator(_several), Field(max_length=1000)]
Moment = Annotated[date | datetime, BeforeValidator(_moment)]
Zone = Annotated[tzinfo, BeforeValidator(_zone)]
Address = Annotated[Text, BeforeValidator(lambda value: _address(value) if isinstance(value, str) else value)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class When(_Part):
    """Which searches a rule is for: all conditions that are given hold; of several values of one, any."""

    exact: Names = ()
    contains: Names = ()
    category: Names = ()
    start: Moment | None = Field(None, alias="from")
    until: Moment | None = None
    zone: Zone | None = None

    def times(self, zone: tzinfo) -> tuple[float, float]:
        """First moment and the one after the last, in seconds since 1970; a date alone is all of its day."""
        zone = self.zone or zone
        first = float("-inf") if self.start is None else _seconds(self.start, zone, 0)
        return first, float("inf") if self.until is None else _seconds(self.until, zone, 1)

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        first, last = self.times(UTC)
        if first >= last:
            raise ValueError(f"from {self.start} is not before until {self.until}")
        return self


def _seconds(moment: date | datetime, zone: tzinfo, days: int) -> float:
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment + timedelta(days), time())
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


class _Change(_Part):
    filter: Text
    factor: float | None = Field(None, gt=0, le=1000)
    amount: float | None = Field(None, gt=0, le=1e6)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.factor is None) == (self.amount is None):
            raise ValueError("give either factor or amount")
        return self


class BoostIn(_Change):
    """Items that move up."""

    factor: float | None = Field(None, gt=1, le=1000)


class BuryIn(_Change):
    """Items that move down."""

    factor: float | None = Field(None, ge=0, lt=1)


class PinIn(_Part):
    """An item and its place, from 1."""

    id: Text
    place: int = Field(ge=1, le=1000, strict=True)


class HideIn(_Part):
    """Items that are not found."""

    ids: Annotated[tuple[Text, ...], BeforeValidator(_several), Field(max_length=1000)] = ()
    filter: Text | None = None


class SynonymsIn(_Part):
    """Groups of words that mean the same, and words that may be read as others."""

    two_way: tuple[Annotated[tuple[Words, ...], Field(min_length=2, max_length=20)], ...] = ()
    one_way: dict[Words, Names] = {}


class RuleIn(_Part):
    """One rule."""

    name: Text = ""
    when: When = When()
    pin: tuple[PinIn, ...] = Field((), max_length=100)
    boost: tuple[BoostIn, ...] = Field((), max_length=20)
    bury: tuple[BuryIn, ...] = Field((), max_length=20)
    hide: HideIn = HideIn()
    redirect: Address | None = None
    synonyms: SynonymsIn = SynonymsIn()

    @property
    def changes(self) -> "Iterator[tuple[_Change, Literal['boost', 'bury'], int]]":
        """What moves up or down, how, and its number, from 1."""
        yield from ((change, "boost", number) for number, change in enumerate(self.boost, 1))
        yield from ((change, "bury", number) for number, change in enumerate(self.bury, 1))

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        renamed, when = self.synonyms.two_way or self.synonyms.one_way, self.when
        if not (self.pin or self.boost or self.bury or self.hide.ids or self.hide.filter or self.redirect or renamed):
            raise ValueError("it does nothing; give pin, boost, bury, hide, redirect or synonyms")
        if renamed and when.category:
            raise ValueError("synonyms say what is searched for, so the category of the hits cannot decide about them")
        if self.redirect and not (when.exact or when.contains or when.category):
            raise ValueError("redirect without exact, contains or category would send everybody there")
        return self


class RulesIn(_Part):
    """The file: `zone` of times that name none, the column of `category`, and the rules."""

    zone: Zone = UTC
    category: Text = "category"
    rules: tuple[RuleIn, ...] = Field(max_length=MOST_RULES)

    @model_validator(mode="after")
    def _names_are_own(self) -> Self:
        twice = [name for name, count in Counter(map(self.name, range(len(self.rules)))).items() if count > 1]
        if twice:
            raise ValueError(f"several rules are called {', '.join(map(repr, twice))}")
        return self

    def name(self, at: int) -> str:
        """What a rule is called: by its number, from 1, where it has no name."""
        return self.rules[at].name or f"rule {at + 1}"


class _Loader(CSafeLoader):
    """Refuses a key that comes twice, of which YAML's own reader would take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for (key, _), name in zip(node.value, keys, strict=True):
            if keys.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} comes twice", key.start_mark)
        return super().construct_mapping(node, deep)


def parse_rules(text: str, path: Path) -> RulesIn:
    """The rules of a file's text.

    >>> text = "rules: [{when: {contains: sale}, boost: [{filter: discount>0, factor: 1.2}]}]"
    >>> parse_rules(text, Path("rules.yaml")).name(0)
    'rule 1'

    Raises:
        InputError: it is not YAML, or a rule is wrong; the message names file, rule, field and what was seen.
    """
    try:
        tree = yaml.load(text, Loader=_Loader)  # nosec B506: a SafeLoader that refuses keys that come twice
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} holds no rules; it begins with `rules:` and lists them.")
    try:
        return RulesIn.model_validate(tree)
    except ValidationError as error:
        faults = "\n  ".join(_told(fault) for fault in error.errors()[:10])
        raise InputError(f"{path} is not valid:\n  {faults}") from None


def _told(fault: Mapping[str, Any]) -> str:
    place, seen = list(fault["loc"]), repr(fault["input"])
    if len(place) > 1 and place[0] == "rules":
        place[:2] = [f"rule {place[1] + 1}"]
    parts = [str(part + 1) if isinstance(part, int) else part for part in place[1:]]
    where = ", ".join(filter(None, [str(place[0]) if place else "", ".".join(parts)]))
    shown = seen if len(seen) <= _SEEN else f"{seen[: _SEEN - 3]}..."
    return f"{where}: {fault['msg'].removeprefix('Value error, ')} (got {shown})".removeprefix(": ")
