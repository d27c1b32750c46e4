"""Queries as the vectors are searched with them, and what they find: arrays, scored once and exactly.

An item's row of 2k numbers is ``[S_m ; S_t]``; the ranking score is ``w * Q.S_m + (1-w) * Q.S_t``. Both products are
wanted for the answer anyway, so they are computed for each candidate and the ranking score is made of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import faiss
import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Corrections = Mapping[str, Sequence[str]]
"""What hybrid search read words as that no item holds, the likeliest first; a blank divides words that were one."""
_BLOCK = 65_536  # rows given to faiss at a time


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """One query: `embedding` Q [k], and `share` w of the multimodal score.

    `words` is what S_t is multiplied with: Q again, unless an item's own S_t is searched with.
    """

    embedding: Vectors
    words: Vectors
    share: np.float32


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Items found for one query, best first: `rows` int64 [n] and their exact scores, float32 [n] each."""

    rows: Rows
    score: Vectors
    text_score: Vectors
    multimodal_score: Vectors

    def __len__(self) -> int:
        return len(self.rows)

    def best(self, k: int) -> "Found":
        """The best `k`; equal scores by row, so that a repeated search repeats its answer."""
        return self.pick(_first(self.rows, self.score, k))

    def by_row(self) -> "Found":
        """The same in the order of rows."""
        return self.pick(np.argsort(self.rows))

    def pick(self, places: Rows | npt.NDArray[np.bool_] | slice) -> "Found":
        """Some of them."""
        return Found(self.rows[places], self.score[places], self.text_score[places], self.multimodal_score[places])

    def moved(self, first_row: int) -> "Found":
        """The same with row numbers that begin at `first_row`; `replace` would take twice as long."""
        return Found(self.rows + first_row, self.score, self.text_score, self.multimodal_score)

    @classmethod
    def joined(cls, parts: Sequence["Found"]) -> "Found":
        """All of `parts`, in no order."""
        return cls(
            np.concatenate([part.rows for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.text_score for part in parts]),
            np.concatenate([part.multimodal_score for part in parts]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Ranked(Found):
    """`Found` with what explains it, best first; `smar.search.protocol.Hit` says what each array means.

    `rank_text` int64 [n] with -1 for none, or
    None when it was not asked for; `words_score` float32 [n], or None where words take no part. `corrected` are
    those of a hybrid search.
    """

    rank_text: Rows | None
    words_score: Vectors | None = None
    corrected: Corrections = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        found: Found,
        rank_text: Rows | None = None,
        words_score: Vectors | None = None,
        corrected: Corrections | None = None,
    ) -> Self:
        """What was found, with what else is known of it."""
        scores = (found.score, found.text_score, found.multimodal_score)
        return cls(found.rows, *scores, rank_text, words_score, corrected or {})

    def scored(self, score: Vectors) -> "Ranked":
        """The same ranked by another score [n]."""
        return replace(self, score=score)

    def followed(self, other: "Ranked") -> "Ranked":
        """With others of the same search after them; their rank without pictures is not known."""
        names = ("rows", "score", "text_score", "multimodal_score")
        rows, *scores = (np.concatenate([getattr(self, name), getattr(other, name)]) for name in names)
        ranks = None if self.rank_text is None else np.append(self.rank_text, np.full(len(other), -1))
        parts = [part for part in (self.words_score, other.words_score) if part is not None]
        score, text_score, multimodal_score = scores
        words_score = np.concatenate(parts) if parts else None
        return Ranked(rows, score, text_score, multimodal_score, ranks, words_score, self.corrected)

    def pick(self, places: Rows | npt.NDArray[np.bool_] | slice) -> "Ranked":
        """Some of them."""
        ranks = None if self.rank_text is None else self.rank_text[places]
        words = None if self.words_score is None else self.words_score[places]
        scores = (self.score[places], self.text_score[places], self.multimodal_score[places])
        return Ranked(self.rows[places], *scores, ranks, words, self.corrected)


@dataclass(frozen=True, slots=True, eq=False)
class Near:
    """Items near one query in no certain order: `rows` int64 [n] and about their scores, float32 [n]."""

    rows: Rows
    score: Vectors

    def __len__(self) -> int:
        return len(self.rows)

    def pick(self, places: Rows | npt.NDArray[np.bool_]) -> "Near":
        """Some of them."""
        return Near(self.rows[places], self.score[places])

    @classmethod
    def of(cls, found: Found) -> "Near":
        """What was found, with its exact scores."""
        return cls(found.rows, found.score)


class Queries:
    """Some queries: `embedding` and `words` float32 [n, k], `share` w [n]; see `Query`.

    `wide` float32 [n, 2k] is ``[w*Q ; (1-w)*Q]``, whose product with an item's row is its score.
    """

    def __init__(self, embedding: Vectors, share: Vectors, words: Vectors | None = None) -> None:
        self.embedding = np.ascontiguousarray(embedding, np.float32)
        self.words = self.embedding if words is None else np.ascontiguousarray(words, np.float32)
        self.share = np.asarray(share, np.float32)
        self.wide: Vectors = np.empty((len(embedding), 2 * embedding.shape[1]), np.float32)
        weight = self.share[:, None]
        np.multiply(self.embedding, weight, out=self.wide[:, : embedding.shape[1]])
        np.multiply(self.words, 1 - weight, out=self.wide[:, embedding.shape[1] :])

    def __len__(self) -> int:
        return len(self.embedding)

    def __getitem__(self, at: int) -> Query:
        return Query(self.embedding[at], self.words[at], self.share[at])

    def part(self, places: slice) -> "Queries":
        """Some of them."""
        return Queries(self.embedding[places], self.share[places], self.words[places])


def exact_best(vectors: Vectors, query: Query, rows: Rows, k: int) -> Found:
    """The best `k` of `rows` of `vectors` [n, 2k] (contiguous) in exact order."""
    return scored(vectors, query, rows).best(k)


def scored(vectors: Vectors, query: Query, rows: Rows) -> Found:
    """Some `rows` of `vectors` [n, 2k] (contiguous) with their exact scores, in the order given."""
    rows = np.ascontiguousarray(rows, np.int64)
    first = 2 * rows  # of the two rows of k numbers that an item is
    multimodal, text = products(vectors, query.embedding, first), products(vectors, query.words, first + 1)
    return Found(rows, query.share * multimodal + (1 - query.share) * text, text, multimodal)


def _first(rows: Rows, score: Vectors, k: int) -> Rows:
    """Places of the `k` largest scores, best first, equal ones by row."""
    if k >= len(rows):
        return np.lexsort((rows, -score))
    some = np.flatnonzero(score >= np.partition(score, -k)[-k])
    return some[np.lexsort((rows[some], -score[some]))[:k]]


def products(vectors: Vectors, query: Vectors, rows: Rows) -> Vectors:
    """Inner products of `query` [d] with some rows of `vectors`, seen as rows of d numbers.

    They are read where they lie; gathered first, it takes several times as long.
    """
    scores: Vectors = np.empty(len(rows), np.float32)
    pointers = [faiss.swig_ptr(array) for array in (scores, query, vectors, rows)]
    faiss.fvec_inner_products_by_idx(*pointers, len(query), 1, len(rows))
    return scores


def in_blocks(vectors: Vectors, rows: int = _BLOCK) -> Iterator[Vectors]:
    """The rows [n, d] in blocks of contiguous memory."""
    for start in range(0, len(vectors), rows):
        yield np.ascontiguousarray(vectors[start : start + rows])
