"""Which words of a vocabulary look like a given one, by character n-grams: a memory-mapped index of letters.

``grams.npy`` holds, for each of 65,536 buckets of hashed n-grams one after the other, the places of the words that have
one of its n-grams; ``gram_starts.npy`` where each bucket begins. A word has the trigrams of its letters between two
borders, one of up to six letters bigrams, too: an edit of a short word breaks all of its trigrams. Places ascend, and a
vocabulary is in the order of length, so the words of some lengths are one slice of each bucket.

Words with digits are left out: one digit more or less is another model, not a misspelling of this one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import regex
from rapidfuzz import process
from rapidfuzz.distance import OSA

from smar.core.errors import InputError
from smar.search.local.ready import map_npy, write_npy
from smar.search.local.versions import MADE_BY

FILES: dict[str, type[np.generic]] = {"grams": np.int32, "gram_starts": np.int32}
_BUCKETS = 1 << 16
_LEAST, _LONGEST = 3, 64  # letters of a word
_SHORT = 6
_HELD, _INSIDE = 4, 5  # letters from which on a word is looked for in longer ones, and shorter ones in it
_MOST = 256  # words of each kind that are compared letter by letter
_OTHER_LETTER = 0.4  # a letter left out or two swapped can be done in one way, a wrong one in many
_FURTHER = 0.1  # each further edit
_SHARE = 0.5  # a word in another one, at the same length
_BORDER = "\0"
_FACTORS = (0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35)
_COMPARED = regex.compile(rf"[\p{{L}}\p{{M}}]{{{_LEAST},{_LONGEST}}}")
_UNSPACED = regex.compile(r"[\p{scx=Han}\p{Hangul}\p{scx=Hiragana}\p{scx=Katakana}\p{Line_Break=SA}]")

Places = npt.NDArray[np.int32]


def has_likes(word: str) -> bool:
    """Whether words like this one are looked for: 3 to 64 letters of a script that puts blanks between words.

    Words of other scripts are two characters long; what shares one of them means something else.
    """
    return _COMPARED.fullmatch(word) is not None and _UNSPACED.search(word) is None


@dataclass(frozen=True, slots=True)
class Like:
    """How like another word one is, above 0 to 1, and how many rows hold it."""

    similarity: float
    holding: int


def similarities(word: str, others: Sequence[str]) -> npt.NDArray[np.float64]:
    """How like each of `others` is to a word [n]: 0 to 1.

    By the edits (letters put in, left out, taken for another or swapped with the next one), of which every fourth
    letter may have one; where one word holds the other, by its share of the longer one's letters.
    """
    if not others:
        return np.empty(0)
    allowed = _edits(word)
    made = process.cdist([word], others, scorer=OSA.distance, score_cutoff=allowed, dtype=np.int32)[0]
    found: npt.NDArray[np.float64] = np.where(made <= allowed, _FURTHER ** (made - 1.0), 0)
    for at in np.flatnonzero(made == 1).tolist():
        if len(others[at]) <= len(word) and sorted(others[at]) != sorted(word):
            found[at] = _OTHER_LETTER
    for at in [at for at, other in enumerate(others) if other in word or word in other]:
        short, long = sorted((word, others[at]), key=len)
        if made[at] > allowed and len(short) >= (_HELD if short == word else _INSIDE):
            found[at] = _SHARE * len(short) / len(long)
    return found


def _edits(word: str) -> int:
    return max(1, len(word) // 4)


class Grams:
    """The n-grams of a vocabulary; `first` gives the place of its first word of a length."""

    def __init__(self, folder: Path, first: Callable[[int], int]) -> None:
        """Map the files.

        Raises:
            InputError: a file is missing or does not fit the other; the message names it.
        """
        self._first = first
        self._entries, self._starts = (map_npy(folder / f"{name}.npy", MADE_BY) for name in FILES)
        kinds = [array.dtype for array in (self._entries, self._starts)]
        fits = kinds == list(FILES.values()) and self._starts.shape == (_BUCKETS + 1,)
        if not fits or int(self._starts[-1]) != len(self._entries):
            raise InputError(f"the files of n-grams in {folder} do not fit each other. Run `{MADE_BY}` again.")

    def candidates(self, word: str) -> Places:
        """Places of words that `similarities` may find like a word, those with most n-grams in common."""
        size, allowed = len(word), _edits(word)
        keys = np.unique(_trigrams(word))
        inner = np.unique(_trigrams(word)[1:-1])
        if size < _SHORT:  # an edit breaks three n-grams, swapped letters four trigrams
            pairs = np.unique(_bigrams(word))
            found = [self._sharing(pairs, len(pairs) - 3, size - 1, size + 1)]
        else:
            found = [self._sharing(keys, len(keys) - 1 - 3 * allowed, size - allowed, size + allowed)]
        if size >= _HELD:
            found.append(self._sharing(inner, len(inner), size + 1, _LONGEST))
        if size > _INSIDE:
            found.append(self._sharing(inner, _INSIDE - 2, _INSIDE, size - 1))
        return np.unique(np.concatenate(found))

    def _sharing(self, keys: npt.NDArray[np.uint16], least: int, shortest: int, longest: int) -> Places:
        """Places of words of some lengths that have `least` of the n-grams, two at least; at most `_MOST`."""
        ends = np.array([self._first(shortest), self._first(longest + 1)], np.int32)  # int64 would copy each bucket
        parts = []
        for key in keys.tolist():
            part = self._entries[self._starts[key] : self._starts[key + 1]]
            first, last = part.searchsorted(ends)
            parts.append(part[first:last])
        found = np.sort(np.concatenate(parts))
        first = np.flatnonzero(np.diff(found, prepend=-1))
        counts = np.diff(first, append=len(found))
        enough = counts >= max(2, least)
        places, counts = found[first[enough]], counts[enough]
        return places[np.argpartition(-counts, _MOST)[:_MOST]] if len(places) > _MOST else places


def _trigrams(word: str) -> npt.NDArray[np.uint16]:
    codes = _codes(_BORDER + word + _BORDER)
    return _buckets(codes[:-2], codes[1:-1], codes[2:])


def _bigrams(word: str) -> npt.NDArray[np.uint16]:
    codes = _codes(_BORDER + word + _BORDER)
    return _buckets(codes[:-1], codes[1:])


def _codes(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _buckets(*letters: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]:
    """The bucket of each n-gram, whose letters are given one array each."""
    mixed = np.full(len(letters[0]), len(letters), np.uint32)
    for factor, column in zip(_FACTORS, letters, strict=False):
        mixed = (mixed ^ column) * np.uint32(factor)
        mixed ^= mixed >> np.uint32(15)
    return (mixed >> np.uint32(16)).astype(np.uint16)


def write_grams(words: Sequence[str], folder: Path) -> None:
    """Write the n-grams of `words`, which are in the order of length."""
    other = {letter for letter in set().union(*words) if not has_likes(3 * letter)}
    kept = [at for at, word in enumerate(words) if len(word) >= _LEAST and other.isdisjoint(word)]
    codes = _codes(_BORDER + "".join([words[at] + _BORDER for at in kept]))
    borders = np.flatnonzero(codes == 0)
    owner = np.repeat(np.array(kept, np.int32), np.diff(borders))  # of each letter and of the border before it
    inner = np.flatnonzero(codes)
    end = borders[np.diff(borders).searchsorted(_SHORT + 1, side="right")]
    bucket = np.concatenate(
        [_buckets(codes[inner - 1], codes[inner], codes[inner + 1]), _buckets(codes[:end], codes[1 : end + 1])]
    )
    order = np.argsort(bucket, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(bucket, minlength=_BUCKETS))])
    for (name, kind), array in zip(
        FILES.items(), (np.concatenate([owner[inner], owner[:end]])[order], starts), strict=True
    ):
        write_npy(folder / f"{name}.npy", array.shape, [array], kind)
