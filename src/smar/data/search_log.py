"""The log or the table of pairs as SQL views: which of its columns are read, and what is said of the others."""

import re
from dataclasses import dataclass

from smar.core.sections.data import DataSettings
from smar.data.columns import as_flag, as_number, as_text, as_time, require, words
from smar.data.database import Engine, literal, quote, script, set_variables
from smar.data.tables import ROW, Table
from smar.data.text import MAX_QUERY_CHARACTERS

_PARTS = (("train", "training"), ("valid", "validation", "val", "dev"), ("test", "testing"))
"""How a column `split` may call each part."""
_OF_PAIRS = ("weight", "relevance", "split")
"""Columns that a table of pairs may have; a log has times and clicks instead."""
_OF_LOGS = ("ordered", "position")
_LABEL = re.compile(
    r"(^|_)(e?labels?|esci|relevance|relevant|rel|scores?|ratings?|stars|grades?|graded|gains?|judge?ments?)(_|$)"
)
_VALUES = 5
"""Values of a label-like column that a note shows."""


@dataclass(frozen=True)
class Log:
    """What kind of table it is."""

    timed: bool
    """A log with times and clicks; else a table of pairs."""
    graded: bool
    """Pairs with the column `relevance`."""
    parted: bool
    """Pairs with the column `split`."""
    notes: tuple[str, ...]


def open_log(con: Engine, table: Table, settings: DataSettings) -> Log:
    """Create the SQL views ``log`` and ``event``.

    A table with neither ``timestamp`` nor ``clicked`` is a table of pairs, with optional ``weight``, ``relevance`` and
    ``split``; without a relevance each of its rows is a click.

    Raises:
        InputError: a column is missing.
    """
    require(table)
    timed = any(table.column(name) for name in ("timestamp", "clicked"))
    if timed:
        require(table, ("timestamp", "clicked"), because=" (a log needs both; a plain table of pairs has neither)")
    read = {name for name in (_OF_LOGS if timed else _OF_PAIRS) if table.column(name)}
    graded, parted = "relevance" in read, "split" in read
    positioned = "position" in read and settings.position_bias
    relevance = as_number(table, "relevance") if graded else "CAST(NULL AS DOUBLE)"
    user, moment = table.column("user_id"), f"CAST({ROW} AS VARCHAR)"
    if timed:
        moment = f"CAST({as_time(table, 'timestamp', settings.date_format)} AS VARCHAR)"
    columns = {
        "asker": f"coalesce({as_text(table, 'user_id')}, {moment})" if user else moment,
        "query": words(as_text(table, "query"), settings),
        "item_id": as_text(table, "item_id"),
        "timestamp": as_time(table, "timestamp", settings.date_format) if timed else "CAST(NULL AS TIMESTAMP)",
        "clicked": as_flag(table, "clicked") if timed else f"{relevance} > 0" if graded else "true",
        "ordered": as_flag(table, "ordered") if "ordered" in read else "false",
        "place": as_number(table, "position") if positioned else "CAST(NULL AS DOUBLE)",
        "placed": _not_blank(table, "position") if positioned else "false",
        "weight": as_number(table, "weight") if "weight" in read else "CAST(1 AS DOUBLE)",
        "relevance": relevance,
        "part": _part(table) if parted else "CAST(NULL AS UTINYINT)",
    }
    select = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    con.execute(f"CREATE TEMP VIEW log_source AS SELECT {ROW}, {select} FROM {table.scan}")
    set_variables(
        con,
        timed=timed,
        graded=graded,
        parted=parted,
        drawn=not timed and not parted,
        max_query_characters=MAX_QUERY_CHARACTERS,
        order_weight=settings.order_weight,
        max_position_weight=settings.max_position_weight,
        keep_repeats=settings.repeat_pairs == "keep",
        test_share=settings.test_share,
        valid_share=settings.valid_share,
    )
    con.execute(script("log"))
    notes = _unread(table, _OF_PAIRS) if timed else _label_like(con, table, graded)
    return Log(timed, graded, parted, tuple(notes))


def _not_blank(table: Table, name: str) -> str:
    """Whether a text says something that must be a number; numbers are that already."""
    return f"NOT is_blank({as_text(table, name)})" if table.type(name) == "VARCHAR" else "false"


def _part(table: Table) -> str:
    name = f"lower(trim({as_text(table, 'split')}))"
    cases = " ".join(f"WHEN {name} IN ({', '.join(map(literal, names))}) THEN {n}" for n, names in enumerate(_PARTS))
    return f"CAST(CASE {cases} END AS UTINYINT)"


def _unread(table: Table, names: tuple[str, ...]) -> list[str]:
    seen = [table.column(name) for name in names if table.column(name)]
    if not seen:
        return []
    return [
        f"clicks: column {', '.join(map(repr, seen))} is not read, as this is a log: `clicked` says what was "
        "relevant and `timestamp` splits it. Leave these two out (data.select.clicks) where the rows are judged pairs"
    ]


def _label_like(con: Engine, table: Table, graded: bool) -> list[str]:
    """Point out columns of a table of pairs that look like labels and are not read: each row trains as a click."""
    if graded:
        return []
    read = {table.column(name) for name in ("query", "item_id", "user_id", *_OF_PAIRS)}
    names = [name for name in table.types if name not in read and _LABEL.search(_snake(name))]
    return [_pointed_out(con, table, name) for name in names]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).lower()


def _pointed_out(con: Engine, table: Table, name: str) -> str:
    column = quote(name)
    text = f"left(CAST({column} AS VARCHAR), 30)"
    counted = con.execute(
        f"SELECT {text}, count(*) FROM {table.scan} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {_VALUES}"
    ).fetchall()
    values = ", ".join(f"{value} ({rows:,})" for value, rows in counted)
    example = next((value for value, _ in counted if value is not None), "")
    return (
        f"clicks: column {name!r} looks like a label and is not read, so that every row trains as a click. Its most "
        f"frequent values: {values}. If it says how relevant an item is, make it a whole number `relevance` (0: "
        f"irrelevant): data.columns.clicks: {{relevance: {name}}}, or data.select.clicks: SELECT *, CASE {column} WHEN "
        f"{literal(example)} THEN 1 ELSE 0 END AS relevance FROM clicks"
    )
