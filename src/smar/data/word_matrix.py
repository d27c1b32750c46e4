"""The BM25 weight of every word in every text, word by word, made of some texts at a time.

Lucene's formula with k1 = 1.5 and b = 0.75. What grows with the texts is made by whom the caller names: `in_memory`, or
`on_disk`, whose mapped files the system writes and takes back as it needs memory.
"""

import os
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smar.data.words import idf, length_norm, words

_WORDS = 1 << 21  # sorted at a time, which bounds the memory
Ints = npt.NDArray[np.int32]
Empty = Callable[[str, tuple[int, ...], type[np.generic]], npt.NDArray[Any]]
"""Makes an array: its name, its shape, and its kind."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """`rows` [n] that hold a word, ascending, and its `weights` [n] there; those of word w lie from ``starts[w]`` on.

    `columns` numbers the words, and `mean_length` is the number of words that a text has in the mean.
    """

    columns: dict[str, int]
    starts: npt.NDArray[np.int64]
    rows: Ints
    weights: npt.NDArray[np.float32]
    texts: int
    mean_length: float


def in_memory(name: str, shape: tuple[int, ...], kind: type[np.generic]) -> npt.NDArray[Any]:
    """An array as usual."""
    return np.empty(shape, kind)


def on_disk(folder: Path) -> Empty:
    """Arrays that are mapped .npy files of a folder; who asked for one removes what nobody else is to read."""

    def empty(name: str, shape: tuple[int, ...], kind: type[np.generic]) -> npt.NDArray[Any]:
        path, made = folder / f"{name}.npy", np.empty(shape, kind)
        if not made.size:  # nothing cannot be mapped
            np.save(path, made)
            return made
        mapped = np.lib.format.open_memmap(path, "w+", kind, shape)
        with path.open("r+b") as handle:  # else a full disk ends the process without a word
            os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
        return mapped

    return empty


def word_matrix(texts: Iterable[str], language: str | None = None, empty: Empty = in_memory) -> Matrix:
    """The matrix of some texts; `language` is that of `smar.data.words.words`.

    >>> word_matrix(["red dress", "blue dress"]).rows.tolist()
    [0, 0, 1, 1]

    Args:
        texts: read once.
        language: of the stemmer.
        empty: makes `rows` and `weights`, and ``counted-0``, ``counted-1`` ..., which are not needed afterwards.
    """
    columns: defaultdict[str, int] = defaultdict()
    columns.default_factory = columns.__len__  # the next number
    lengths = array("i")
    parts = []
    for number, entries in enumerate(_counted(texts, language, columns, lengths)):
        parts.append(empty(f"counted-{number}", entries.shape, np.int32))
        parts[-1][:] = entries
    counts = partial(np.bincount, minlength=len(columns))
    holding = sum((counts(word) for word, _, _ in parts), np.zeros(len(columns), np.int64))
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(holding)])
    size = (int(starts[-1]),)
    rows, weights = empty("rows", size, np.int32), empty("weights", size, np.float32)
    held = np.frombuffer(lengths, np.int32)
    mean = float(held.mean()) if len(columns) else 0.0
    rarity, filled = idf(holding, len(held)), starts[:-1].copy()
    for word, row, count in parts:
        own = counts(word)
        places = (filled - np.cumsum(own) + own)[word] + np.arange(len(word))
        rows[places], weights[places] = row, rarity[word] * count / (length_norm(held[row], mean) + count)
        filled += own
    return Matrix(dict(columns), starts, rows, weights, len(held), mean)


def _counted(
    texts: Iterable[str], language: str | None, columns: defaultdict[str, int], lengths: "array[int]"
) -> Iterator[Ints]:
    """Of some texts at a time each word with each text that has it, by word: [3, n] of word, text, how often."""
    # numbers of 4 bytes: lists of Python's would take several times as much
    flat, first = array("i"), 0
    for text in texts:
        found = words(text, language)
        flat.extend(map(columns.__getitem__, found))
        lengths.append(len(found))
        if len(flat) >= _WORDS:
            yield _sorted(flat, lengths, first)
            flat, first = array("i"), len(lengths)
    if flat:
        yield _sorted(flat, lengths, first)


def _sorted(flat: "array[int]", lengths: "array[int]", first: int) -> Ints:
    own = np.array(lengths[first:], np.int32)
    texts = len(own)
    keys = np.frombuffer(flat, np.int32) * np.int64(texts) + np.repeat(np.arange(texts), own)
    entries, counts = np.unique(keys, return_counts=True)
    word, row = np.divmod(entries, texts)
    return np.stack([word, row + first, counts]).astype(np.int32)
