"""How rare the words of a catalogue are: what a query's shares depend on, where an engine holds no words."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa

from smar.core.errors import InputError
from smar.core.files import write_json
from smar.data.dataset import text_columns
from smar.data.words import idf, words

RARITY_FILE = "rarity.json"


@dataclass(frozen=True)
class CountedWords:
    """In how many of `items` items each word occurs; see `smar.data.voices.Rarity`.

    >>> held = CountedWords(None, 3, {"red": 2})
    >>> held.idf("red") < held.idf("blue") == held.unit
    True
    """

    language: str | None
    items: int
    holding: dict[str, int]

    @property
    def unit(self) -> float:
        """Idf of a word that no item holds."""
        return float(idf(0, self.items))

    def idf(self, word: str) -> float:
        """Weight of a word by its rarity."""
        return float(idf(self.holding.get(word, 0), self.items))

    @classmethod
    def of(cls, payload: pa.Table, fields: tuple[str, ...], language: str | None) -> Self:
        """Of the columns `fields` of items."""
        columns = text_columns(payload, [name for name in fields if name in payload.column_names])
        counts: Counter[str] = Counter()
        for texts in zip(*columns, strict=True):
            counts.update(set(words(" ".join(texts), language)))
        return cls(language, payload.num_rows, dict(counts))

    def write(self, folder: Path) -> None:
        """Into ``rarity.json`` of a folder."""
        write_json(folder / RARITY_FILE, {"language": self.language, "items": self.items, "holding": self.holding})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What `write` wrote; raises InputError where it is missing or damaged."""
        try:
            return cls(**json.loads((folder / RARITY_FILE).read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            said = f"{folder / RARITY_FILE} cannot be read: {error}. Run `smar index EMBEDDINGS --to URL` again."
            raise InputError(said) from None
