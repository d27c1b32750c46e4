"""Synonyms in a query: what else its parts are called. Words search and the query tower read both."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Expansion:
    """Other names of parts of a query, all in the query's normal form.

    `parts` are each part as it was typed, and its other names; `texts` the query with each of these names in the part's
    place; `rules` says who named them.
    """

    parts: tuple[tuple[str, tuple[str, ...]], ...]
    texts: tuple[str, ...]
    rules: tuple[str, ...] = ()
