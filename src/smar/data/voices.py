"""The shares that a query gives its three voices: the words (BM25), the text vectors and the multimodal vectors.

    score = a * BM25 / unit + b * Q.S_t + c * Q.S_m        a + b + c = 1, of each query its own

The published gate decides between S_t and S_m (docs/paper.md, "Model"); words as a third voice are our choice: vectors
know what else things are called, words know what exactly is asked for. The share of words, and that of S_m in what is
left to the vectors, are logistic functions of what is known of the query before anything is searched: the gate's
probability that pictures help, the number of its words, how rare they are, and how many of them the catalogue and the
typed queries that the towers learned from hold.
`unit` is the idf of a word that no text holds, the most that one word can add to BM25, so that shares mean the same in
catalogues of all sizes. `smar.training.voices_fit` fits the functions.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import cached_property
from math import log, log1p, tanh
from operator import mul
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from smar.core.errors import InputError
from smar.core.files import atomic
from smar.data.words import words

VOICES_FILE = "voices.json"
FEATURES = ("pictures", "length", "rarest", "rarity", "unknown", "typed")
Floats = npt.NDArray[np.float64]
_CERTAIN = 1e-4  # of the gate's probability


class Voices(BaseModel):
    """Fitted shares. `mean` and `scale` of each of `FEATURES`; `words` and `pictures`: a weight of each and a bias.

    `typed` are words of the queries that the towers learned from, those that the catalogue holds.

    >>> even = Voices(mean=(0.0,) * 6, scale=(1.0,) * 6, words=(0.0,) * 7, pictures=(0.0,) * 7)
    >>> even.shares(np.zeros((1, 6))).round(3).tolist()
    [[0.5, 0.25, 0.25]]
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    typed: tuple[str, ...] = ()
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    words: tuple[float, ...]
    pictures: tuple[float, ...]

    @cached_property
    def known(self) -> frozenset[str]:
        """`typed`, to look words up in."""
        return frozenset(self.typed)

    @classmethod
    def read(cls, folder: Path) -> "Voices | None":
        """Those that a folder holds, None where it has none; raises InputError where they are damaged."""
        try:
            return cls.model_validate_json((folder / VOICES_FILE).read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise InputError(f"{folder / VOICES_FILE} is damaged: {error}. Train the model again.") from None

    def write(self, folder: Path) -> None:
        """Into ``voices.json`` of a folder."""
        with atomic(folder / VOICES_FILE) as partial:
            partial.write_text(self.model_dump_json() + "\n", encoding="utf-8")

    @model_validator(mode="after")
    def _fits(self) -> "Voices":
        sizes = [len(self.mean), len(self.scale), len(self.words) - 1, len(self.pictures) - 1]
        if sizes != [len(FEATURES)] * 4:
            raise ValueError(f"{sizes} weights stand for the {len(FEATURES)} features {', '.join(FEATURES)}")
        return self

    def shares(self, features: Floats) -> Floats:
        """Features [n, 6] -> shares of words, text vectors and multimodal vectors [n, 3], which add up to 1."""
        return np.array([self.of(row) for row in features.tolist()]).reshape(len(features), 3)

    def of(self, features: Sequence[float]) -> tuple[float, float, float]:
        """`shares` of one query; in plain numbers, as arrays cost more."""
        x = [(value - mean) / scale for value, mean, scale in zip(features, self.mean, self.scale, strict=True)]
        a, c = (_logistic(sum(map(mul, x, weights), weights[-1])) for weights in (self.words, self.pictures))
        return a, (1 - a) * (1 - c), (1 - a) * c


def _logistic(x: float) -> float:
    return (1 + tanh(x / 2)) / 2


class Rarity(Protocol):
    """Who knows how rare a word is."""

    @property
    def language(self) -> str | None:
        """Of the words, see `smar.data.words.words`."""

    @property
    def unit(self) -> float:
        """Idf of a word that no text holds."""

    def idf(self, word: str) -> float:
        """Weight of a word by its rarity."""


def query_features(
    queries: Sequence[str], rarity: Rarity, typed: Collection[str], pictures: npt.NDArray[np.float32]
) -> Floats:
    """What is known of queries before they are searched, [n, 6] in the order of `FEATURES`.

    Args:
        queries: texts.
        rarity: of the catalogue's words.
        typed: words of the queries that the towers learned from.
        pictures: the gate's probability that pictures help [n].
    """
    each = zip(queries, pictures.tolist(), strict=True)
    rows = [features_of(words(query, rarity.language), rarity, typed, picture) for query, picture in each]
    return np.array(rows).reshape(len(rows), len(FEATURES))


def _logit(probability: float) -> float:
    certain = min(max(probability, _CERTAIN), 1 - _CERTAIN)
    return log(certain / (1 - certain))


def features_of(own: Sequence[str], rarity: Rarity, typed: Collection[str], picture: float) -> tuple[float, ...]:
    """`query_features` of the words of one query; `picture` is the gate's probability."""
    unit = rarity.unit
    share = {word: rarity.idf(word) / unit for word in own}
    total = max(sum(share.values()), 1e-9)
    size, rarest, mean = log1p(len(own)), max(share.values(), default=1.0), total / max(len(share), 1)
    unknown = sum(one for one in share.values() if one >= 1)
    known = sum(one for word, one in share.items() if word in typed)
    return _logit(picture), size, rarest, mean, unknown / total, known / total


def most_typed(queries: Iterable[Sequence[str]], most: int = 50_000) -> list[str]:
    """The words of most queries, in the order of the alphabet; each query is given as its words."""
    count: dict[str, int] = {}
    for query in queries:
        for word in set(query):
            count[word] = count.get(word, 0) + 1
    return sorted(sorted(count, key=lambda word: (-count[word], word))[:most])
