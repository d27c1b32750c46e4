"""CSV, TSV and JSON -> Parquet in the work folder, with every line that is no row named.

Every cell becomes text, as it was written; `smar.data.types` decides afterwards, from all values, what a column holds.
Only lists and nested values of JSON keep their own types.
"""

import sys
from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import duckdb

from smar.core.errors import InputError
from smar.data.database import Connection, copy, literal, quote
from smar.data.dialect import Dialect, find_dialect
from smar.data.encodings import as_utf8, check_utf8, chunks
from smar.data.jsonlines import stage_json
from smar.data.staged import Staged

_UNNAMED = "__unnamed_"


def stage(
    con: Connection,
    file: Path,
    name: str,
    staged: Path,
    encoding: str | None,
    kind: str,
    header: Sequence[str] = (),
) -> Staged:
    """Copy a text file to Parquet, all scalar cells as text.

    Args:
        con: the database.
        file: the user's file.
        name: csv, tsv, json lines or json.
        staged: the Parquet file to write.
        encoding: ``data.encoding``.
        kind: the table, for messages.
        header: names of the columns of a CSV or TSV file that lacks the line with them.

    Raises:
        InputError: the file is empty or cannot be read in its format or encoding.
    """
    utf8 = staged.with_suffix(".utf8")
    con.execute("SET preserve_insertion_order = true")
    try:
        if file.stat().st_size == 0:
            raise InputError(f"--{kind} {file}: the file is empty.")
        source = as_utf8(file, encoding, utf8)
        if name.startswith("json"):
            return stage_json(con, source, name, staged, encoding, file)
        return _stage_csv(con, source, find_dialect(source, name, header), staged, encoding, file)
    except (duckdb.OutOfMemoryException, InputError):
        raise  # `smar.data.database.connect` says what to do about memory
    except (duckdb.Error, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"--{kind} {file}: cannot be read as {name} ({reason}).") from None
    finally:
        con.execute("SET preserve_insertion_order = false")
        for left in (utf8, staged.with_suffix(".lines")):
            left.unlink(missing_ok=True)


def _stage_csv(
    con: Connection, source: Path, dialect: Dialect, staged: Path, encoding: str | None, file: Path
) -> Staged:
    if any("\ufffd" in column for column in dialect.names):
        check_utf8(source, encoding, file)
    named = [column for column in dialect.names if column]
    found = Staged(written=dict.fromkeys(named, "cell"))
    select = f"SELECT {', '.join(map(quote, named))} FROM"
    try:
        copy(con, f"{select} {_reader(source, dialect)}", staged, "lz4")
    except duckdb.InvalidInputException:  # some lines end with a line feed alone, some do not
        plain = staged.with_suffix(".lines")
        _one_line_end(source, plain)
        source = plain
        copy(con, f"{select} {_reader(source, dialect)}", staged, "lz4")
    _bad_lines(con, source, encoding, file, found)
    if len(named) < len(dialect.names):
        found.notes += _unnamed(con, source, dialect, file)
    return found


def _reader(source: Path, dialect: Dialect) -> str:
    """SQL for the rows, all columns as text; a column without a name gets one."""
    columns = ", ".join(f"{literal(column or f'{_UNNAMED}{at}')}: 'VARCHAR'" for at, column in enumerate(dialect.names))
    return (
        f"read_csv({literal(source)}, columns = {{{columns}}}, header = false, skip = {dialect.skip}, "
        f"delim = {literal(dialect.delimiter)}, quote = '\"', escape = '\"', comment = '', auto_detect = false, "
        "store_rejects = true)"
    )


def _unnamed(con: Connection, source: Path, dialect: Dialect, file: Path) -> list[str]:
    places = [at for at, column in enumerate(dialect.names) if not column]
    counts = ", ".join(f"count({_UNNAMED}{at})" for at in places)
    filled = con.execute(f"SELECT {counts} FROM {_reader(source, dialect)}").fetchall()[0]
    con.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    return [
        f"{file.name}: column {at + 1} has no name in the header; its {count:,} values are left out"
        for at, count in zip(places, filled, strict=True)
        if count
    ]


def _one_line_end(source: Path, target: Path) -> None:
    with target.open("wb") as out:
        held = b""
        for chunk in chain(chunks(source), [b""]):
            block = held + chunk
            held = block[-1:] if chunk and block.endswith(b"\r") else b""
            out.write(block[: len(block) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n"))


def _bad_lines(con: Connection, source: Path, encoding: str | None, file: Path, found: Staged) -> None:
    """Name the lines that are no rows, and say how many others a quote without an end took with it."""
    rows = con.execute(
        "SELECT min(line_byte_position) AS place, min(csv_line), min(left(error_message, 200)), "
        "bool_or(error_type = 'INVALID ENCODING') FROM reject_errors GROUP BY line ORDER BY place"
    ).fetchall()
    con.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    if any(bad for *_, bad in rows):
        check_utf8(source, encoding, file)
    lines = _line_numbers(source, [place + len(text) - len(text.lstrip("\r\n")) for place, text, _, _ in rows])
    found.bad_lines = [
        (text.strip("\r\n")[:100], f"{file.name} line {line} is no row: {message}")
        for line, (_, text, message, _) in zip(lines, rows, strict=True)
    ]
    for line, (_, text, message, _) in zip(lines, rows, strict=True):
        if "unterminated quote" in message and "\n" in text.strip("\r\n"):
            (last,) = _line_numbers(source, [sys.maxsize])
            found.notes.append(
                f"{file.name}: a quote that opens in line {line} is never closed, so the lines from there to the end, "
                f"{last - line:,} of them, are no rows. Close it (two quotes stand for one in a quoted cell)"
            )


def _line_numbers(source: Path, places: list[int]) -> list[int]:
    """Numbers of the lines, from 1, that hold the bytes at these rising places; a quoted cell may span several."""
    found: list[int] = []
    start, lines = 0, 1
    for chunk in chunks(source) if places else ():
        at = 0
        for place in places[len(found) : bisect_left(places, start + len(chunk) + 1)]:
            end = max(at, place - 1 - start)
            lines += chunk.count(b"\n", at, end)
            at = end
            found.append(lines)
        lines += chunk.count(b"\n", at)
        start += len(chunk)
    return found + [lines] * (len(places) - len(found))
