"""Where words stand in a text as it was written: what `smar.data.words.words` makes of it, with places.

Normal form and folding change how many characters there are, so each piece of the text is read for itself.
"""

from collections.abc import Collection, Iterator, Set
from itertools import pairwise

import regex

from smar.data.words import _PIECE, spaceless, words

_RUN = regex.compile(
    r"[\p{L}\p{M}\p{N}][\p{L}\p{M}\p{N}\p{DI}]*+(?:(?<=[\p{L}\p{M}]\p{DI}*)['‘’´\u1ffd׳ʼ＇][\p{L}\p{M}\p{DI}]+)*"
)  # as `words` finds them, with characters that are not seen within
_LETTER = regex.compile(r"[\p{L}\p{N}][\p{M}ﾞﾟ]*")
_UNSEEN = regex.compile(r"\p{DI}")

Span = tuple[int, int]


def spans_of(text: str, wanted: Collection[str], language: str | None = None) -> list[Span]:
    """First character and the one after the last of each part of a text that has one of the `wanted` words.

    `wanted` are words as `words` gives them, with the same `language`. Of scripts that set no blanks pairs of
    characters are marked, and a single one where it was wanted by itself.

    >>> spans_of("Levi’s Kleid, BLAU (iPhone手机壳)", ["levis", "blau", "手机"])
    [(0, 6), (14, 18), (26, 28)]
    """
    pairs = "".join(word for word in wanted if len(word) > 1)
    own = {word for word in wanted if len(word) > 1 or word not in pairs or not spaceless(word)}
    found = (span for run in _RUN.finditer(text) for span in _in_run(run[0], run.start(), own, language))
    return _joined(found)


def _in_run(run: str, start: int, wanted: Set[str], language: str | None) -> Iterator[Span]:
    """The parts of letters and digits that stand together; all of it where its parts alone do not read as it does."""
    if wanted.isdisjoint(read := words(run, language)):
        return
    seen = [at for at, letter in enumerate(run) if not _UNSEEN.match(letter)]
    bare = "".join(map(run.__getitem__, seen))
    spans = list(_in_pieces(bare, wanted, language))
    alone = {word for first, last in spans for word in words(bare[first:last], language)}
    if not {word for word in read if word in wanted} <= alone:
        yield start, start + len(run)
        return
    yield from ((start + seen[first], start + seen[last - 1] + 1) for first, last in spans)


def _in_pieces(run: str, wanted: Set[str], language: str | None) -> Iterator[Span]:
    for piece in _PIECE.finditer(run):
        if not spaceless(piece[0]):
            if not wanted.isdisjoint(words(piece[0], language)):
                yield piece.span()
            continue
        letters = [(at.start() + piece.start(), at.end() + piece.start()) for at in _LETTER.finditer(piece[0])]
        for first, last in [*letters, *((one[0], other[1]) for one, other in pairwise(letters))]:
            if (read := words(run[first:last])) and read[-1] in wanted:
                yield first, last


def _joined(spans: Iterator[Span]) -> list[Span]:
    """In their order, those that overlap as one."""
    joined: list[Span] = []
    for first, last in sorted(spans):
        if joined and first < joined[-1][1]:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined
