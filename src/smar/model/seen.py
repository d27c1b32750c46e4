"""What a run has seen in training, as hashes: its pairs of query and item, and the words of its tokenizer.

A run that goes on from it so knows which words are new, and which pairs are held out from the towers' whole past; a
report knows what a run of another dataset was trained on. Hashes of 64 bits tell neither queries nor items.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import xxhash

from smar.core.errors import InputError
from smar.core.files import StrPath, atomic

SEEN_FILE = "seen.npz"
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Seen:
    """Sorted keys, uint64: of training pairs [n] and of frequent words [m], those of all runs before included."""

    pairs: Keys = field(default_factory=lambda: keys(()))
    words: Keys = field(default_factory=lambda: keys(()))

    @classmethod
    def read(cls, run: StrPath) -> "Seen | None":
        """What a run has seen; None for a run made before runs remembered it.

        Raises:
            InputError: the file is damaged.
        """
        file = Path(run) / SEEN_FILE
        if not file.is_file():
            return None
        try:
            with np.load(file) as arrays:
                return cls(arrays["pairs"], arrays["words"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise InputError(f"{file} is damaged: {error}. Train the run again.") from None

    def write(self, run: Path) -> None:
        """Write ``RUN/seen.npz``."""
        with atomic(run / SEEN_FILE) as partial, partial.open("wb") as file:
            np.savez_compressed(file, pairs=self.pairs, words=self.words)

    def and_of(self, other: "Seen") -> "Seen":
        """What either has seen."""
        return Seen(np.union1d(self.pairs, other.pairs), np.union1d(self.words, other.words))


def keys(texts: Iterable[str]) -> Keys:
    """A key of each text, in order."""
    return np.fromiter((xxhash.xxh3_64_intdigest(text.encode()) for text in texts), np.uint64)


def pair_keys(queries: Sequence[str], items: Sequence[str]) -> Keys:
    """A key of each pair of query and item id."""
    return keys(f"{query}\0{item}" for query, item in zip(queries, items, strict=True))
