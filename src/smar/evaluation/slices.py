"""Slices: for which queries and items does a model win?

A slice is a mask over the judgements (the entries of `Relevance`), so that one form serves all: a slice of
queries takes all entries of its queries, `cold_items` the entries of never clicked items, `new_pairs` the
entries whose pair was not clicked in training. A query is in the slice when one of its entries is. The
whole catalogue is ranked whatever the slice is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.core.errors import InputError, one_of
from smar.core.sections.evaluation import EvaluateSettings
from smar.data.dataset import Dataset, text_columns
from smar.data.words import words
from smar.evaluation.metrics import Integers, Mask, Relevance

ALL = "all"
GROUP_VALUES = 20
"""An item column called `group` with more values than this is not a grouping of the shop but some key."""


@dataclass(frozen=True)
class Slice:
    """A named mask over the entries of `Relevance`, bool [m]."""

    name: str
    entries: Mask


@dataclass(frozen=True)
class Slices:
    """The slices of a report, and (name, queries) of those with too few queries to be one."""

    kept: list[Slice]
    left_out: list[tuple[str, int]]


def build_slices(dataset: Dataset, queries: Sequence[str], relevance: Relevance, settings: EvaluateSettings) -> Slices:
    """All slices that the data allow, each name once; `all` comes first and is always kept.

    Args:
        dataset: items with the slice columns, training pairs, and the user's queries table.
        queries: query texts, in the order of `relevance`.
        relevance: relevant items, numbered as the dataset's rows.
        settings: needs_image (threshold) and slice_queries (fewest queries of a slice).
    """
    kept, left_out = [Slice(ALL, np.ones(len(relevance.items), dtype=bool))], []
    seen = {ALL}
    for candidate in _candidates(dataset, queries, relevance, settings):
        if candidate.name in seen:  # data.slice_columns may name `group`, which the queries table knows better
            continue
        seen.add(candidate.name)
        size = len(np.unique(relevance.query[candidate.entries]))
        if size >= settings.slice_queries:
            kept.append(candidate)
        else:
            left_out.append((candidate.name, size))
    return Slices(kept, left_out)


def _candidates(
    dataset: Dataset, queries: Sequence[str], relevance: Relevance, settings: EvaluateSettings
) -> Iterator[Slice]:
    table, items = dataset.queries(), dataset.items
    if table is not None:
        yield from _query_truth(table, queries, relevance, settings)
    if table is not None and "group" in table.column_names:
        rows = _rows(table, queries)
        yield from _by_value("group", table["group"].take(rows), relevance)
    elif "group" in items.column_names and _is_grouping(dataset):
        yield from _by_majority("group", items["group"], relevance)
    yield from _by_training(dataset, queries, relevance)
    yield from _by_words(dataset, queries, relevance)
    for column in dataset.slice_columns:
        if column not in items.column_names:
            raise one_of(column, items.column_names, "data.slice_columns")
        yield from _by_majority(column, items[column], relevance)


def _is_grouping(dataset: Dataset) -> bool:
    values = len(_codes(dataset.items["group"])[0])
    return values <= GROUP_VALUES


def _rows(table: pa.Table, queries: Sequence[str]) -> pa.Array:
    """Row of each query in the queries table, null where it is not there."""
    return pc.index_in(pa.array(queries, pa.string()), value_set=table["query"].cast(pa.string()).combine_chunks())


def _query_truth(
    table: pa.Table, queries: Sequence[str], relevance: Relevance, settings: EvaluateSettings
) -> Iterator[Slice]:
    """`needs_image` and `words_suffice`, where the queries table tells."""
    needs = needs_image(table, queries)
    if needs is not None:
        yield Slice("needs_image", (needs >= settings.needs_image)[relevance.query])
        yield Slice("words_suffice", (needs == 0)[relevance.query])


def needs_image(table: pa.Table | None, queries: Sequence[str]) -> np.ndarray | None:
    """Truth of each query, float64 [n_queries], NaN where unknown; None if the table does not tell."""
    if table is None or "needs_image" not in table.column_names:
        return None
    try:
        values = table["needs_image"].cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise InputError(f"queries column 'needs_image' must hold numbers from 0 to 1: {error}.") from None
    return np.asarray(values.take(_rows(table, queries)).to_numpy(zero_copy_only=False), dtype=np.float64)


def _by_training(dataset: Dataset, queries: Sequence[str], relevance: Relevance) -> Iterator[Slice]:
    """`unseen_queries`, `cold_items`, `new_pairs`."""
    train = dataset.pairs("train")
    texts = pa.array(queries, pa.string())
    seen = np.asarray(pc.is_in(texts, value_set=pc.unique(train["query"].cast(pa.string()))))
    yield Slice("unseen_queries", ~seen[relevance.query])
    clicked = np.asarray(dataset.items["clicked_in_train"].to_numpy(), dtype=bool)
    yield Slice("cold_items", ~clicked[relevance.items])
    number = pc.index_in(train["query"].cast(pa.string()), value_set=texts)
    ours = np.asarray(pc.is_valid(number))
    pairs = number.drop_null().to_numpy().astype(np.int64) * len(clicked)
    pairs = pairs + train["item_index"].to_numpy()[ours]
    yield Slice("new_pairs", ~np.isin(relevance.query * len(clicked) + relevance.items, pairs))


def _by_words(dataset: Dataset, queries: Sequence[str], relevance: Relevance) -> Iterator[Slice]:
    """By how many of a query's words the relevant item's title holds, by whether all are known, by their number.

    The title is the first text field.
    """
    typed = [set(words(query, dataset.language)) for query in queries]
    fields = dataset.fields(dataset.text_fields)
    held = np.full(len(relevance.items), np.nan)
    for entry, (query, item) in enumerate(zip(relevance.query.tolist(), relevance.items.tolist(), strict=True)):
        if own := typed[query]:
            held[entry] = len(own.intersection(words(fields[0][item], dataset.language))) / len(own)
    known = {word for texts in fields for text in set(texts) for word in words(text, dataset.language)}
    unknown = np.array([bool(own - known) for own in typed], np.bool_)
    count = np.array([len(own) for own in typed], np.int64)
    found = {
        "title_words=all": held == 1,
        "title_words=some": (held > 0) & (held < 1),
        "title_words=none": held == 0,
        "unknown_words": unknown[relevance.query],
        "query_words=1": (count == 1)[relevance.query],
        "query_words=2": (count == 2)[relevance.query],
        "query_words=3-4": ((count == 3) | (count == 4))[relevance.query],
        "query_words=5+": (count >= 5)[relevance.query],
    }
    yield from (Slice(name, entries) for name, entries in found.items() if entries.any())


def _codes(column: pa.ChunkedArray) -> tuple[list[str], Integers]:
    """Distinct values in order of the alphabet, and each row's number in them (-1: null)."""
    if pa.types.is_nested(column.type):  # lists: as the towers read them
        (texts,) = text_columns(pa.table({"": column}), [""])
        column = pa.chunked_array([[value or None for value in texts]], pa.string())
    text = pc.utf8_normalize(pc.cast(column, pa.string()), "NFC")  # one spelling, one slice
    values = sorted(pc.unique(text.drop_null()).to_pylist())
    codes = pc.fill_null(pc.index_in(text, value_set=pa.array(values, pa.string())), -1)
    return values, np.asarray(codes.to_numpy(), dtype=np.int64)


def _by_value(name: str, column: pa.ChunkedArray, relevance: Relevance) -> Iterator[Slice]:
    """A slice per value of a column that has one row per query."""
    values, codes = _codes(column)
    for number, value in enumerate(values):
        yield Slice(f"{name}={value}", (codes == number)[relevance.query])


def _by_majority(name: str, column: pa.ChunkedArray, relevance: Relevance) -> Iterator[Slice]:
    """A slice per value of an item column; a query has the value that most of its relevant items have."""
    values, codes = _codes(column)
    winner = majority(relevance.query, codes[relevance.items], len(relevance.offsets) - 1)
    for number, value in enumerate(values):
        mask = winner == number
        if mask.any():
            yield Slice(f"{name}={value}", mask[relevance.query])


def majority(query: Integers, code: Integers, queries: int) -> Integers:
    """Most frequent code of each query, [queries]; ties go to the smaller code, -1 where a query has none.

    Args:
        query: query number of every entry [m].
        code: code of every entry [m], -1 for none.
        queries: number of queries.
    """
    known = code >= 0
    stride = int(code.max(initial=0)) + 1
    keys, counts = np.unique(query[known] * stride + code[known], return_counts=True)
    order = np.lexsort((-keys, counts))  # best last: the last assignment below stays
    winner = np.full(queries, -1, dtype=np.int64)
    winner[keys[order] // stride] = keys[order] % stride
    return winner
