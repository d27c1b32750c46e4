"""The words of an index: BM25 weights of every word in every item, memory-mapped, and those of the update log.

A version's folder ``words/`` holds the matrix of `smar.data.bm25` word by word: the rows that hold the word
(ascending) and its weight in each. A search touches only rows that hold a word of the query.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.data.bm25 import K1, B, build, idf, words
from smar.data.dataset import plain_text
from smar.errors import InputError
from smar.index.vectors import Mask, Rows, Vectors
from smar.index.versions import MADE_BY

WORDS_FOLDER = "words"
VOCABULARY_FILE = "vocabulary.arrow"
ARRAYS: dict[str, type[np.generic]] = {"starts": np.int64, "rows": np.int32, "weights": np.float32}
DEFAULT_FIELDS = ("title", "category", "brand")

_MANY = 5_000  # entries of a word from which on it pays to ask whether the word can be left out
_SAMPLE = 4096
_BLOCK = 32_768
_MARGIN = 1.0001  # float32 sums of the same weights differ by less

Posting = tuple[npt.NDArray[np.int32], Vectors]
"""Rows that hold a word, ascending, and the word's BM25 weight in each."""


class Scratch:
    """Arrays of zeros, lent to one search each and used again: made anew, 4 MB cost more than the search."""

    def __init__(self) -> None:
        self._free: list[Vectors] = []

    @contextmanager
    def lent(self, items: int) -> Iterator[Vectors]:
        """Zeros float32 [items]; the borrower sets them back to zero."""
        try:
            scores = self._free.pop()
        except IndexError:
            scores = np.zeros(items, np.float32)
        yield scores
        self._free.append(scores)  # not after an error: it would not be zero


class Postings(Protocol):
    """Who knows where a word occurs."""

    @property
    def items(self) -> int:
        """Number of rows."""

    @property
    def scratch(self) -> Scratch:
        """For the sums of a search."""

    def posting(self, word: str) -> Posting:
        """Where `word` occurs; empty where it does not."""

    def query(self, text: str) -> "WordQuery":
        """A query's words, weighed as the version weighs them."""


@dataclass(frozen=True, slots=True)
class WordQuery:
    """A query's words with their counts; `bound` is what its BM25 scores stay below: the sum of the words' idf."""

    counts: Mapping[str, int]
    bound: float


class WordIndex:
    """The words of one version: `items` rows, texts of `fields`, `mean_length` words each."""

    def __init__(self, folder: Path, items: int, fields: Sequence[str], mean_length: float) -> None:
        """Map the files of ``words/``, which takes less than a millisecond.

        Raises:
            InputError: a file is missing or does not fit the others; the message names it.
        """
        self.items, self.fields, self.mean_length = items, tuple(fields), mean_length
        self.scratch = Scratch()
        self._words, self._columns = _map_vocabulary(folder / VOCABULARY_FILE)
        self._starts, self._rows, self._weights = (_map(folder / f"{name}.npy", kind) for name, kind in ARRAYS.items())
        entries = int(self._starts[-1]) if len(self._starts) == len(self._words) + 1 else -1
        if not len(self._rows) == len(self._weights) == entries:
            raise InputError(f"the files in {folder} do not fit each other. Run `{MADE_BY}` again.")
        self._span = lru_cache(maxsize=4096)(self._find)

    def posting(self, word: str) -> Posting:
        """Where `word` occurs; empty where it does not."""
        span = self._span(word)
        return self._rows[span], self._weights[span]

    def idf(self, word: str) -> float:
        """Weight of a word by its rarity; highest for a word that does not occur."""
        span = self._span(word)
        return float(idf(span.stop - span.start, self.items))

    def query(self, text: str) -> WordQuery:
        """A query's words, the weightiest first: every search adds weights in one order, so equal scores are equal."""
        counts = Counter(words(text))
        weight = {word: count * self.idf(word) for word, count in counts.items()}
        order = sorted(counts, key=lambda word: (-weight[word], word))
        return WordQuery({word: counts[word] for word in order}, sum(weight.values()))

    def _find(self, word: str) -> slice:
        """The word's entries; a binary search, as a dict of 500 k words costs a worker 50 MB."""
        at = bisect_left(range(len(self._words)), word, key=lambda place: self._words[place].as_py())
        if at == len(self._words) or self._words[at].as_py() != word:
            return slice(0, 0)
        column = self._columns[at].as_py()
        return slice(int(self._starts[column]), int(self._starts[column + 1]))


def _map(path: Path, kind: type[np.generic]) -> npt.NDArray[Any]:
    try:
        # a plain array: each slice of a memmap costs microseconds
        array: npt.NDArray[Any] = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} cannot be read: {error}. Run `{MADE_BY}` again.") from None
    if array.dtype != kind or array.ndim != 1:
        raise InputError(f"{path} holds {array.dtype} {array.shape}, not {kind.__name__}. Run `{MADE_BY}` again.")
    return array


def _map_vocabulary(path: Path) -> tuple[pa.Array, pa.Array]:
    """The words in the order of their code points, and the column of the matrix that each has."""
    try:
        with pa.memory_map(str(path)) as source:
            table = pa.ipc.open_file(source).read_all()
        return table["word"].combine_chunks(), table["column"].combine_chunks()
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}. Run `{MADE_BY}` again.") from None


def item_texts(table: pa.Table, fields: Sequence[str]) -> Iterator[str]:
    """The text of each item: its `fields` one after the other; a field that the table lacks is left out."""
    columns = [table[name].to_pylist() for name in fields if name in table.column_names]
    return (" ".join(map(plain_text, values)) for values in zip(*columns, strict=True))


def write_words(table: pa.Table, fields: Sequence[str], folder: Path) -> WordIndex:
    """Write the words of the items' `fields` into the new folder ``words/`` and open it."""
    texts = list(item_texts(table, fields)) or [""] * table.num_rows
    index, mean_length = build(texts)
    matrix: dict[str, Any] = {"indptr": [0], "indices": [], "data": []} if index is None else index.scores
    columns = {} if index is None else {word: at for word, at in index.vocab_dict.items() if word}
    folder.mkdir()
    for (name, kind), source in zip(ARRAYS.items(), ("indptr", "indices", "data"), strict=True):
        np.save(folder / f"{name}.npy", np.asarray(matrix[source], kind))
    vocabulary = sorted(columns)
    numbers = pa.array([columns[word] for word in vocabulary], pa.int32())
    written = pa.table({"word": pa.array(vocabulary, pa.string()), "column": numbers})
    with pa.ipc.new_file(str(folder / VOCABULARY_FILE), written.schema) as out:
        out.write_table(written)
    return WordIndex(folder, table.num_rows, fields, mean_length)


class GrowingWords:
    """The words of the update log's items, weighed by the idf and mean length of the version that they were added to.

    Entries lie in buffers that only grow, so a `view` taken earlier keeps seeing its own part of them.
    """

    def __init__(self, base: WordIndex) -> None:
        self._base = base
        self._numbers: dict[str, int] = {}
        self._words, self._rows = np.empty(0, np.int32), np.empty(0, np.int32)
        self._weights: Vectors = np.empty(0, np.float32)
        self._entries = self._items = 0

    def add(self, table: pa.Table) -> None:
        """The next items."""
        base = self._base
        for text in list(item_texts(table, base.fields)) or [""] * table.num_rows:
            found = words(text)
            relative = K1 * (1 - B + B * len(found) / base.mean_length) if base.mean_length else K1
            for word, count in Counter(found).items():
                self._append(word, base.idf(word) * count / (relative + count))
            self._items += 1

    def _append(self, word: str, weight: float) -> None:
        at = self._entries
        if at == len(self._words):
            size = max(8192, 2 * at)
            self._words, self._rows, self._weights = (
                np.concatenate([old, np.empty(size - at, old.dtype)])
                for old in (self._words, self._rows, self._weights)
            )
        self._words[at] = self._numbers.setdefault(word, len(self._numbers))
        self._rows[at], self._weights[at] = self._items, weight
        self._entries = at + 1

    def view(self) -> "ChangedWords":
        """What there is now."""
        entries = slice(self._entries)
        arrays = (self._words[entries], self._rows[entries], self._weights[entries])
        return ChangedWords(self._items, self._base, self._numbers, *arrays)


@dataclass(frozen=True, slots=True)
class ChangedWords:
    """Words of the first `items` items of a log: number, row and weight of every entry, scanned as a whole."""

    items: int
    base: WordIndex
    numbers: Mapping[str, int]
    words: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int32]
    weights: Vectors
    scratch: Scratch = field(default_factory=Scratch)

    def posting(self, word: str) -> Posting:
        """Where `word` occurs; empty where it does not."""
        at = np.flatnonzero(self.words == self.numbers.get(word, -1))
        return self.rows[at], self.weights[at]

    def query(self, text: str) -> WordQuery:
        """As the version weighs it."""
        return self.base.query(text)


def best_rows(postings: Postings, query: WordQuery, k: int, allowed: Mask | None) -> Rows:
    """The `k` rows of highest BM25 score among those `allowed` [items], equal scores by row.

    Fewer when fewer hold a word of the query. The weightiest words come first. Once `k` rows score more than all words
    that are left could give, no further row is taken in (MaxScore), which spares most of what frequent words cost.
    """
    entries = [(*postings.posting(word), count) for word, count in query.counts.items()]
    left = np.cumsum([count * float(weights.max(initial=0)) for _, weights, count in reversed(entries)])[::-1]
    with postings.scratch.lent(postings.items) as scores:
        sums = _Sums(scores, allowed)
        for (rows, weights, count), bound in zip(entries, left, strict=True):
            if len(rows) > _MANY and sums.found >= k:
                sums.closed = sums.closed or _lowest(sums.scores[sums.rows()], k) > bound * _MARGIN
            for start in range(0, len(rows), _BLOCK):
                sums.add(rows[start : start + _BLOCK], weights[start : start + _BLOCK], count)
        rows = sums.rows()
        found = _best(scores[rows], rows, k)
        scores[rows] = 0
    return found


class _Sums:
    """BM25 scores [items] as they add up, in blocks that stay in the processor's cache."""

    def __init__(self, scores: Vectors, allowed: Mask | None) -> None:
        self.scores, self.allowed = scores, allowed
        self.parts: list[npt.NDArray[np.int32]] = [np.empty(0, np.int32)]
        self.found = 0
        self.closed = False
        """Whether rows without a score so far are left out."""

    def add(self, rows: npt.NDArray[np.int32], weights: Vectors, count: int) -> None:
        """Entries of one word, `count` times in the query."""
        if self.allowed is not None:
            kept = np.flatnonzero(self.allowed[rows])
            rows, weights = rows[kept], weights[kept]
        before = self.scores[rows]
        if self.closed:
            kept = np.flatnonzero(before)
            rows, weights, before = rows[kept], weights[kept], before[kept]
        else:
            self.parts.append(rows[before == 0])
            self.found += len(self.parts[-1])
        self.scores[rows] = before + np.float32(count) * weights

    def rows(self) -> npt.NDArray[np.int32]:
        """All rows that have a score."""
        self.parts = [np.concatenate(self.parts)]
        return self.parts[0]


def _best(scores: Vectors, rows: npt.NDArray[np.int32], k: int) -> Rows:
    """The rows of the `k` highest scores, equal ones by row; ties by the thousand, as of one short word, stay cheap."""
    if len(rows) > k:
        lowest = _lowest(scores, k)
        above, equal = np.flatnonzero(scores > lowest), rows[scores == lowest]
        missing = k - len(above)
        last = np.sort(np.partition(equal, missing - 1)[:missing])
        first = rows[above][np.lexsort((rows[above], -scores[above]))]
        return np.concatenate([first, last]).astype(np.int64)
    return rows[np.lexsort((rows, -scores))].astype(np.int64)


def _lowest(scores: Vectors, k: int) -> np.float32:
    """The `k`-th highest score. Of many scores, those are left out first that a sample shows to be too low."""
    step = len(scores) // _SAMPLE
    if step > 1:
        sample = np.sort(scores[::step])
        likely = scores[scores >= sample[-min(len(sample), 2 * k // step + 10)]]
        scores = likely if len(likely) >= k else scores
    lowest: np.float32 = np.partition(scores, len(scores) - k)[len(scores) - k]
    return lowest


def word_scores(postings: Postings, query: WordQuery, rows: Rows) -> Vectors:
    """BM25 scores of some rows, float32 [n]; 0 where no word of the query occurs."""
    scores, rows = np.zeros(len(rows), np.float32), rows.astype(np.int32)
    for word, count in query.counts.items():
        holding, weights = postings.posting(word)
        if len(holding):
            at = np.minimum(np.searchsorted(holding, rows), len(holding) - 1)
            scores += np.where(holding[at] == rows, count * weights[at], np.float32(0))
    return scores
