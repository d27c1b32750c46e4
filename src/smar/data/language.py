"""The language that a shop's texts are written in, which names the stemmer of words search and BM25.

Stemmed words are what people type: docs/text.md has the figures. The guess is py3langid's (naive Bayes over byte
n-grams; Lui and Baldwin 2012) on many titles and queries together: of one title it would be none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

FEWEST, MOST = 50, 1000
"""Distinct texts that tell a language, and those that are read."""
SURE = 0.9
STEMMED = {
    "ar": "arabic",
    "ca": "catalan",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "nb": "norwegian",
    "ne": "nepali",
    "nl": "dutch",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}
"""ISO 639-1 code -> Snowball stemmer."""
_OTHERS = ("bg", "bn", "cs", "fa", "he", "hr", "ja", "ko", "ms", "sk", "sl", "th", "uk", "ur", "vi", "zh")


@dataclass(frozen=True)
class Language:
    """The stemmer's name, None for none, and why."""

    stemmer: str | None
    reason: str


def guess_language(texts: Sequence[str]) -> Language:
    """Language of some texts; the first 1,000 distinct ones are read.

    >>> guess_language(["red dress"]).stemmer is None
    True
    """
    some = list(dict.fromkeys(filter(None, texts)))[:MOST]
    if len(some) < FEWEST:
        return Language(None, f"{len(some)} texts are too few to tell their language")
    code, probability = _identifier().classify("\n".join(some))
    said = f"{code}, {probability:.3f} sure, by {len(some):,} titles and queries"
    if probability < SURE:
        return Language(None, f"not sure of the language ({said})")
    return Language(STEMMED.get(code), said)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    found = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    found.set_languages([code for code in (*STEMMED, *_OTHERS) if code in set(found.nb_classes)])
    return found
