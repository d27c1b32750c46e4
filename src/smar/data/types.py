"""What a column holds, decided from all its values, or as ``data.types`` says: one rule for every format.

Undeclared texts become numbers, truth values or times only where every value is plainly one. A value that does not fit
a declared type is null here and has a reason (`Reading.misfit`), for which its row is rejected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import pyarrow as pa

from smar.core.sections.data import DataSettings
from smar.data.amounts import POINT, NumberFormat, find_format, plain_amount
from smar.data.database import Connection, literal, once, quote
from smar.data.staged import Written
from smar.data.times import DAY_FIRST, day_first, formatted, text_time

Type: TypeAlias = Literal["text", "integer", "decimal", "number", "boolean", "date", "timestamp"]
TYPES: tuple[str, ...] = get_args(Type)
PRICE = "price"
_SAMPLE = 1000
_WORDS = {"integer": "whole number", "boolean": "truth value", "timestamp": "time"}
_INTEGERS = {8: "TINYINT", 16: "SMALLINT", 32: "INTEGER", 64: "BIGINT"}
_SMALL = ("TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER")
_LARGE = ("UBIGINT", "HUGEINT", "UHUGEINT")


def index_types(schema: pa.Schema) -> dict[str, str]:
    """The types of an index's columns, as `Rules.declared` has them; lists and nested values have none."""
    names = {
        pa.types.is_string: "text",
        pa.types.is_large_string: "text",
        pa.types.is_floating: "number",
        pa.types.is_boolean: "boolean",
        pa.types.is_date: "date",
        pa.types.is_timestamp: "timestamp",
    }
    types = {}
    for column in schema:
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        if pa.types.is_integer(kind):
            types[column.name] = ("U" if pa.types.is_unsigned_integer(kind) else "") + _INTEGERS[kind.bit_width]
        elif pa.types.is_decimal(kind):
            types[column.name] = f"DECIMAL({min(kind.precision, 38)}, {kind.scale})"
        else:
            types[column.name] = next((name for is_, name in names.items() if is_(kind)), "")
    return {name: type_ for name, type_ in types.items() if type_}


@dataclass(frozen=True)
class Reading:
    """How a column is read."""

    type: str
    """DuckDB type."""
    sql: str
    """The value, from the column as it lies in the Parquet file; null where it does not fit."""
    misfit: str | None = None
    """SQL: why a value does not fit, null where it does; None: all fit, or it does not matter."""


@dataclass
class Rules:
    """What is known about a table's columns beforehand, by the names in the user's table."""

    settings: DataSettings
    written: Mapping[str, Written] = field(default_factory=dict)
    """How the cells of a text format were written."""
    declared: Mapping[str, str] = field(default_factory=dict)
    """Types from `TYPES`, or DuckDB's decimal and integer types, for the columns of an index."""
    text: Sequence[str] = ()
    """Columns that stay as they are: their readers make text of them."""
    price: str | None = None
    """The column of prices."""
    notes: list[str] = field(default_factory=list)
    number_format: NumberFormat | None = None
    """How the prices turned out to be written."""


def read_columns(con: Connection, scan: str, types: Mapping[str, str], rules: Rules, kind: str) -> dict[str, Reading]:
    """Decide how the columns of a table are read; columns that stay as they are get no reading.

    Args:
        con: the database.
        scan: SQL for the rows as they lie in the Parquet files.
        types: column -> DuckDB type there.
        rules: what is known beforehand; gets notes and the format of the prices.
        kind: the table, for messages.

    Raises:
        InputError: numbers or days that leave two readings.
    """
    readings: dict[str, Reading] = {}
    open_: dict[str, Sequence[str]] = {}
    for name, found in types.items():
        if name in rules.text:
            continue
        if name in rules.declared:
            readings[name] = _declared(con, scan, name, found, rules, kind)
        elif name == rules.price:
            readings[name] = _price(con, scan, name, found, rules, kind)
        elif (certain := _certain(name, found)) is not None:
            readings[name] = certain
        elif candidates := _candidates(found, rules.written.get(name)):
            open_[name] = candidates
    readings |= _inferred(con, scan, open_, types, rules)
    for name, found in types.items():
        if found == "VARCHAR" and name not in readings and name not in rules.text:
            readings[name] = Reading("VARCHAR", text_of(name, found))
    return readings


def _certain(name: str, found: str) -> Reading | None:
    """One type for what Parquet files keep in several."""
    column = quote(name)
    if found in _SMALL:
        return Reading("BIGINT", f"CAST({column} AS BIGINT)")
    if found in ("DOUBLE", "FLOAT"):
        return Reading("DOUBLE", _float(name, found))
    if found.startswith("TIMESTAMP") and found != "TIMESTAMP":
        return Reading("TIMESTAMP", f"CAST({column} AS TIMESTAMP)")
    return None


def _float(name: str, found: str) -> str:
    """SQL for floats as doubles, NaN as null: 0.1 in single precision is 0.1, not the double next to it."""
    column = quote(name)
    value = column if found == "DOUBLE" else f"CAST(CAST({column} AS VARCHAR) AS DOUBLE)"
    return f"CASE WHEN NOT isnan({column}) THEN {value} END"


def _candidates(found: str, written: Written | None) -> Sequence[str]:
    if found in _LARGE or found.startswith("DECIMAL") or written == "number":
        return ("integer", "number", "decimal")
    if written == "cell":
        return ("integer", "number", "decimal", "boolean", "date", "timestamp")
    if written == "flag":
        return ("boolean",)
    return ("date", "timestamp") if found == "VARCHAR" and written != "text" else ()


def text_of(name: str, found: str) -> str:
    """SQL for a column as text; whole floats lose their .0, as integers with gaps are often kept as floats.

    The parts of a list of texts are joined by blanks, and an empty text is no value.
    """
    column = quote(name)
    if found == "VARCHAR":
        return f"nullif({column}, '')"
    if found in ("DOUBLE", "FLOAT"):
        whole = f"CASE WHEN {column} = floor({column}) THEN CAST(TRY_CAST({column} AS BIGINT) AS VARCHAR) END"
        return f"CASE WHEN NOT isnan({column}) THEN coalesce({whole}, CAST({column} AS VARCHAR)) END"
    if found == "VARCHAR[]":
        return f"nullif(array_to_string(list_filter({column}, lambda part: part <> ''), ' '), '')"
    return f"({column} ->> '$')" if found == "JSON" else f"CAST({column} AS VARCHAR)"


def _text(name: str, found: str) -> str:
    return quote(name) if found == "VARCHAR" else f"CAST({quote(name)} AS VARCHAR)"


def _test(type_: str, text: str, settings: DataSettings) -> str:
    """SQL: whether a text is plainly of a type."""
    dated = f" OR {formatted(text, settings.date_format)} IS NOT NULL" if settings.date_format else ""
    return {
        "integer": f"regexp_full_match({text}, '0|-?[1-9][0-9]{{0,18}}') AND TRY_CAST({text} AS BIGINT) IS NOT NULL",
        "number": f"is_plain({text}) AND fits_double({text})",
        "decimal": f"is_plain({text})",
        "boolean": f"lower({text}) IN ('true', 'false')",
        "date": f"is_day({text}) AND TRY_CAST({text} AS DATE) IS NOT NULL",
        "timestamp": f"read_iso({text}) IS NOT NULL{dated}",
    }[type_]


def _inferred(
    con: Connection, scan: str, columns: Mapping[str, Sequence[str]], types: Mapping[str, str], rules: Rules
) -> dict[str, Reading]:
    """The first type of each column that all its values have: looked for in the first rows, then in all."""
    texts = {name: f"trim({_text(name, types[name])})" for name in columns}
    left = dict(columns)
    for rows in (f"(FROM {scan} LIMIT {_SAMPLE})", scan):
        tests = {
            (name, type_): f"bool_and({_test(type_, texts[name], rules.settings)}) FILTER ({quote(name)} IS NOT NULL "
            f"AND {texts[name]} <> '')"
            for name, candidates in left.items()
            for type_ in candidates
        }
        if not tests:
            return {}
        fits = con.execute(f"SELECT {', '.join(tests.values())} FROM {rows}").fetchall()[0]
        # no value so far, null: all are possible
        kept = [key for key, fit in zip(tests, fits, strict=True) if fit or (fit is None and rows != scan)]
        left = {name: [type_ for at, type_ in kept if at == name] for name in left}
    readings = {}
    for name, candidates in left.items():
        exact = _scale(con, scan, texts[name]) if candidates[:1] == ["decimal"] else None
        if candidates and (exact or candidates[0] != "decimal"):  # of more than 38 digits: a code
            readings[name] = _read(name, types[name], candidates[0], exact, rules)
    return readings


def _scale(con: Connection, scan: str, plain: str) -> str | None:
    """The decimal type that holds the plain numbers of a column; None where 38 digits do not."""
    whole, part = con.execute(
        f"SELECT max(whole_digits(p)), max(part_digits(p)) FROM (SELECT {plain} AS p FROM {scan}) WHERE is_plain(p)"
    ).fetchall()[0]
    whole, part = whole or 0, part or 0
    return None if whole + part > 38 else f"DECIMAL({18 if whole + part <= 18 else 38}, {part})"


def _read(name: str, found: str, type_: str, exact: str | None, rules: Rules, plain: str | None = None) -> Reading:
    """The reading of a column as one of `TYPES`; `exact` is its decimal or integer type."""
    text = f"trim({_text(name, found)})"
    plain = text if plain is None else plain
    settings = rules.settings
    if type_ == "text":
        return Reading("VARCHAR", text_of(name, found))
    if type_ == "number":
        return Reading("DOUBLE", f"coalesce({once(plain, 'p', 'read_double(p)')}, read_exponent({text}))")
    if type_ == "integer":
        kind = exact or "BIGINT"
        cut = "regexp_replace(p, '\\.0+$', '')"
        return Reading(
            kind,
            once(plain, "p", f"CASE WHEN regexp_full_match(p, '-?[0-9]+(\\.0+)?') THEN TRY_CAST({cut} AS {kind}) END"),
        )
    if type_ == "decimal":
        assert exact is not None
        width, scale = map(int, exact.removeprefix("DECIMAL(").removesuffix(")").split(","))
        fits = f"is_plain(p) AND part_digits(p) <= {scale} AND whole_digits(p) <= {width - scale}"
        return Reading(exact, once(plain, "p", f"CASE WHEN {fits} THEN CAST(p AS {exact}) END"))
    if type_ == "boolean":
        return Reading("BOOLEAN", quote(name) if found == "BOOLEAN" else f"read_flag({text})")
    if found.startswith(("TIMESTAMP", "DATE")):
        moment = f"CAST({quote(name)} AS TIMESTAMP)"
    else:
        moment = text_time(text, settings.date_format)
    if type_ == "date":
        return Reading("DATE", once(moment, "m", "CASE WHEN m = date_trunc('day', m) THEN CAST(m AS DATE) END"))
    return Reading("TIMESTAMP", moment)


def _declared(con: Connection, scan: str, name: str, found: str, rules: Rules, kind: str) -> Reading:
    declared = rules.declared[name]
    if declared == "number" and found in ("DOUBLE", "FLOAT"):
        return Reading("DOUBLE", _float(name, found))
    base = "decimal" if declared.startswith("DECIMAL") else declared if declared in TYPES else "integer"
    exact = declared if declared not in TYPES else None
    text = _text(name, found)
    plain = None
    if base in ("integer", "number", "decimal"):
        plain = _plain(con, scan, name, found, rules, kind)
        if base == "decimal" and exact is None:
            exact = _scale(con, scan, plain) or "DECIMAL(38, 9)"
    if base in ("date", "timestamp") and found == "VARCHAR":
        _refuse_days(con, scan, name, rules, kind)
    reading = _read(name, found, base, exact, rules, plain)
    if base == "text":
        return reading
    wanted = _WORDS.get(base, base) + ("" if declared in TYPES else f" of type {declared}")
    said = f"{literal(f'{name} is no {wanted}: ')} || '''' || left({text}, 60) || ''''"
    misfit = f"CASE WHEN trim({text}) <> '' AND ({reading.sql}) IS NULL THEN {said} END"
    return Reading(reading.type, reading.sql, misfit)


def _plain(con: Connection, scan: str, name: str, found: str, rules: Rules, kind: str) -> str:
    """SQL for a column as plain numbers."""
    column = quote(name)
    if found in ("DOUBLE", "FLOAT"):
        return text_of(name, found)
    if found != "VARCHAR" or rules.written.get(name) == "number":
        return _text(name, found)
    number_format = rules.settings.number_format
    if number_format is None:
        number_format, note = find_format(con, scan, column, f"--{kind}: column {name!r}")
        rules.notes += [note] if note else []
        if name == rules.price:
            rules.number_format = number_format
    return plain_amount(f"trim({column})", number_format or POINT)


def _price(con: Connection, scan: str, name: str, found: str, rules: Rules, kind: str) -> Reading:
    """Prices that nothing declares: a number where they are one, else null."""
    if found in ("BOOLEAN", "DATE") or found.startswith(("TIMESTAMP", "STRUCT", "MAP")) or found.endswith("]"):
        return Reading("DOUBLE", "CAST(NULL AS DOUBLE)")
    if found in ("DOUBLE", "FLOAT"):
        return Reading("DOUBLE", once(_float(name, found), "d", "CASE WHEN isfinite(d) THEN d END"))
    return _read(name, found, "number", None, rules, _plain(con, scan, name, found, rules, kind))


def _refuse_days(con: Connection, scan: str, name: str, rules: Rules, kind: str) -> None:
    """Days such as 03/04/2025 are not guessed at."""
    if rules.settings.date_format is not None:
        return
    column = f"trim({quote(name)})"
    rows = con.execute(
        f"SELECT DISTINCT {column} AS day FROM {scan} WHERE regexp_full_match({column}, {literal(DAY_FIRST)}) "
        "ORDER BY day LIMIT 3"
    ).fetchall()
    if rows:
        raise day_first(f"--{kind}: column {name!r}", [day for (day,) in rows])
