"""Rankings of other systems, from TREC run files: rows of the report beside the run's own.

As in trec_eval a query's hits are sorted by score, which is held in single precision; of equal scores the document
whose id is later in the alphabet comes first, and the rank column counts for nothing. A hit of an item that the
catalogue lacks keeps its place as a wrong one; a query without hits has found nothing.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.core.errors import InputError
from smar.evaluation.findings import LABELS
from smar.evaluation.metrics import Floats, Integers, Mask, Relevance, entries_at
from smar.evaluation.scores import Rankings, Task
from smar.evaluation.trec_input import RUN, item_rows, numbers, query_numbers, read_lines

OPTION = "--trec-run"


@dataclass(frozen=True)
class ForeignRun:
    """A system's ranking, and what there is to say of its file."""

    name: str
    ranked: Rankings
    note: str


@dataclass(frozen=True)
class _Hits:
    """Hits of asked queries in trec_eval's order: query, item row (-1: unknown) and number of the line, each [m]."""

    query: Integers
    item: Integers
    line: Integers


def check_names(names: Sequence[str], taken: Sequence[str]) -> None:
    """Raise InputError where a foreign system's name cannot be a file's, is a row's of our own, or stands twice."""
    for name in names:
        if not re.fullmatch(r"[\w.+=-]*\w[\w.+=-]*", name):
            raise InputError(f"{OPTION} {name!r} cannot name a system: letters, digits and . _ + = - only.")
        if name in LABELS or name in taken or names.count(name) > 1:
            raise InputError(f"{OPTION} {name}: the report has another row of that name; call it something else.")


def read_run(
    name: str,
    path: Path,
    queries: Sequence[str],
    topics: Mapping[str, str] | None,
    item_ids: pa.ChunkedArray,
    task: Task,
) -> ForeignRun:
    """Read one run file.

    Args:
        name: of the system in the report.
        path: the file.
        queries: the report's, in its order.
        topics: id -> query in its normal form; None: the queries' numbers from 0.
        item_ids: of the catalogue, by row.
        task: what every model is asked.

    Raises:
        InputError: the file cannot be read, a line is malformed, a score is no finite number, or none of its topics
            or none of its documents is known.
    """
    lines = read_lines(path, RUN, OPTION)
    score = numbers(lines, "score", float, path, OPTION)
    ids = lines["topic"].combine_chunks().dictionary_encode()
    query = query_numbers(ids.dictionary.to_pylist(), topics, queries, f"{OPTION} {path}")
    topic = ids.indices.to_numpy()
    asked = _one_topic_a_query(query, topic)
    if not asked.any():
        raise InputError(
            f"{OPTION} {path}: no topic is a query of this report; seen {ids.dictionary[0].as_py()!r}, asked "
            f"{queries[0]!r}. Topics are numbers of REPORT/topics.tsv, ids of --topics FILE, or the queries themselves."
        )
    item = item_rows(lines["document"], item_ids)
    if not (item >= 0).any():
        raise InputError(f"{OPTION} {path}: no document is an item of the catalogue; seen {lines['document'][0]}.")
    hits, twice = _sorted(query[topic], item, lines["document"], score, asked)
    note = [f"{len(hits.query):,} hits of {path.name}"]
    missing = len(queries) - len(np.unique(hits.query))
    lost = np.flatnonzero(hits.item < 0)
    example = f" ({lines['document'][hits.line[lost[0]]]}, ...)" if len(lost) else ""
    against = _contradictions(query[topic][asked], lines["rank"].filter(pa.array(asked)), score[asked])
    for count, text in (
        (missing, "queries have none and count as nothing found"),
        (len(lost), f"hits of unknown items{example} keep their places as wrong ones"),
        (twice, "repeated hits are left out"),
        (int((~asked).sum()), "hits of other topics are left out"),
        (against, "queries have ranks in another order than the scores, which count"),
    ):
        note += [f"{count:,} {text}"] if count else []
    return ForeignRun(name, _ranked(hits, len(queries), len(item_ids), task), "; ".join(note))


def _one_topic_a_query(query: Integers, topic: Integers) -> Mask:
    """Hits whose topic is asked [m]; of several topics with one query the first one's. query: of each topic."""
    seen = dict[int, int]()
    first = np.array([number >= 0 and seen.setdefault(int(number), n) == n for n, number in enumerate(query)], bool)
    return np.asarray(first[topic])


def _sorted(
    query: Integers, item: Integers, document: pa.ChunkedArray, score: Floats, asked: Mask
) -> tuple[_Hits, int]:
    """The asked hits in trec_eval's order without repeated ones, and how many were repeated."""
    codes = document.combine_chunks().dictionary_encode()
    alphabet = np.empty(len(codes.dictionary), np.int64)
    alphabet[np.asarray(pc.array_sort_indices(codes.dictionary))] = np.arange(len(alphabet))
    code = np.asarray(codes.indices, dtype=np.int64)
    with np.errstate(over="ignore"):
        single = score.astype(np.float32)
    order = np.lexsort((-alphabet[code], -single, query))
    order = order[asked[order]]
    same = np.where(item >= 0, item, item.max() + 1 + code)[order]
    first = np.unique(query[order] * (int(same.max()) + 1) + same, return_index=True)[1]
    kept = order[np.sort(first)]
    return _Hits(query[kept], item[kept], kept), len(order) - len(kept)


def _contradictions(query: Integers, ranks: pa.ChunkedArray, score: Floats) -> int:
    """Queries where a hit of a later rank has a higher score; none where ranks are no numbers."""
    try:
        rank = np.asarray(ranks.cast(pa.float64()))
    except pa.ArrowInvalid:
        return 0
    order = np.lexsort((rank, query))
    query, score, rank = query[order], score[order], rank[order]
    wrong = (query[1:] == query[:-1]) & (score[1:] > score[:-1]) & (rank[1:] > rank[:-1])
    return len(np.unique(query[1:][wrong]))


def _ranked(hits: _Hits, queries: int, items: int, task: Task) -> Rankings:
    """The ranking down to the task's depth; places by the whole list, an item that it lacks comes last."""
    counts = np.bincount(hits.query, minlength=queries)
    place = np.arange(len(hits.query)) - np.repeat(np.cumsum(counts) - counts, counts)
    full = np.full((queries, max(int(counts.max()), 1)), -1, dtype=np.int64)
    full[hits.query, place] = hits.item
    places = _places(full, task.relevance, items)[task.pairs] if len(task.pairs) else task.pairs
    return Rankings(full[:, : task.depth], places)


def _places(full: Integers, relevance: Relevance, items: int) -> Integers:
    """Place from 1 of every relevant item once the query's other relevant items are taken out; items + 1: not found."""
    at = entries_at(full, relevance)
    wrong = np.cumsum(at < 0, axis=1)
    query, column = np.nonzero(at >= 0)
    found = np.full(len(relevance.items), items + 1, dtype=np.int64)
    found[at[query, column]] = 1 + wrong[query, column]
    return found
