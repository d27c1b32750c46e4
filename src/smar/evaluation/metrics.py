"""Retrieval metrics as pure functions of a ranking and the relevant items (docs/paper.md, "metrics").

Per query: recall = hits in the top k / relevant items, precision = hits / k, nDCG with gains 2^grade - 1
and the ideal cut at k, reciprocal rank of the first relevant item. A model's figure is the mean over
queries; F1 is the harmonic mean of the *mean* precision and the *mean* recall, which is how the paper's
printed F1 comes about. Queries without a relevant item are not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from smar.core.errors import InputError

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Relevance:
    """Relevant items per query in compressed rows: query i has entries offsets[i] to offsets[i + 1].

    offsets: [n_queries + 1]; items: item rows [m], ascending within a query; grades: [m], each at least 1.
    """

    offsets: Integers
    items: Integers
    grades: Integers

    @classmethod
    def from_pairs(cls, query: npt.ArrayLike, item: npt.ArrayLike, grade: npt.ArrayLike, queries: int) -> Self:
        """Build from judgements in any order; a repeated pair keeps its highest grade, grades below 1 go.

        Args:
            query: query numbers, 0 to `queries` - 1.
            item: item rows, at least 0.
            grade: relevance grades.
            queries: number of queries, those without judgements included.
        """
        q, i, g = (np.asarray(x, dtype=np.int64) for x in (query, item, grade))
        order = np.lexsort((-g, i, q))
        q, i, g = q[order], i[order], g[order]
        first = np.ones(len(q), dtype=bool)
        first[1:] = (q[1:] != q[:-1]) | (i[1:] != i[:-1])
        keep = first & (g >= 1)
        counts = np.bincount(q[keep], minlength=queries)
        return cls(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), i[keep], g[keep])

    @property
    def counts(self) -> Integers:
        """Number of relevant items per query, [n_queries]."""
        return np.diff(self.offsets)

    @property
    def query(self) -> Integers:
        """Query number of every entry, [m]."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts)

    def restrict(self, entries: Mask) -> "Relevance":
        """Only the entries where the mask [m] is true; every query keeps its number."""
        counts = np.bincount(self.query[entries], minlength=len(self.offsets) - 1)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Relevance(offsets, self.items[entries], self.grades[entries])


@dataclass(frozen=True)
class Judgements:
    """Queries with their relevant items; `unknown` judgements name an item that the catalogue lacks.

    `hidden` [m], beside the entries of `relevance`: the item's text does not name what the query asks; None where
    the judgements do not tell.
    """

    queries: list[str]
    relevance: Relevance
    unknown: int
    hidden: Mask | None = None


def read_judgements(qrels: pa.Table, item_ids: pa.ChunkedArray | pa.Array | Sequence[str]) -> Judgements:
    """Turn a table query, item_id, relevance[, hidden] into numbers; queries in order of first appearance.

    Raises:
        InputError: a column is missing or holds a null, or no judgement names an item of the catalogue.
    """
    for name in ("query", "item_id", "relevance"):
        if name not in qrels.column_names:
            raise InputError(f"qrels have columns {qrels.column_names}; they need query, item_id, relevance.")
        if qrels[name].null_count:
            raise InputError(f"qrels column {name!r} holds {qrels[name].null_count:,} nulls; remove those rows.")
    known = pa.array(item_ids) if isinstance(item_ids, list | tuple) else item_ids
    rows = pc.index_in(qrels["item_id"].cast(pa.string()), value_set=pc.cast(known, pa.string()))
    found = np.asarray(pc.is_valid(rows))
    if not found.any():
        raise InputError("no judgement names an item of the catalogue; are these the qrels of another dataset?")
    text = qrels["query"].filter(pa.array(found)).cast(pa.string()).combine_chunks().dictionary_encode()
    grades = _grades(qrels["relevance"])[found]
    names, query, item = text.dictionary.to_pylist(), text.indices.to_numpy(), rows.drop_null().to_numpy()
    relevance = Relevance.from_pairs(query, item, grades, len(names))
    hidden = None
    if "hidden" in qrels.column_names:
        flag = _flags(qrels["hidden"])[found]
        keys = query[flag].astype(np.int64) * len(known) + item[flag]
        hidden = np.isin(relevance.query * len(known) + relevance.items, keys)
    return Judgements(names, relevance, int((~found).sum()), hidden)


def _grades(column: pa.ChunkedArray) -> Integers:
    """The column `relevance` as int64 [n]."""
    try:
        return np.asarray(column.cast(pa.int64()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"qrels column 'relevance' must hold whole numbers, 0 for not relevant: {error}.") from None


def _flags(column: pa.ChunkedArray) -> Mask:
    """The column `hidden` as bool [n]."""
    try:
        flags = column.cast(pa.bool_())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"qrels column 'hidden' must be true or false: {error}.") from None
    if flags.null_count:
        raise InputError(f"qrels column 'hidden' holds {flags.null_count:,} nulls; say true or false in every row.")
    return np.asarray(flags.to_numpy(zero_copy_only=False), dtype=bool)


@dataclass(frozen=True)
class QueryMetrics:
    """Metrics of the counted queries: `rows` says which they are; every array is [counted]."""

    rows: Integers
    recall: Floats
    precision: Floats
    ndcg: Floats
    rr: Floats


def entries_at(ranked: Integers, relevance: Relevance) -> Integers:
    """Entry of `relevance` that every ranked item is, -1 where it is not relevant: [n_queries, depth]."""
    stride = 1 + max(int(ranked.max(initial=0)), int(relevance.items.max(initial=0)))
    keys = relevance.query * stride + relevance.items  # ascending, so one binary search finds every cell
    wanted = np.arange(len(ranked))[:, None] * stride + ranked
    if not len(keys):
        return np.full_like(wanted, -1)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where((keys[at] == wanted) & (ranked >= 0), at, -1)


def grades_at(ranked: Integers, relevance: Relevance) -> Integers:
    """Grade of every ranked item, 0 where it is not relevant: [n_queries, depth]; -1 stands for no item."""
    at = entries_at(ranked, relevance)
    return np.where(at >= 0, np.append(relevance.grades, 0)[at], 0)


@dataclass(frozen=True)
class Hits:
    """The relevant items of a ranking, by query, then place: a few per query instead of `depth` cells.

    query, place (from 0), entry (of the `Relevance`): each [hits].
    """

    query: Integers
    place: Integers
    entry: Integers

    @classmethod
    def of(cls, ranked: Integers, relevance: Relevance) -> Self:
        """Find the relevant items in `ranked` [n_queries, depth]: no item twice for a query, -1 fills up."""
        if ranked.ndim != 2 or len(ranked) != len(relevance.offsets) - 1:
            raise ValueError(f"ranked has shape {ranked.shape} for {len(relevance.offsets) - 1} queries")
        at = entries_at(ranked, relevance)
        query, place = np.nonzero(at >= 0)
        return cls(query, place, at[query, place])

    def only(self, entries: Mask) -> "Hits":
        """The hits whose entry is in the mask [m]."""
        kept = entries[self.entry]
        return Hits(self.query[kept], self.place[kept], self.entry[kept])


def ideal_gain(relevance: Relevance, k: int) -> Floats:
    """Discounted gain of the best possible top k, [n_queries]."""
    discount = _discount(k)
    query = relevance.query
    order = np.lexsort((-relevance.grades, query))
    place = np.arange(len(order)) - relevance.offsets[query]
    inside = place < len(discount)
    gains = (2.0 ** relevance.grades[order][inside] - 1) * discount[place[inside]]
    totals = np.bincount(query[inside], weights=gains, minlength=len(relevance.offsets) - 1)
    return totals.astype(np.float64)


def _discount(k: int) -> Floats:
    return 1 / np.log2(np.arange(2, k + 2))


def per_query(ranked: Integers, relevance: Relevance, k: int) -> QueryMetrics:
    """Metrics of every query that has a relevant item.

    Args:
        ranked: item rows by falling score [n_queries, depth], no item twice for a query; -1 fills up.
            Recall, precision and nDCG look at the first k, the reciprocal rank at all of them.
        relevance: the relevant items of the same queries.
        k: cut-off, at least 1. Precision divides by k even where the ranking is shorter.
    """
    return score_hits(Hits.of(ranked, relevance), relevance.grades, relevance.counts, ideal_gain(relevance, k), k)


def score_hits(hits: Hits, grades: Integers, counts: Integers, ideal: Floats, k: int) -> QueryMetrics:
    """`per_query` from the hits alone: what a report needs again and again, slice by slice.

    Args:
        hits: relevant items found.
        grades: of every entry that `hits` names, [m].
        counts: relevant items of each query, [n_queries].
        ideal: `ideal_gain` of each query, [n_queries].
        k: cut-off.
    """
    rows = np.flatnonzero(counts)
    top = hits.place < k
    query, size = hits.query[top], len(counts)
    found = np.bincount(query, minlength=size)[rows]
    gains = (2.0 ** grades[hits.entry[top]] - 1) * _discount(k)[hits.place[top]]
    gain = np.bincount(query, weights=gains, minlength=size)[rows]
    rr = np.zeros(size)
    first = np.unique(hits.query, return_index=True)[1]  # hits are sorted by place
    rr[hits.query[first]] = 1 / (hits.place[first] + 1)
    return QueryMetrics(
        rows=rows, recall=found / counts[rows], precision=found / k, ndcg=gain / ideal[rows], rr=rr[rows]
    )


def f1(precision: Floats, recall: Floats) -> Floats:
    """Harmonic mean of *mean* precision and *mean* recall, elementwise; 0 where both are 0."""
    total = np.asarray(precision + recall)
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def metric_names(k: int) -> tuple[str, str, str, str, str]:
    """The names in every table and in metrics.json: recall, precision, F1, nDCG, mean reciprocal rank."""
    return f"R@{k}", f"P@{k}", f"F1@{k}", f"nDCG@{k}", "MRR"
