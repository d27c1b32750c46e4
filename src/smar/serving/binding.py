"""A shop's rules read against the columns of an index."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from smar.core.errors import InputError
from smar.data.text import normalise
from smar.search.column_values import Kind, kind_of
from smar.search.filter_parser import parse_filter
from smar.search.filters import Both, Comparison, Node
from smar.search.local import Pin, Rule, moved_by
from smar.serving.rules import RulesIn


def bound_rules(rules: RulesIn, path: Path, schema: pa.Schema) -> tuple[dict[int, Rule], list[str]]:
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
