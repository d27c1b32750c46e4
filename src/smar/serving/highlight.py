"""Columns of the hits as HTML, with the words that match the query in ``<em>``.

What matches is what words search compares: the index's own form of words, its language's stems included; and what the
query was read as: corrections, and synonyms.
"""

import html
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

from smar.core.errors import InputError
from smar.data.spans import spans_of
from smar.data.words import words
from smar.search.column_values import Kind, inner_kind, kind_of
from smar.search.local import EmbeddedIndex
from smar.serving.engine import SearchResult
from smar.serving.rulebook import language_of

Marked: TypeAlias = dict[str, str | list[str] | None]
"""Columns of one hit as HTML; null for a missing value."""


def marked(result: SearchResult, columns: Sequence[str]) -> list[Marked]:
    """Some columns of each hit of a search, in their order.

    Raises:
        InputError: the index has no such column, or it does not hold texts.
    """
    index = result.index
    for name in columns:
        _check(index, name)
    language = language_of(index)
    wanted = frozenset(word for text in _read(result) for word in words(text, language))
    wanted |= {word for found in result.found.corrected.values() for each in found for word in each.split()}
    items = index.catalogue.items(result.found.rows.tolist())
    return [{name: _as_html(item.get(name), wanted, language) for name in columns} for item in items]


def _read(result: SearchResult) -> list[str]:
    parts = () if result.expansion is None else result.expansion.parts
    return [result.query, *(other for _, others in parts for other in others)]


def _check(index: EmbeddedIndex, name: str) -> None:
    if name not in index.schema.names:
        raise InputError(f"highlight: unknown column {name[:100]!r}. Columns: {', '.join(index.schema.names)}.")
    kind = index.schema.field(name).type
    if Kind.TEXT not in (kind_of(kind), inner_kind(kind)) and kind_of(kind) is not Kind.EMPTY:
        raise InputError(f"highlight: {name} holds {kind_of(kind)}; a column of texts is wanted.")


def _as_html(value: Any, wanted: Collection[str], language: str | None) -> str | list[str] | None:
    if isinstance(value, list):
        return [mark("" if text is None else text, wanted, language) for text in value]
    return None if value is None else mark(value, wanted, language)


def mark(text: str, wanted: Collection[str], language: str | None = None) -> str:
    """A text as HTML with `wanted` words in ``<em>``; whatever is markup in the text itself is shown, not read.

    >>> mark("Shirt <b>red</b> & blue", {"red"})
    'Shirt &lt;b&gt;<em>red</em>&lt;/b&gt; &amp; blue'
    """
    pieces, last = [], 0
    for start, end in spans_of(text, wanted, language):
        pieces += [html.escape(text[last:start]), "<em>", html.escape(text[start:end]), "</em>"]
        last = end
    return "".join([*pieces, html.escape(text[last:])])
