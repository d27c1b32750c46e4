"""TREC files of other tools, read as trec_eval reads them: what a topic is called, which item a document is, lines.

topics        id query                            also MS MARCO's queries.tsv and Terrier's single lines
judgements    topic iteration document grade      the iteration is not used
runs          topic Q0 document rank score tag    only topic, document and score count

White space separates the columns. A file with tabs between all of them may have blanks inside, as a topic that is
the query's own text has. Plain or gzip; any line ends; empty lines count for nothing.
"""

import gzip
import io
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from smar.core.errors import InputError
from smar.data.text import normalise
from smar.evaluation.metrics import Integers
from smar.evaluation.trec import document_id

JUDGED = ("topic", "iteration", "document", "grade")
RUN = ("topic", "Q0", "document", "rank", "score", "tag")
GZIP = b"\x1f\x8b"
"""How a gzip file begins."""
_SHOWN = 80
"""Characters of a wrong line that a message shows."""


def read_bytes(path: Path, option: str) -> bytes:
    """The file's text in UTF-8, unpacked where it is gzip's; raises InputError naming the option."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(GZIP) else data
        data.decode()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{option} {path} cannot be read: {error}.") from None
    return data.removeprefix(b"\xef\xbb\xbf")


def read_lines(path: Path, names: Sequence[str], option: str) -> pa.Table:
    """The lines of a TREC file, every column a string.

    Args:
        path: the file.
        names: its columns.
        option: the option that names the file, for messages.

    Raises:
        InputError: the file cannot be read, is empty, or a line has more or fewer columns.
    """
    data, wrong = read_bytes(path, option), list[pa_csv.InvalidRow]()
    first = data.lstrip().partition(b"\n")[0]
    if not first:
        raise InputError(f"{option} {path} is empty; a line is {' '.join(names)}.")
    tabs = first.count(b"\t") == len(names) - 1
    data = data if tabs else _single_blanks(data)

    def refuse(row: pa_csv.InvalidRow) -> str:
        wrong.append(row)
        return "error"

    options = pa_csv.ReadOptions(column_names=list(names), use_threads=False)
    parse = pa_csv.ParseOptions(
        delimiter="\t" if tabs else " ", quote_char=False, double_quote=False, invalid_row_handler=refuse
    )
    strings = pa_csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    try:
        table = pa_csv.read_csv(io.BytesIO(data), options, parse, strings)
    except pa.ArrowInvalid as error:
        seen = f"line {wrong[0].text[:_SHOWN]!r} has {wrong[0].actual_columns} columns" if wrong else str(error)
        raise InputError(
            f"{option} {path}: {seen}; a line is {' '.join(names)}, {len(names)} columns between blanks or tabs."
        ) from None
    return pa.table([pc.ascii_trim_whitespace(column) for column in table.columns], table.column_names)


def _single_blanks(data: bytes) -> bytes:
    """The lines with one blank between columns and none around them; a regular expression takes far longer."""
    data = data.translate(bytes.maketrans(b"\t\v\f\r", b"    "))
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data.replace(b" \n", b"\n").replace(b"\n ", b"\n").strip(b" ")


def numbers(table: pa.Table, name: str, kind: type[int] | type[float], path: Path, option: str) -> np.ndarray:
    """A column as int64 or float64 [n]; raises InputError that shows the first line without a finite number."""
    try:
        values = np.asarray(table[name].cast(pa.int64() if kind is int else pa.float64()))
    except pa.ArrowInvalid:
        values = np.array([_number(text, kind) for text in table[name].to_pylist()])
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        line = " ".join(table.slice(wrong[0], 1).to_pylist()[0].values())
        whole = "whole " if kind is int else ""
        raise InputError(
            f"{option} {path}: line {line[:_SHOWN]!r} has no finite {whole}number as its {name} ({len(wrong):,} such)."
        )
    return values


def _number(text: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(text)
    except ValueError:
        return np.nan


def read_topics(path: Path) -> dict[str, str]:
    """Topic -> query in its normal form, from lines `id query`; raises InputError where the file is none."""
    lines = read_bytes(path, "--topics").decode().split("\n")
    topics: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        topic, *text = line.split(None, 1)
        query = normalise(text[0]) if text else ""
        if not query:
            raise InputError(f"--topics {path}: line {number} has no query: {line[:_SHOWN]!r}; a line is: id query.")
        if topics.setdefault(topic, query) != query:
            raise InputError(f"--topics {path}: topic {topic!r} has two queries, {topics[topic]!r} and {query!r}.")
    if not topics:
        raise InputError(f"--topics {path} is empty; a line is: id query.")
    return topics


def item_rows(documents: pa.ChunkedArray, item_ids: pa.ChunkedArray) -> Integers:
    """Item row of every document [n], -1 for none: written as `document_id` does, or as the catalogue has it."""
    known = item_ids.cast(pa.string())
    written = pa.array([document_id(item) for item in known.to_pylist()], pa.string())
    rows = pc.coalesce(pc.index_in(documents, value_set=written), pc.index_in(documents, value_set=known))
    return np.asarray(pc.fill_null(rows, -1), dtype=np.int64)


def query_numbers(ids: Sequence[str], topics: Mapping[str, str] | None, queries: Sequence[str], what: str) -> Integers:
    """Number of each topic's query, -1 where it is not asked.

    A file's topics are ids of `topics` or the queries' own texts: whichever more of them fit, ids where it is a tie.

    Args:
        ids: distinct topics of a file.
        topics: id -> query in its normal form; numbers from 0 where nothing else is given.
        queries: the report's, in its order.
        what: the option and its file, for messages.

    Raises:
        InputError: numbers from 0 were meant, and the file counts from 1.
    """
    number = {query: n for n, query in enumerate(queries)}
    named = {str(n): query for query, n in number.items()} if topics is None else topics
    by_id = [number.get(named.get(topic, ""), -1) for topic in ids]
    by_text = [number.get(normalise(topic), -1) for topic in ids]
    best = min(by_id, by_text, key=lambda found: found.count(-1))
    if topics is None and best is by_id and str(len(queries)) in ids and "0" not in ids:
        raise InputError(
            f"{what} counts its topics from 1 (1 to {len(queries)}), REPORT/topics.tsv from 0: each query would get "
            "another one's hits. Give --topics FILE with its lines `id query`."
        )
    return np.array(best, dtype=np.int64)
