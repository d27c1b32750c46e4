"""Judgements of a file: a table of the user's, or TREC's lines."""

import gzip
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.core.errors import InputError
from smar.data.database import literal
from smar.data.text import normalise
from smar.evaluation.trec_input import GZIP, JUDGED, item_rows, numbers, read_lines, read_topics

TOPICS = "topics.tsv"
"""Read beside TREC judgements where no other topics are given: so lie a report's own."""
_TABLES = (".parquet", ".json", ".jsonl", ".ndjson", ".csv", ".tsv")


@dataclass(frozen=True)
class Qrels:
    """Judgements as `read_judgements` takes them; `topics` of TREC judgements: id -> query (None: the file is a table);
    `unknown` of its judgements are of topics without a query, and left out.
    """

    table: pa.Table
    topics: Mapping[str, str] | None = None
    unknown: int = 0


def read_qrels(path: str, item_ids: pa.ChunkedArray, topics: Mapping[str, str] | None = None) -> Qrels:
    """Judgements from a Parquet, CSV, TSV or JSON lines file, or TREC's; queries normalised as the model sees them.

    Args:
        path: the file. TREC judgements are known by their first line or by a name that is no table's.
        item_ids: of the catalogue.
        topics: id -> query, for TREC judgements; by default from `TOPICS` beside the file.

    Raises:
        InputError: the file cannot be read, lacks query, item_id or relevance, or nothing tells a topic's query.
    """
    if is_trec(path):
        return _read_trec(Path(path), item_ids, topics)
    try:
        table = duckdb.sql(f"SELECT * FROM {literal(path)}").to_arrow_table()
    except duckdb.Error as error:
        raise InputError(f"--qrels {path} cannot be read: {error}") from None
    missing = {"query", "item_id", "relevance"} - set(table.column_names)
    if missing:
        raise InputError(f"--qrels {path} lacks {', '.join(sorted(missing))}; it has {', '.join(table.column_names)}.")
    text = pc.dictionary_encode(table["query"].cast(pa.string())).combine_chunks()
    normal = pa.array([None if query is None else normalise(query) for query in text.dictionary.to_pylist()])
    return Qrels(table.set_column(table.column_names.index("query"), "query", normal.take(text.indices)))


def is_trec(path: str) -> bool:
    """Whether the file holds TREC's lines: its name is no table's, or its first line has TREC's four columns."""
    names = [suffix.lower() for suffix in Path(path).suffixes]
    kind = next((name for name in reversed(names) if name not in (".gz", ".zst")), "")
    if kind not in _TABLES:
        return True
    if kind not in (".csv", ".tsv") or not Path(path).is_file():
        return False
    try:
        with Path(path).open("rb") as file:
            packed = file.read(len(GZIP)) == GZIP
        with gzip.open(path) if packed else Path(path).open("rb") as file:
            line = next((line.strip() for line in file if line.strip()), b"")
    except (OSError, EOFError, zlib.error):
        return False  # DuckDB says what is wrong
    columns = line.split(b"\t") if line.count(b"\t") == len(JUDGED) - 1 else line.split()
    return len(columns) == len(JUDGED) and columns[-1].removeprefix(b"-").isdigit()


def question_files(qrels: Path) -> list[Path]:
    """The files that say what is asked where `qrels` says what is relevant: topics beside TREC judgements, too."""
    topics = qrels.with_name(TOPICS)
    return [qrels, topics] if topics.is_file() and is_trec(str(qrels)) else [qrels]


def _read_trec(path: Path, item_ids: pa.ChunkedArray, topics: Mapping[str, str] | None) -> Qrels:
    lines = read_lines(path, JUDGED, "--qrels")
    grades = numbers(lines, "grade", int, path, "--qrels")
    if topics is None:
        if not path.with_name(TOPICS).is_file():
            raise InputError(
                f"--qrels {path} holds TREC's judgements, which name topics by number: give --topics FILE with "
                f"lines `id query`, or lay it beside them as {TOPICS}."
            )
        topics = read_topics(path.with_name(TOPICS))
    ids = lines["topic"].combine_chunks().dictionary_encode()
    texts = [topics.get(topic) for topic in ids.dictionary.to_pylist()]
    if not any(texts):
        seen, known = ids.dictionary[0].as_py(), next(iter(topics))
        raise InputError(f"no topic of --qrels {path} ({seen!r}, ...) is among the topics ({known!r}, ...).")
    query = pa.array(texts, pa.string()).take(ids.indices)
    rows = pa.array(item_rows(lines["document"], item_ids))
    ours = item_ids.cast(pa.string()).take(pc.if_else(pc.less(rows, 0), None, rows))
    items = pc.coalesce(ours, lines["document"])
    table = pa.table({"query": query, "item_id": items, "relevance": np.asarray(grades)})
    return Qrels(table.filter(query.is_valid()), topics, query.null_count)
