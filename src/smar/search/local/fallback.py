"""What stands in for a query's words that no item holds: misspelt, compound, joined or split ones.

Such a word is read as

    a word of about the same letters    sneekers -> sneakers
    a word that holds it                kleid -> sommerkleider
    a word inside of it                 sommerkleider -> kleid
    two words                           ceilingfan -> ceiling fan
    one word with its neighbour         sommer kleid -> sommerkleid

and an item gets the weight of the reading that gives it most, not the sum of several. How likely each reading is, is
a guess of the two things that make one: how like the letters are, and how many items hold it. Readings of one word
share one idf, that of a word which all their items hold: else the rarest would win, and the typing error of one item
would count more than the word of a thousand.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smar.search.column_values import Mask
from smar.search.expansion import Expansion
from smar.search.local.grams import Like, has_likes
from smar.search.local.postings import Postings, Reading, WordQuery
from smar.search.local.synonyms import with_synonyms
from smar.search.local.word_index import WordIndex

_WORDS = 8  # of a query that are read: what has more is no query of words
_MOST = 12  # readings
_LEAST = 0.1  # likelihood of one beside the likeliest
_PRIOR = 0.2  # of two words as like, one that 32 times as many items hold is twice as likely
_TOP = 0.95  # weight of the likeliest reading beside a word that was written so
_OTHERS = 0.5  # the likelihood of others to this power is their weight: the query's other words have a say, too
_SPLIT = 0.5  # likeness of two words that were written as one
_PART = 3  # letters of each of the two at least
_ALONE = 4  # the same, where no item holds both
_FEW = 64  # rows of which one is alive most often
_LOOKED_AT = 4096  # rows of the rarer word that are looked up in the other's

Words = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """The words of a segment; `dead` as in `smar.search.local.segment.Segment`."""

    postings: Postings
    dead: Mask | None

    def holds(self, word: str) -> bool:
        """Whether an item that is alive does."""
        rows = self.postings.posting(word)[0]
        if self.dead is None or not len(rows):
            return len(rows) > 0
        return not (self.dead[rows[:_FEW]].all() and self.dead[rows].all())


def ask(parts: Sequence[Part], text: str, expansion: Expansion | None = None) -> WordQuery:
    """The words of a query with its synonyms, and what stands in for those that no item holds.

    The first of `parts` is the version.
    """
    base = parts[0].postings
    assert isinstance(base, WordIndex)
    query = base.query(text)
    reader = _Reader(base, parts)
    if expansion is not None:
        query = with_synonyms(query, base, expansion, reader.held)
    unknown = [word for word in query.own if not reader.held(word)][:_WORDS]
    if not unknown and not query.synonyms:
        return query
    query = replace(query, readings={word: found for word in unknown if (found := reader.read(word, query.order))})

    def weight(word: str) -> float:
        sums = [sum(factor * base.idf(one) for one, factor in reading) for reading in query.stand_ins(word) or ()]
        return query.counts[word] * max(sums, default=base.idf(word))

    weightiest = sorted(query.counts, key=lambda word: (-weight(word), word))
    return replace(query, counts={word: query.counts[word] for word in weightiest})


class _Reader:
    """Finds readings in all segments of an index, whose words `base` weighs."""

    def __init__(self, base: WordIndex, parts: Sequence[Part]) -> None:
        self.base, self.parts = base, parts

    def held(self, word: str) -> bool:
        """Whether any item holds a word."""
        return any(part.holds(word) for part in self.parts)

    def read(self, word: str, order: Sequence[str]) -> list[Reading]:
        """Readings of a word of the query `order`, the likeliest first."""
        if not has_likes(word):
            return []
        likely = self._likely({**self._alike(word), **dict(self._joined(word, order)), **dict(self._split(word))})
        alone = self.base.idf(*(name[0] for name in likely if len(name) == 1))
        readings = []
        for name, likelihood in likely.items():
            factor = _TOP * likelihood**_OTHERS * (alone / self.base.idf(*name) if len(name) == 1 else 1)
            readings.append(tuple((one, factor) for one in name))
        return readings

    def _likely(self, likes: Mapping[Words, Like]) -> dict[Words, float]:
        """The likeliest and their likelihood beside the first one's; 1 that of the first."""
        likelihood = {name: like.similarity * like.holding**_PRIOR for name, like in likes.items()}
        found: dict[Words, float] = {}
        for name in sorted(likelihood, key=lambda name: (-likelihood[name], name)):
            if len(found) == _MOST or (found and likelihood[name] < _LEAST * likelihood[next(iter(found))]):
                break
            if all(map(self.held, name)):
                found[name] = likelihood[name]
        return {name: value / max(found.values()) for name, value in found.items()}

    def _alike(self, word: str) -> dict[Words, Like]:
        found: dict[Words, Like] = {}
        for part in self.parts:
            found |= {(name,): like for name, like in part.postings.likes(word).items() if name != word}
        return found

    def _joined(self, word: str, order: Sequence[str]) -> Iterator[tuple[Words, Like]]:
        """The word and a neighbour as one."""
        at = order.index(word)
        pairs = [word + other for other in order[at + 1 : at + 2]]
        pairs += [other + word for other in order[max(at - 1, 0) : at]]
        for pair in pairs:
            if holding := sum(len(part.postings.posting(pair)[0]) for part in self.parts):
                yield (pair,), Like(1.0, holding)

    def _split(self, word: str) -> Iterator[tuple[Words, Like]]:
        """The word as two, where items hold both, or neither is short."""
        for at in range(_PART, len(word) - _PART + 1):
            pair = word[:at], word[at:]
            if all(map(self.held, pair)):
                together = sum(_together(part.postings, *pair) for part in self.parts)
                if together or min(map(len, pair)) >= _ALONE:
                    yield pair, Like(_SPLIT, max(together, 1))


def _together(postings: Postings, first: str, second: str) -> int:
    """Rows that hold both, among some thousands of those that hold the rarer one."""
    few, many = sorted((postings.posting(word)[0] for word in (first, second)), key=len)
    few = few[:: 1 + len(few) // _LOOKED_AT]
    if not len(few):
        return 0
    return int(np.count_nonzero(many[np.minimum(np.searchsorted(many, few), len(many) - 1)] == few))
