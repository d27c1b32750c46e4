"""Times as people and machines write them -> UTC: ISO 8601, compact dates, epochs, and ``data.date_format``."""

from collections.abc import Sequence

import duckdb

from smar.core.errors import InputError
from smar.data.database import Connection, literal

DAY_FIRST = r"\d{1,2}[./-]\d{1,2}[./-](\d{4}|\d{2})\b.*"
"""A day whose parts may stand in either order."""


def text_time(text: str, date_format: str | None) -> str:
    """SQL for a text as TIMESTAMP in UTC, null where it is no time: the format's reading first, then the unmistakable.

    Args:
        text: SQL for the text.
        date_format: ``data.date_format``.
    """
    value = f"trim({text})"
    whole = f"CASE WHEN regexp_full_match({value}, '-?[0-9]{{1,19}}') THEN from_epoch(TRY_CAST({value} AS BIGINT)) END"
    seconds = f"from_epoch_part(TRY_CAST({value} AS DOUBLE))"
    part = f"CASE WHEN regexp_full_match({value}, '-?[0-9]+\\.[0-9]+') THEN {seconds} END"
    readings = [f"CAST(TRY_CAST({value} AS TIMESTAMPTZ) AS TIMESTAMP)", whole, part]
    if date_format is not None:
        readings.insert(0, formatted(value, date_format))
    return f"coalesce({', '.join(readings)})"


def formatted(text: str, date_format: str) -> str:
    """SQL for a text in ``data.date_format`` as TIMESTAMP in UTC, null where it is written otherwise."""
    return f"CAST(try_strptime({text}, {literal(date_format)}) AS TIMESTAMP)"


def check_format(con: Connection, date_format: str | None) -> None:
    """Raise InputError unless the database knows ``data.date_format``."""
    if date_format is None:
        return
    try:
        con.execute(f"SELECT {formatted(literal(''), date_format)}")
    except duckdb.Error as error:
        raise InputError(
            f"data.date_format is {date_format!r}: {str(error).partition(': ')[2].strip()}. "
            "Write it as for strptime, such as %d/%m/%Y or %d.%m.%Y %H:%M:%S."
        ) from None


def day_first(where: str, examples: Sequence[str]) -> InputError:
    """The error for a column of days that leave two readings."""
    seen = ", ".join(map(repr, examples))
    return InputError(
        f"{where} has days such as {seen}: which part is the day, which the month? "
        "Set data.date_format, for example %d/%m/%Y (day first) or %m/%d/%Y, with %H:%M:%S where times follow."
    )
