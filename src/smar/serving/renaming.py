"""Finds the parts of a query that a shop's rules have synonyms for."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from smar.data.text import normalise
from smar.data.words import spaceless, words
from smar.search.expansion import Expansion
from smar.serving.rules import SynonymsIn

_READINGS = 7
"""Queries with a synonym in place that the query tower reads at most, beside the query as it was typed."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A phrase and its other names, in normal form; `words` are the phrase's in the index's own form."""

    words: tuple[str, ...]
    text: str
    others: tuple[str, ...]
    number: int


@dataclass(frozen=True, slots=True)
class _Part:
    start: int
    end: int
    entries: tuple[_Entry, ...]


class Renaming:
    """The synonyms of all rules; a phrase is found in a query by its words, whatever their forms."""

    def __init__(self, language: str | None) -> None:
        self._language = language
        self._by_word: dict[str, list[_Entry]] = defaultdict(list)
        self._inside: list[_Entry] = []

    def add(self, number: int, synonyms: SynonymsIn) -> None:
        """Those of rule `number`."""
        for group in synonyms.two_way:
            for phrase in group:
                self._add(number, phrase, group)
        for phrase, others in synonyms.one_way.items():
            self._add(number, phrase, others)

    def _add(self, number: int, phrase: str, others: Collection[str]) -> None:
        own, text = tuple(words(phrase, self._language)), normalise(phrase)
        further = tuple(other for other in dict.fromkeys(map(normalise, others)) if other != text)
        if own and further:
            entry = _Entry(own, text, further, number)
            self._by_word[own[0]].append(entry)
            if spaceless(text):
                self._inside.append(entry)

    def expand(self, query: str, numbers: Collection[int]) -> tuple[Expansion | None, list[int]]:
        """The synonyms of a query in its normal form by some rules, and those of the rules that have some."""
        if not self._by_word:
            return None, []
        parts, texts = [], []
        found = list(self._parts(query, frozenset(numbers)))
        for part in found:
            typed = query[part.start : part.end]
            others = dict.fromkeys(other for entry in part.entries for other in entry.others if other != typed)
            parts.append((typed, tuple(others)))
            texts += [f"{query[: part.start]}{other}{query[part.end :]}" for other in others]
        named = list(dict.fromkeys(entry.number for part in found for entry in part.entries))
        return (Expansion(tuple(parts), tuple(texts[:_READINGS])) if parts else None), named

    def _parts(self, query: str, numbers: Collection[int]) -> Iterator[_Part]:
        """The longest phrases, from left to right; within a word only those of scripts that set no blanks."""
        tokens = query.split()
        read = [tuple(words(token, self._language)) for token in tokens]
        starts = [sum(map(len, tokens[:at])) + at for at in range(len(tokens))]
        at = 0
        while at < len(tokens):
            entries = [entry for word in read[at][:1] for entry in self._by_word.get(word, ())]
            lengths = [(_tokens(read[at:], entry.words), entry) for entry in entries if entry.number in numbers]
            longest = max((length for length, _ in lengths), default=0)
            if longest:
                end = starts[at + longest - 1] + len(tokens[at + longest - 1])
                yield _Part(starts[at], end, tuple(entry for length, entry in lengths if length == longest))
            else:
                yield from self._within(tokens[at], starts[at], numbers)
            at += max(longest, 1)

    def _within(self, token: str, start: int, numbers: Collection[int]) -> Iterator[_Part]:
        """The longest phrase within a token."""
        inside = [entry for entry in self._inside if entry.number in numbers and entry.text in token]
        if inside:
            text = max((entry.text for entry in inside), key=len)
            first = start + token.index(text)
            yield _Part(first, first + len(text), tuple(entry for entry in inside if entry.text == text))


def _tokens(read: list[tuple[str, ...]], phrase: tuple[str, ...]) -> int:
    """How many of the first tokens are the phrase together; 0 where none are."""
    together: tuple[str, ...] = ()
    for count, own in enumerate(read, 1):
        together += own
        if len(together) >= len(phrase):
            return count if together == phrase else 0
    return 0
