"""JSON lines and JSON -> Parquet: scalars as text, lists and nested values with their own types.

The database reads nearly all lines. It is strict and rounds numbers to doubles, so lines that it refuses or might
change are read with Python's json, which says what is wrong with them and keeps their numbers as they were written.
"""

import codecs
import json
import math
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smar.data.database import Connection, copy, literal, number, quote
from smar.data.dialect import check_names
from smar.data.encodings import check_utf8, chunks
from smar.data.staged import BadLine, Staged, Written

_SURE = r"""CASE WHEN json_valid(line)
    AND NOT regexp_matches(line, '[:\[,]\s*-?([0-9.]{17,}|[0-9.]+[eE]|0\.0000|(?i:nan|inf))')
    THEN CASE json_type(line) WHEN 'OBJECT' THEN len(json_keys(line)) = len(list_distinct(json_keys(line))) END END"""
"""SQL: the database reads the line as it is written, number by number."""
_NUMBERS = ("BIGINT", "UBIGINT", "HUGEINT", "DOUBLE")
_LONE = re.compile("[\ud800-\udfff]")
_GAP = re.compile(r"[\s,]*")
_FIRST = 1000
_BLOCK = 50_000
_MANY_KEYS = 200
_SHOWN = 100
_EXACT = ("number", "text")
_SCHEMA = pa.schema({"n": pa.int64(), "line": pa.string(), "exact": pa.string()})


def stage_json(con: Connection, source: Path, name: str, staged: Path, encoding: str | None, file: Path) -> Staged:
    """Write the objects of a JSON file, one a line or in a list, as rows.

    Args:
        con: the database.
        source: the file as UTF-8.
        name: json lines or json.
        staged: the Parquet file to write.
        encoding: ``data.encoding``.
        file: the user's file, for messages.
    """
    raw, mended = staged.with_suffix(".raw"), staged.with_suffix(".mended")
    found = Staged(_write_lines(source, name, raw, encoding, file))
    scan = (
        f"(SELECT file_row_number AS n, line FROM read_parquet({literal(raw)}, file_row_number = true) "
        "WHERE trim(line) <> '')"
    )
    con.execute(f"CREATE OR REPLACE TEMP TABLE unsure AS SELECT n, line FROM {scan} WHERE NOT coalesce({_SURE}, false)")
    ready = f"SELECT n, line, NULL AS exact FROM {scan}"
    if number(con, "SELECT count(*) FROM unsure"):
        _mend(con, mended, file, found)
        ready = f"{ready} ANTI JOIN unsure USING (n) UNION ALL FROM read_parquet({literal(mended)}) ORDER BY n"
    con.execute("SET preserve_insertion_order = true")
    shapes = _shapes(con, ready)
    check_names(file, list(shapes))
    _copy_cells(con, ready, shapes, staged)
    for path in (raw, mended):
        path.unlink(missing_ok=True)
    found.written = {
        key: _written(shape) for key, shape in shapes.items() if isinstance(shape, str) and shape != "NULL"
    }
    return found


def _written(shape: str) -> Written:
    if shape in _NUMBERS:
        return "number"
    kinds: dict[str, Written] = {"BOOLEAN": "flag", "VARCHAR": "string"}
    return kinds.get(shape, "text")


def _write_lines(source: Path, name: str, raw: Path, encoding: str | None, file: Path) -> list[BadLine]:
    """One row for each line, or for each value of a file that is not written in lines."""
    bad: list[BadLine] = []
    rows = 0
    with pq.ParquetWriter(raw, pa.schema({"line": pa.string()}), compression="zstd") as out:
        for block in _lines(source) if name == "json lines" else _values(source, encoding, file):
            try:
                column = pa.array(block, pa.binary()).cast(pa.string())
            except pa.ArrowInvalid:
                check_utf8(source, encoding, file)
                texts = [_utf8(line) for line in block]
                bad += [
                    (line.decode("utf-8", "replace")[:_SHOWN], f"{file.name} line {at} is no row: it is not UTF-8")
                    for at, (line, text) in enumerate(zip(block, texts, strict=True), rows + 1)
                    if text is None
                ]
                column = pa.array(texts, pa.string())
            out.write_table(pa.table({"line": column}))
            rows += len(block)
    return bad


def _utf8(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _lines(source: Path) -> Iterator[list[bytes]]:
    held = b""
    for at, chunk in enumerate(chunks(source)):
        *lines, held = (held + (chunk if at else chunk.removeprefix(codecs.BOM_UTF8))).split(b"\n")
        yield lines
    yield [held]


def _values(source: Path, encoding: str | None, file: Path) -> Iterator[list[bytes]]:
    """The values of a JSON list, or JSON values one after the other."""
    data = b"".join(chunks(source)).removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        check_utf8(source, encoding, file)
        text = data.decode("utf-8", "replace")
    if not text.lstrip().startswith("[") and _complete(text.lstrip().partition("\n")[0]):
        yield from _lines(source)
        return
    at = _GAP.match(text, 1 if text.startswith("[") else 0).end()  # type: ignore[union-attr]
    decoder, block = json.JSONDecoder(), []
    if text.lstrip().startswith("["):
        at = _GAP.match(text, text.index("[") + 1).end()  # type: ignore[union-attr]
    while at < len(text) and text[at] != "]":
        _, end = decoder.raw_decode(text, at)
        block.append(text[at:end].encode())
        at = _GAP.match(text, end).end()  # type: ignore[union-attr]
        if len(block) == _BLOCK:
            yield block
            block = []
    if at == len(text) and text.lstrip().startswith("["):
        raise ValueError("the list does not end")
    yield block


def _complete(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


class _Float(float):
    """A number with its literal."""

    literal: str


def _float(literal: str) -> _Float:
    value = _Float(literal)
    if not math.isfinite(value):
        raise ValueError(f"{literal} is beyond any number")
    value.literal = literal
    return value


def _constant(literal: str) -> None:
    if literal != "NaN":  # Python writes it where a value is missing
        raise ValueError(f"{literal} is no number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
        raise ValueError(f"the key {twice!r} occurs twice")
    return found


def _plain(literal: str) -> str:
    """The literal of a number with a point or an exponent, without the exponent."""
    if "e" not in literal.lower():
        return literal
    text = format(Decimal(literal), "f")
    return text if "." in text else text + ".0"


def _read_object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line, parse_float=_float, parse_constant=_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} (character {error.pos + 1} of {len(line)})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError('it is no object such as {"item_id": "a"}')
    return value


def _mend(con: Connection, mended: Path, file: Path, found: Staged) -> None:
    """Read the lines of the table ``unsure``: each becomes JSON that the database reads, or a bad line."""
    halves = 0
    cursor = con.execute("SELECT n, line FROM unsure ORDER BY n")
    with pq.ParquetWriter(mended, _SCHEMA, compression="zstd") as out:
        while block := cursor.fetchmany(_BLOCK):
            rows = []
            for n, line in block:
                try:
                    value = _read_object(line)
                except ValueError as error:
                    found.bad_lines.append((line[:_SHOWN], f"{file.name} line {n + 1} is no row: {error}"))
                    continue
                exact = {key: _plain(one.literal) for key, one in value.items() if isinstance(one, _Float)}
                text, lone = _LONE.subn("\ufffd", json.dumps(value, ensure_ascii=False))
                halves += lone
                rows.append({"n": n, "line": text, "exact": json.dumps(exact) if exact else None})
            out.write_table(pa.Table.from_pylist(rows, _SCHEMA))
    if halves:
        found.notes.append(f"{file.name}: {halves:,} lone surrogates (half a character) became \ufffd")


def _shapes(con: Connection, ready: str) -> dict[str, Any]:
    """Key -> type of its values in all rows, the keys in the order of the first rows."""
    first, whole = (
        json.loads(con.execute(f"SELECT json_group_structure(line::JSON) FROM ({rows})").fetchall()[0][0] or "{}")
        for rows in (f"FROM ({ready}) LIMIT {_FIRST}", ready)
    )
    if not isinstance(whole, dict):
        return {}
    return {key: whole[key] for key in (*first, *sorted(whole.keys() - first.keys()))}


def _copy_cells(con: Connection, ready: str, shapes: dict[str, Any], staged: Path) -> None:
    types = {key: "VARCHAR" if isinstance(shape, str) else _nested(shape) for key, shape in shapes.items()}
    numbers = {key: "VARCHAR" for key, shape in shapes.items() if isinstance(shape, str) and _written(shape) in _EXACT}
    cells = [
        f"coalesce(literal.{quote(key)}, cell.{quote(key)}) AS {quote(key)}" if key in numbers else f"cell.{quote(key)}"
        for key in types
    ]
    exact = f"json_transform(exact, {literal(json.dumps(numbers))})" if numbers else "NULL"
    copy(
        con,
        f"SELECT {', '.join(cells) or 'NULL AS empty'} FROM ("
        f"SELECT json_transform(line, {literal(json.dumps(types))}) AS cell, {exact} AS literal FROM ({ready}))",
        staged,
    )


def _nested(shape: Any) -> Any:
    """The type of a list or object as the database writes it: texts where kinds are mixed, maps of many keys."""
    if isinstance(shape, list):
        return [_nested(shape[0])] if shape else ["VARCHAR"]
    if isinstance(shape, dict):
        if len(shape) > _MANY_KEYS:
            return "MAP(VARCHAR, VARCHAR)"
        return {key: _nested(inner) for key, inner in shape.items()}
    return {"UBIGINT": "BIGINT", "JSON": "VARCHAR", "NULL": "VARCHAR"}.get(shape, shape)
