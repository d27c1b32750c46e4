"""The words of a version: BM25 weights of every word in every item, memory-mapped, shared by all processes.

The folder ``words/`` holds the matrix of `smar.data.word_matrix` word by word: the rows that hold the word (ascending)
and its weight in each; the words themselves, shorter ones first; and their n-grams (`smar.search.local.grams`).
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.core.errors import InputError
from smar.data.dataset import text_columns
from smar.data.word_matrix import on_disk, word_matrix
from smar.data.words import idf, words
from smar.search.local.grams import Grams, Like, similarities, write_grams
from smar.search.local.postings import Posting, Scratch, WordQuery
from smar.search.local.ready import map_npy, write_npy
from smar.search.local.versions import MADE_BY

WORDS_FOLDER = "words"
_ROWS = 65_536  # whose texts are held at a time
VOCABULARY_FILE = "vocabulary.arrow"
ARRAYS: dict[str, type[np.generic]] = {"starts": np.int64, "rows": np.int32, "weights": np.float32}


class WordIndex:
    """The words of one version: `items` rows, texts of `fields` in a `language`, `mean_length` words each."""

    def __init__(
        self, folder: Path, items: int, fields: Sequence[str], mean_length: float, language: str | None = None
    ) -> None:
        """Map the files of ``words/``.

        Raises:
            InputError: a file is missing or does not fit the others; the message names it.
        """
        self.items, self.fields, self.mean_length, self.language = items, tuple(fields), mean_length, language
        self.scratch = Scratch()
        self._words, self._columns = _map_vocabulary(folder / VOCABULARY_FILE)
        self._starts, self._rows, self._weights = (_map(folder / f"{name}.npy", kind) for name, kind in ARRAYS.items())
        entries = int(self._starts[-1]) if len(self._starts) == len(self._words) + 1 else -1
        if not len(self._rows) == len(self._weights) == entries:
            raise InputError(f"the files in {folder} do not fit each other. Run `{MADE_BY}` again.")
        self._first = lru_cache(maxsize=256)(self._first_of_length)
        self._grams = Grams(folder, self._first)
        self._posting = lru_cache(maxsize=4096)(self._find)
        self._most = lru_cache(maxsize=4096)(lambda word: float(self._posting(word)[1].max(initial=0)))
        self._idf = lru_cache(maxsize=4096)(self._weigh)

    def posting(self, word: str) -> Posting:
        """Where `word` occurs; empty where it does not."""
        return self._posting(word)

    def most(self, word: str) -> float:
        """The highest weight of `word` in a row."""
        return self._most(word)

    def holding(self, word: str) -> int:
        """Number of rows that hold a word."""
        return len(self.posting(word)[0])

    @property
    def unit(self) -> float:
        """Idf of a word that does not occur, the highest there is."""
        return self._idf()

    def idf(self, *words: str) -> float:
        """Weight by rarity of a word, or of several as if they were one; highest for a word that does not occur."""
        return self._idf(*words)

    def query(self, text: str) -> WordQuery:
        """A query's words, the weightiest first: every search adds weights in one order, so equal scores are equal."""
        order = words(text, self.language)
        counts = Counter(order)
        weight = {word: count * self.idf(word) for word, count in counts.items()}
        weightiest = sorted(counts, key=lambda word: (-weight[word], word))
        return WordQuery({word: counts[word] for word in weightiest}, self.unit, order)

    def likes(self, word: str) -> dict[str, Like]:
        """Words that may be meant by one that does not occur."""
        places = self._grams.candidates(word)
        others = self._words.take(pa.array(places)).to_pylist()
        found = similarities(word, others)
        near = np.flatnonzero(found)
        columns = self._columns.take(pa.array(places[near])).to_numpy()
        holding = self._starts[columns + 1] - self._starts[columns]
        likes = map(Like, found[near].tolist(), holding.tolist())
        return dict(zip([others[at] for at in near], likes, strict=True))

    def _find(self, word: str) -> Posting:
        """The word's entries; a binary search, as a dict of all words would be each worker's own."""
        first, last = self._first(len(word)), self._first(len(word) + 1)
        at = bisect_left(range(last), word, first, key=lambda place: self._words[place].as_py())
        if at == last or self._words[at].as_py() != word:
            return self._rows[:0], self._weights[:0]
        column = self._columns[at].as_py()
        span = slice(int(self._starts[column]), int(self._starts[column + 1]))
        return self._rows[span], self._weights[span]

    def _weigh(self, *words: str) -> float:
        return float(idf(min(sum(map(self.holding, words)), self.items), self.items))

    def _first_of_length(self, length: int) -> int:
        """Place of the first word of so many characters."""
        return bisect_left(range(len(self._words)), length, key=lambda place: len(self._words[place].as_py()))


def _map(path: Path, kind: type[np.generic]) -> npt.NDArray[Any]:
    array = map_npy(path, MADE_BY)
    if array.dtype != kind or array.ndim != 1:
        raise InputError(f"{path} holds {array.dtype} {array.shape}, not {kind.__name__}. Run `{MADE_BY}` again.")
    return array


def _map_vocabulary(path: Path) -> tuple[pa.Array, pa.Array]:
    """The words in the order of length, then of code points, and the column of the matrix that each has."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        return table["word"].combine_chunks(), table["column"].combine_chunks()
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}. Run `{MADE_BY}` again.") from None


def _texts(table: pa.Table, fields: Sequence[str]) -> Iterator[str]:
    """`item_texts` of some rows at a time: all as objects of Python would take gigabytes."""
    for start in range(0, table.num_rows, _ROWS):
        yield from item_texts(table.slice(start, _ROWS), fields)


def item_texts(table: pa.Table, fields: Sequence[str]) -> list[str]:
    """The text of each item: its `fields` one after the other; a field that the table lacks is left out."""
    columns = text_columns(table, [name for name in fields if name in table.column_names])
    return [" ".join(values) for values in zip(*columns, strict=True)] if columns else [""] * table.num_rows


def write_words(table: pa.Table, fields: Sequence[str], folder: Path, language: str | None = None) -> WordIndex:
    """Write the words of the items' `fields` into the new folder ``words/`` and open it.

    `language` is that of `smar.data.words.words`.
    """
    folder.mkdir()
    matrix = word_matrix(_texts(table, fields), language, on_disk(folder))
    for counted in folder.glob("counted-*"):
        counted.unlink()
    write_npy(folder / "starts.npy", matrix.starts.shape, [matrix.starts], np.int64)
    columns = matrix.columns
    vocabulary = sorted(sorted(columns), key=len)
    numbers = pa.array([columns[word] for word in vocabulary], pa.int32())
    written = pa.table({"word": pa.array(vocabulary, pa.string()), "column": numbers})
    with pa.ipc.new_file(str(folder / VOCABULARY_FILE), written.schema) as out:
        out.write_table(written)
    write_grams(vocabulary, folder)
    return WordIndex(folder, table.num_rows, fields, matrix.mean_length, language)
