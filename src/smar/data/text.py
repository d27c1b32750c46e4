"""The normal form of texts, shared by preparation, training and serving: what the towers read. See docs/text.md.

It keeps what distinguishes words, accents included; `smar.data.words` folds further. `sql/macros.sql` says the same in
SQL (macro ``clean_query``); a property test keeps the two equal.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import regex

T = TypeVar("T")

MAX_QUERY_CHARACTERS = 1000
"""A longer query in a log is a pasted text or a broken row: it is rejected with a reason."""

_BLANK = r"(?<=\p{Arabic}\p{M}*)\u200c+(?=\p{Arabic})|[™℠]|(?<=\p{N})(?=[¼-¾⅐-⅟↉])"
"""What a blank stands for: a Persian word border, trade marks (NFKC makes letters of them: `nike™` would become
`niketm`), and the border in ``1½`` (NFKC would make ``11⁄2`` of it)."""
_QUOTE = r"[‘’´\u1ffd׳]"
_ODD = regex.compile(rf"(?P<blank>{_BLANK})|(?P<quote>{_QUOTE})|\p{{DI}}")
_MAYBE_ODD = regex.compile(rf"[\p{{DI}}™℠¼-¾⅐-⅟↉]|{_QUOTE}")
_SHORT = 24
_DOTTED = re.compile("i\u0307+")


def normalise(text: str) -> str:
    """NFKC, full case folding, no characters that are not seen, single blanks; empty stays empty.

    >>> normalise("  Crème\\u00a0BRÛLÉE ＳＥＴ "), normalise("Straße"), normalise("ﾍﾟｯﾄ")
    ('crème brûlée set', 'strasse', 'ペット')
    """
    if text.isascii():  # the same, many times as fast: a catalogue's titles pass here, too
        return " ".join(text.lower().split())
    return " ".join(filter(None, map(_normal, text.split())))


def by_token(make: Callable[[str], T]) -> Callable[[str], T]:
    """A function of what stands between blanks, remembered for the short ones, which come again and again."""
    remembered = lru_cache(maxsize=32_768)(make)
    return lambda token: remembered(token) if len(token) <= _SHORT else make(token)


@by_token
def _normal(token: str) -> str:
    if token.isascii():
        return token.lower()
    if _MAYBE_ODD.search(token):  # in a third of the time of looking for all of it
        token = _ODD.sub(_shown, token)
    token = unicodedata.normalize("NFKC", token).casefold().replace("ʼ", "'").replace("⁄", "/")
    if "\u0307" in token:  # İ, whose dot full case folding sets apart
        token = _DOTTED.sub("i", token)
    return " ".join(unicodedata.normalize("NFKC", token).split())


def _shown(found: "regex.Match[str]") -> str:
    return {"blank": " ", "quote": "'"}.get(found.lastgroup or "", "")


def compose(text: str) -> str:
    """Unicode NFC, in which values of item columns are compared: one spelling, the case as it is."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
