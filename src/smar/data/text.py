"""The one definition of a query's normal form, shared by preparation, training and serving.

`sql/macros.sql` says the same in SQL (macro ``clean_query``); a property test keeps the two equal.
DuckDB lower-cases code point by code point, so Python does the same: ``str.lower`` on a whole string
would turn a final Greek sigma into another letter than in the middle of a word, and U+0130 into two code
points.
"""

import unicodedata

MAX_QUERY_CHARACTERS = 1000
"""A longer query in a log is a pasted text or a broken row: it is rejected with a reason."""


def _lower(character: str) -> str:
    return "i" if character == "\u0130" else character.lower()


def normalise_query(text: str) -> str:
    """Collapse white space to single blanks, strip, lower-case, compose (Unicode NFC). Empty stays empty."""
    if text.isascii():  # the same, ten times as fast: a catalogue's titles pass here, too
        return " ".join(text.lower().split())
    return unicodedata.normalize("NFC", "".join(map(_lower, " ".join(text.split()))))
