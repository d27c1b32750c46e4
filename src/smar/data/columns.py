"""What the tables' columns mean: which are required, and how a user's type becomes ours."""

from smar.core.errors import InputError, one_of
from smar.core.sections.data import DataSettings
from smar.data.database import literal, quote
from smar.data.markup import MARKUP
from smar.data.tables import ROW, Table
from smar.data.times import formatted, text_time
from smar.data.types import text_of

REQUIRED = {
    "items": ("item_id", "title"),
    "clicks": ("query", "item_id"),
    "images": ("item_id", "image"),
    "queries": ("query",),
}
LOG_COLUMNS = (
    "query",
    "item_id",
    "timestamp",
    "clicked",
    "user_id",
    "position",
    "ordered",
    "weight",
    "relevance",
    "split",
)
OPTIONAL_TEXT = ("category", "brand")
"""Item columns of the default configuration that a catalogue may lack."""
RESERVED = (
    "item_index",
    "image_status",
    "image_row",
    "image_rows",
    "picture_offset",
    "picture_length",
    "clicked_in_train",
    ROW,
)
"""Names that the dataset's own item columns take."""


def require(table: Table, names: tuple[str, ...] | None = None, because: str = "") -> None:
    """Raise InputError, listing what was seen and how to map it, unless the table has all the columns."""
    wanted = REQUIRED[table.kind] if names is None else names
    missing = [name for name in wanted if table.column(name) is None]
    if missing:
        seen = ", ".join(table.types)
        raise InputError(
            f"--{table.kind}: no column {', '.join(map(repr, missing))}{because}. Columns seen: {seen}. "
            "If it has another name, map it in the configuration: "
            f"data: {{columns: {{{table.kind}: {{{missing[0]}: THEIR_NAME}}}}}}."
        )


def check_mapping(table: Table) -> None:
    """Refuse a mapping of a log, images or queries column that nothing reads (a typing error)."""
    allowed = LOG_COLUMNS if table.kind == "clicks" else REQUIRED["images"]
    if table.kind in ("clicks", "images"):
        for name in table.mapping:
            if name not in allowed:
                raise one_of(name, allowed, f"a key of data.columns.{table.kind}")


def as_text(table: Table, name: str) -> str:
    """SQL for a column as text; raises InputError where it holds nested values."""
    kind = table.type(name)
    if kind.startswith(("STRUCT", "MAP")) or (kind.endswith("]") and kind != "VARCHAR[]"):
        raise InputError(
            f"--{table.kind}: column {table.column(name)!r} has type {kind}; allowed: text, numbers, "
            "or a list of texts, which are joined. Give a column with plain values, or map another one in data.columns."
        )
    return text_of(table.column(name) or name, kind)


def words(text: str, settings: DataSettings) -> str:
    """SQL for a text without HTML, unless ``data.html`` keeps it."""
    if settings.html == "keep":
        return text
    found = f"CASE WHEN regexp_matches({text}, {literal(MARKUP)}) THEN plain_text({text}) ELSE {text} END"
    return f"CASE WHEN contains({text}, '&') OR contains({text}, '<') THEN {found} ELSE {text} END"


def as_number(table: Table, name: str) -> str:
    """SQL for a column as DOUBLE, null where it is not a finite number."""
    column = quote(table.column(name) or name)
    value = f"TRY_CAST(trim(CAST({column} AS VARCHAR)) AS DOUBLE)" if table.type(name) == "VARCHAR" else (
        f"TRY_CAST({column} AS DOUBLE)"
    )  # fmt: skip
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def as_flag(table: Table, name: str) -> str:
    """SQL for a column as BOOLEAN (true/false, yes/no, numbers: not zero), null where it is neither."""
    if table.type(name) == "BOOLEAN":
        return quote(table.column(name) or name)
    number = f"{as_number(table, name)} <> 0"
    if table.type(name) != "VARCHAR":
        return number
    return f"coalesce(TRY_CAST(trim({quote(table.column(name) or name)}) AS BOOLEAN), {number})"


def as_time(table: Table, name: str, date_format: str | None) -> str:
    """SQL for a column as TIMESTAMP in UTC, null where it is no time; see `smar.data.times`."""
    column, kind = quote(table.column(name) or name), table.type(name)
    if kind.startswith(("TIMESTAMP", "DATE")):
        value = f"CAST({column} AS TIMESTAMP)"
    elif kind == "VARCHAR":
        value = text_time(column, date_format)
    else:
        whole = kind.endswith("INT") or kind == "INTEGER"
        value = f"from_epoch(TRY_CAST({column} AS BIGINT))" if whole else f"from_epoch_part({as_number(table, name)})"
        if date_format is not None:
            value = f"coalesce({formatted(f'CAST({column} AS VARCHAR)', date_format)}, {value})"
    return f"CASE WHEN isfinite({value}) THEN {value} END"
