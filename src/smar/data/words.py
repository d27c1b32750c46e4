"""The words of a text and what a rare one is worth: the part of BM25 that searching needs, without its library.

Words are what BM25, hybrid search and stage 0 compare. They fold what people type one way or another, in items' texts
and in queries alike: docs/text.md says what, and why.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import regex
from anyascii import anyascii

from smar.data.text import by_token, normalise

T = TypeVar("T")
K1, B = 1.5, 0.75
_SPACELESS = r"[\p{scx=Han}\p{Hangul}\p{scx=Hiragana}\p{scx=Katakana}\p{Line_Break=SA}]"
_SPACED = rf"[[\p{{L}}\p{{M}}]--{_SPACELESS}]"
_RUN = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:(?<=[\p{L}\p{M}])'[\p{L}\p{M}]+)*")
_PIECE = regex.compile(
    rf"(?P<spaceless>{_SPACELESS}[{_SPACELESS}\p{{M}}]*+)|\d+(?={_SPACED}{{1,4}}(?!{_SPACED}|\d))|(?:{_SPACED}|\p{{N}})+",
    regex.V1,
)
_ASCII_WORD = re.compile(r"\d+(?=[a-z]{1,4}(?![a-z0-9]))|[a-z0-9]+")
_BYTES = [chr(byte) if byte < 128 else " " for byte in range(256)]
_BLANKED = "".join(byte.lower() if byte.isalnum() else " " for byte in _BYTES).encode()
_SHAPE = "".join("0" if byte.isdigit() else "a" if byte.isalpha() else " " for byte in _BYTES).encode()
_LETTER = regex.compile(r"[\p{L}\p{N}]\p{M}*")
_IDEOGRAM = regex.compile(r"[\p{Han}\p{Hangul}]")
_ACCENTS = regex.compile(r"\p{Mn}")
_MARK = regex.compile(r"\p{M}")
_MARKS = regex.compile(r"(?<=[\p{Latin}\p{Greek}\p{Cyrillic}\p{Arabic}\p{Hebrew}])\p{Mn}+")
_ARABIC = {"ـ": ""} | dict.fromkeys("آأإٱ", "ا") | dict.fromkeys("ىیے", "ي") | dict.fromkeys("ةہۀ", "ه") | {"ک": "ك"}


def words(text: str, language: str | None = None) -> list[str]:
    """The words of a text, in their order; `language` names the Snowball stemmer that shortens them, None for none.

    >>> words("Levi’s Größe 38, 256GB"), words("iPhone手机壳")
    (['levi', 'levis', 'grosse', '38', '256', 'gb'], ['iphone', '手', '机', '壳', '手机', '机壳'])
    """
    if text.isascii() and "'" not in text:  # the same, many times as fast
        plain = text.encode()
        if b"0a" in plain.translate(_SHAPE):
            found = _ASCII_WORD.findall(text.lower())
        else:
            found = plain.translate(_BLANKED).decode().split()
    else:
        found = [word for token in text.split() for word in _words_of(token)]
    return found if language is None else _stemmer(language).stemWords(found)


def spaceless(text: str) -> bool:
    """Whether a text is of scripts that set no blanks, or of which pairs of characters are searched, such as Hangul.

    >>> spaceless("手机"), spaceless("iPhone手机")
    (True, False)
    """
    return regex.fullmatch(rf"(?:{_SPACELESS}|\p{{M}})+", text, regex.V1) is not None


def folded(text: str) -> str:
    """A text in its normal form as words are compared: without what people type one way or another.

    >>> folded("Crème Brûlée"), folded("紅色連衣裙")
    ('creme brulee', '红色连衣裙')
    """
    normal = normalise(text)
    return normal if normal.isascii() else _MARKS.sub("", "".join(map(_FOLDED.__getitem__, normal)))


@by_token
def _words_of(token: str) -> tuple[str, ...]:
    return tuple(word for run in _RUN.findall(normalise(token)) for word in _apart(run))


def _apart(run: str) -> list[str]:
    """The words of letters and digits that stand together: `l'été` is `été` and `lété`, `men's` is `men` and `mens`."""
    parts = run.split("'")
    if len(parts) == 1:
        return _split(run)
    return [word for part in [*parts, "".join(parts)] if len(part) > 1 for word in _split(part)]


def _split(run: str) -> list[str]:
    """At borders between scripts that set blanks and scripts that do not, and before a unit; the latter in pairs."""
    if run.isascii():
        return _ASCII_WORD.findall(run)
    run = "".join(map(_FOLDED.__getitem__, run))
    if marked := _MARK.search(run) is not None:
        run = _MARKS.sub("", run)
    found = []
    for piece in _PIECE.finditer(run):
        if piece.lastgroup:
            found += _pairs(_LETTER.findall(piece[0]) if marked else piece[0])
        elif not marked or _LETTER.search(piece[0]):  # not marks alone
            found.append(piece[0])
    return found


def _pairs(letters: Sequence[str]) -> list[str]:
    """Characters that are words by themselves, then all pairs; a character alone is a word whatever it is."""
    if len(letters) == 1:
        return [letters[0]]
    singles = [letter for letter in letters if _WORDS[letter]]
    return singles + [first + second for first, second in pairwise(letters)]


class _Remembered(dict[str, T]):
    """What a function says of each letter, asked when a text first holds it."""

    def __init__(self, make: Callable[[str], T]) -> None:
        self.make = make

    def __missing__(self, letter: str) -> T:
        self[letter] = found = self.make(letter)
        return found


def _fold(letter: str) -> str:
    if (digit := unicodedata.decimal(letter, None)) is not None:
        return str(digit)
    if regex.match(r"\p{Latin}", letter):
        plain = anyascii(letter).lower()  # ø, which Unicode does not take apart, is o, too
        return plain if plain.isalnum() else letter
    if regex.match(r"[\p{Greek}\p{Cyrillic}]", letter) and letter != "й":  # a letter of its own
        return _ACCENTS.sub("", unicodedata.normalize("NFD", letter))  # type: ignore[no-any-return]
    if regex.match(r"\p{Han}", letter):
        simple: str = _simplified().convert(letter)
        return simple
    return _ARABIC.get(letter, letter)


_FOLDED = _Remembered(_fold)
_WORDS = _Remembered(lambda letter: _IDEOGRAM.match(letter) is not None)


@cache
def _simplified() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")


@cache
def _stemmer(language: str) -> Any:
    from Stemmer import Stemmer

    return Stemmer(language)


def length_norm(count: Any, mean: float) -> Any:
    """What the number of times that a word occurs is weighed against in a text of `count` words, a number or an array.

    ``idf * times / (norm + times)`` is Lucene's BM25 weight of the word; `mean` is the mean length of all texts.
    """
    return K1 * (1 - B + B * count / mean) if mean else K1


def idf(holding: "npt.NDArray[np.int64] | int", texts: int) -> npt.NDArray[np.float64]:
    """Lucene's weight of words that occur in `holding` of `texts` texts: log(1 + (N - n + 0.5) / (n + 0.5))."""
    found: npt.NDArray[np.float64] = np.log1p((texts - np.asarray(holding) + 0.5) / (np.asarray(holding) + 0.5))
    return found
