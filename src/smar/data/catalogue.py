"""Catalogue and query attributes: which rows are kept, and the item columns that the dataset carries."""

from dataclasses import dataclass
from pathlib import Path

from smar.core.errors import InputError, one_of
from smar.core.sections.data import DataSettings
from smar.data.columns import OPTIONAL_TEXT, RESERVED, as_text, require, words
from smar.data.database import Connection, copy, number, quote, script
from smar.data.tables import ROW, Table
from smar.data.types import PRICE


@dataclass(frozen=True)
class ItemColumns:
    """How the user's item columns become the dataset's."""

    select: dict[str, str]
    """Name in the dataset -> SQL over the table's scan, in order."""
    settings: DataSettings
    """The settings with the default fields that this catalogue lacks taken out."""
    notes: tuple[str, ...]


def item_columns(table: Table, settings: DataSettings, whole: bool = True) -> ItemColumns:
    """Decide the dataset's item columns; where the items need not be `whole` there may be no title.

    Raises:
        InputError: a required column is missing, a reserved name is taken, or a setting names no column.
    """
    require(table, None if whole else ("item_id",))
    ours = {theirs: name for name, theirs in table.mapping.items()}
    hidden = {name for name in table.mapping if name in table.types and table.mapping[name] != name}
    names = [ours.get(name, name) for name in table.types if name not in hidden or name in ours]
    notes = [f"items: column {name!r} is replaced by {table.mapping[name]!r}, mapped to it" for name in sorted(hidden)]
    settings, missing = _defaults_present(settings, names)
    notes += missing
    _check_names(settings, names)
    select = {"item_id": as_text(table, "item_id")}
    if table.column("title"):
        select["title"] = words(as_text(table, "title"), settings)
    for name in names:
        if name not in select and name != "image" and name not in settings.drop_columns:
            listed = table.type(name).endswith((")", "]"))
            text = name in settings.text_fields and not listed
            select[name] = words(as_text(table, name), settings) if text else quote(table.column(name) or name)
    return ItemColumns(select, settings, tuple(notes))


def _defaults_present(settings: DataSettings, names: list[str]) -> tuple[DataSettings, list[str]]:
    """Take category and brand out of field lists that the user did not write, if the catalogue lacks them."""
    changes: dict[str, tuple[str, ...]] = {}
    notes = []
    for key in ("text_fields", "slice_columns"):
        wanted: tuple[str, ...] = getattr(settings, key)
        absent = [name for name in wanted if name in OPTIONAL_TEXT and name not in names]
        if absent and key not in settings.model_fields_set:
            changes[key] = tuple(name for name in wanted if name not in absent)
            notes.append(f"items: no column {', '.join(absent)}: left out of data.{key}")
    return (settings.model_copy(update=changes) if changes else settings), notes


def _check_names(settings: DataSettings, names: list[str]) -> None:
    for key in ("text_fields", "slice_columns", "drop_columns"):
        for name in getattr(settings, key):
            if name not in names:
                raise one_of(name, names, f"a name in data.{key}", "These are the columns of the items table.")
    needed = {"item_id", "title", *settings.text_fields, *settings.slice_columns}
    for name in settings.drop_columns:
        if name in needed:
            raise InputError(
                f"data.drop_columns drops {name!r}, which text_fields, slice_columns or smar itself needs."
            )
    taken = sorted(set(names) & set(RESERVED) - set(settings.drop_columns))
    if taken:
        raise InputError(
            f"--items: the column names {', '.join(taken)} are reserved for the dataset. Rename the columns, "
            f"or list them in data.drop_columns. Reserved: {', '.join(RESERVED)}."
        )


def build_items(con: Connection, table: Table, settings: DataSettings) -> None:
    """Create the SQL tables ``item`` (item_index, item_id, __row) and ``reject``."""
    title = words(as_text(table, "title"), settings) if table.column("title") else "'as before'"
    con.execute(
        f"CREATE TEMP VIEW item_key AS SELECT {ROW}, {as_text(table, 'item_id')} AS item_id, "
        f"{title} AS title, {table.misfit} AS misfit FROM {table.raw}"
    )
    con.execute(script("items"))
    if not number(con, "SELECT count(*) FROM item"):
        raise InputError(f"--items: none of the {table.rows:,} rows has both an item_id and a title.")


def write_items(con: Connection, table: Table, columns: ItemColumns, path: Path) -> None:
    """Write ``items.parquet``; needs the view ``train`` and `smar.data.pictures`' table ``item_picture``."""
    kept = ", ".join(f"{expression} AS {quote(name)}" for name, expression in columns.select.items())
    named = ", ".join(f"source.{quote(name)}" for name in columns.select)
    copy(
        con,
        f"SELECT {named}, image_status, image_row, image_rows, picture_offset, picture_length, "
        "item.item_index IN (SELECT item_index FROM train) AS clicked_in_train "
        f"FROM item JOIN (SELECT {ROW}, {kept} FROM {table.scan}) AS source USING ({ROW}) "
        "JOIN item_picture ON item_picture.item_index = item.item_index ORDER BY item.item_index",
        path,
    )


def unread_prices(con: Connection, table: Table) -> str | None:
    """What to say about prices that are no numbers (they become null); None where there are none."""
    name = table.column(PRICE)
    if name is None or table.readings[name].misfit:
        return None
    column = f"trim(CAST({quote(name)} AS VARCHAR))"
    count, example = con.execute(
        f"SELECT count(*), min({column}) FROM {table.raw} "
        f"WHERE {column} <> '' AND {column} <> 'nan' AND ({table.readings[name].sql}) IS NULL"
    ).fetchall()[0]
    return f"items: {count:,} prices are not numbers and became null, for example {example!r}" if count else None


def write_queries(con: Connection, table: Table, settings: DataSettings, path: Path) -> int:
    """Write ``queries.parquet`` (normalised query + the user's columns); return its number of rows."""
    require(table)
    key = table.column("query") or "query"
    others = ", ".join(f"source.{quote(name)}" for name in table.types if name not in (key, "query"))
    con.execute(
        f"CREATE TEMP VIEW query_key AS SELECT {ROW}, {words(as_text(table, 'query'), settings)} AS query, "
        f"{table.misfit} AS misfit FROM {table.raw}"
    )
    con.execute(script("queries"))
    copy(
        con,
        f"SELECT query_row.query{', ' + others if others else ''} FROM query_row "
        f"JOIN {table.scan} AS source USING ({ROW}) WHERE reason IS NULL ORDER BY query_row.{ROW}",
        path,
    )
    return number(con, "SELECT count(*) FROM query_row WHERE reason IS NULL")
