"""CSV, TSV and JSON -> Parquet in the work folder, with every line that is no row named.

DuckDB's CSV sniffer is not used: it gives up on a file with one ragged line, and may take a different dialect than
the file's first line shows. The delimiter is the most frequent one of the header, all columns are read as text, and
types are inferred afterwards from all values.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import duckdb

from smar.data.database import Connection, copy, literal, quote
from smar.errors import InputError

BadLine = tuple[str, str]
"""Start of a line that is no row, and the reason with its place."""
DELIMITERS = ",;\t|"
SAMPLE = 1_000_000
"""Rows of a JSON log that are looked at for column names; of other tables all rows are."""
_TYPES = {
    "BIGINT": "TRY_CAST({0} AS BIGINT) IS NOT NULL AND NOT regexp_matches({0}, '^[+-]?0[0-9]')",
    "DOUBLE": "TRY_CAST({0} AS DOUBLE) IS NOT NULL AND NOT regexp_matches({0}, '^[+-]?0[0-9]')",
    "BOOLEAN": "lower({0}) IN ('true', 'false')",
    "DATE": "TRY_CAST({0} AS DATE) IS NOT NULL AND length({0}) = 10",
    "TIMESTAMP": "TRY_CAST({0} AS TIMESTAMP) IS NOT NULL",
}


def stage(con: Connection, file: Path, name: str, staged: Path, text: Sequence[str] | None, kind: str) -> list[BadLine]:
    """Copy a text file to Parquet and return its lines that are no rows.

    Args:
        con: the database.
        file: the user's file.
        name: csv, tsv, json lines or json.
        staged: the Parquet file to write.
        text: columns of a JSON file to read as text; None reads all as text.
        kind: the table, for messages.

    Raises:
        InputError: the file is empty or cannot be read in its format.
    """
    try:
        if file.stat().st_size == 0:
            raise InputError(f"--{kind} {file}: the file is empty.")
        reader = _json(con, file, name, text) if name.startswith("json") else _csv(con, file, name)
        con.execute("SET preserve_insertion_order = true")
        copy(con, f"SELECT * FROM {reader}", staged)
        con.execute("SET preserve_insertion_order = false")
        return [] if name.startswith("json") else _bad_lines(con, file)
    except duckdb.OutOfMemoryException:
        raise  # `smar.data.database.connect` says what to do
    except (duckdb.Error, OSError, UnicodeDecodeError) as error:
        raise InputError(f"--{kind} {file}: cannot be read as {name} ({error}).") from None


def _csv(con: Connection, file: Path, name: str) -> str:
    first = con.execute(
        f"SELECT line FROM read_csv({literal(file)}, columns = {{line: 'VARCHAR'}}, header = false, "
        "auto_detect = false, strict_mode = false, delim = '\x01', quote = '', escape = '') LIMIT 1"
    ).fetchall()
    header = str(first[0][0]).lstrip("\ufeff")
    delimiter = "\t" if name == "tsv" else max(DELIMITERS, key=header.count)
    names = next(csv.reader([header], delimiter=delimiter))
    if len(set(names)) < len(names):
        raise InputError(f"{file}: two columns have the same name. Columns seen: {', '.join(names)}.")
    columns = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in names)
    return (
        f"read_csv({literal(file)}, columns = {{{columns}}}, header = true, delim = {literal(delimiter)}, "
        "quote = '\"', escape = '\"', comment = '', auto_detect = false, store_rejects = true)"
    )


def _bad_lines(con: Connection, file: Path) -> list[BadLine]:
    rows = con.execute(
        "SELECT line, left(min(csv_line), 100), left(min(error_message), 200) FROM reject_errors "
        "GROUP BY line ORDER BY line"
    ).fetchall()
    con.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    return [(text, f"{file.name} line {line} is no row: {message}") for line, text, message in rows]


def _json(con: Connection, file: Path, name: str, text: Sequence[str] | None) -> str:
    lines = name == "json lines"
    options = "format = 'newline_delimited', ignore_errors = true" if lines else "format = 'auto'"
    sample = SAMPLE if text is None else -1
    reader = f"read_json({literal(file)}, {options}, sample_size = {sample})"
    described = con.execute(f"DESCRIBE SELECT * FROM {reader}").fetchall()
    types = {row[0]: "VARCHAR" if text is None or row[0] in text else row[1] for row in described}
    columns = ", ".join(f"{quote(column)}: {literal(type_)}" for column, type_ in types.items())
    return f"read_json({literal(file)}, {options}, columns = {{{columns}}})"


def infer_types(con: Connection, scan: str, columns: Sequence[str]) -> dict[str, str]:
    """Return the narrowest type that every value of a text column has, for the columns that are more than text.

    Numbers with leading zeros stay text: they are codes.
    """
    if not columns:
        return {}
    tests = [
        f"bool_and({test.format(quote(column))}) FILTER ({quote(column)} IS NOT NULL)"
        for column in columns
        for test in _TYPES.values()
    ]
    fits = con.execute(f"SELECT {', '.join(tests)} FROM {scan}").fetchall()[0]
    types: dict[str, str] = {}
    for place, column in enumerate(columns):
        for type_, fit in zip(_TYPES, fits[place * len(_TYPES) :], strict=False):
            if fit:
                types[column] = type_
                break
    return types
