"""Tables as they are given, or as a SELECT of the configuration makes them: ``data.select.items`` and the like.

A SELECT sees the tables that were given, as views named `items`, `clicks`, `images` and `queries`, and nothing else: it
runs in a database of its own that may not open other files. Its result becomes a Parquet file in the work folder and
is then read like any table. One thread works on it, so that equal tables give equal rows in equal order. The SELECTs
for tables of User Behavior Insights are here: `ubi`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb

from smar.core.errors import InputError
from smar.core.sections.data import ColumnMap, DataSettings, HeaderSettings
from smar.data.database import Connection, copy, define_macros, literal, quote, script
from smar.data.event_tables import UBI, event_folders, first_columns, write_log
from smar.data.sources import Given, Source, as_list
from smar.data.tables import ROW, Table, open_table

KINDS = ("items", "clicks", "images", "queries")


@dataclass
class Tables:
    """The tables of one call, each opened once."""

    con: Connection
    settings: DataSettings
    given: Mapping[str, list[Source]]
    work: Path
    notes: list[str] = field(default_factory=list)
    _raw: dict[str, Table] = field(default_factory=dict)

    @classmethod
    def of(cls, con: Connection, settings: DataSettings, given: Mapping[str, Given], work: Path) -> "Tables":
        """Take what the user gave; an empty list stands for a table that was not given."""
        sources = {kind: as_list(source) for kind, source in given.items()}
        return cls(con, settings, {kind: source for kind, source in sources.items() if source}, work)

    def open(self, kind: str, text: tuple[str, ...] | None, declared: Mapping[str, str] | None = None) -> Table:
        """Open a table that must be there, by its SELECT where it has one; `text` and `declared` as for `open_table`.

        Raises:
            InputError: the table cannot be read or made.
        """
        select, folders = self._select(kind), event_folders(self.given.get(kind, [])) if kind == "clicks" else []
        if select is None and not folders:
            given = self.given.get(kind, [])
            table = open_table(self.con, given, kind, self.settings, self.work, text, declared)
        elif select is None:
            made = self.work / f"{kind}-events.parquet"
            self.notes += write_log(folders, made)
            table = open_table(self.con, made, kind, self.settings, self.work, text, declared)
            table = replace(table, files=(Path(folders[0]),))
        else:
            made = self.work / f"{kind}-selected.parquet"
            self._make(kind, select, made)
            settings = self.settings.model_copy(update={"header": HeaderSettings()})
            table = open_table(self.con, made, kind, settings, self.work, text, declared)
            bad = self._raw[kind].bad_lines if kind in self._raw else ()
            table = replace(table, files=(self._folder(kind) / f"data.select.{kind}",), bad_lines=bad)
        self.notes += table.notes
        return table

    def open_optional(self, kind: str, text: tuple[str, ...] | None) -> Table | None:
        """Open a table that may be missing. A SELECT over this table alone says so in a note when it is."""
        select = self._select(kind)
        if select is None and kind not in self.given:
            return None
        if select is not None and kind not in self.given and self._names(select) == {kind}:
            self.notes.append(f"data.select.{kind} reads --{kind}, which was not given: there is no such table")
            return None
        return self.open(kind, text)

    def _select(self, kind: str) -> str | None:
        """The SELECT that makes a table: the configuration's, or the one for a layout that is known."""
        select: str | None = getattr(self.settings.select, kind)
        if select is None and kind in UBI and not getattr(self.settings.columns, kind):
            select = "ubi" if UBI[kind] <= first_columns(self.given.get(kind, [])) else None
        if select != "ubi" or kind not in UBI:
            return select
        if "queries" not in self.given:
            raise InputError("--clicks are events of User Behavior Insights: give their --queries, too.")
        return script(f"ubi_{kind}")

    def _names(self, select: str) -> set[str]:
        return {kind for kind in KINDS if re.search(rf"\b{kind}\b", select, re.IGNORECASE)}

    def _folder(self, kind: str) -> Path:
        """Where relative picture paths of a made table start: at the table of its kind, else at the first one read."""
        table = self._raw.get(kind) or next(iter(self._raw.values()), None)
        return table.files[0].parent if table else Path()

    def _open_raw(self, kinds: set[str]) -> None:
        """Open what a SELECT reads, under the names that the files have."""
        text = ("item_id", "title", "query", *self.settings.text_fields)
        settings = self.settings.model_copy(update={"columns": ColumnMap(), "types": {}})  # both are of the result
        for kind in sorted(kinds & self.given.keys() - self._raw.keys()):
            folder = self.work / f"given-{kind}"
            folder.mkdir()
            # prices are those of the result: one that cannot be read would be null here, uncounted
            self._raw[kind] = open_table(self.con, self.given[kind], kind, settings, folder, text, prices=False)
            self.notes += self._raw[kind].notes

    def _make(self, kind: str, select: str, made: Path) -> None:
        self._open_raw(self._names(select))
        with self._database() as con:
            for name, table in self._raw.items():
                con.execute(f"CREATE TEMP VIEW {quote(name)} AS SELECT * EXCLUDE ({ROW}) FROM {table.scan}")
            try:
                query = _one_select(con, kind, select)
                copy(con, query, made)
            except duckdb.OutOfMemoryException:
                raise
            except duckdb.Error as error:
                self._open_raw(set(self.given))
                raise InputError(f"data.select.{kind}: {str(error).strip()}\n{self._seen()}") from None
            if not con.execute(f"SELECT 1 FROM {literal(made)} LIMIT 1").fetchall():
                raise InputError(f"data.select.{kind} gives no row. {self._seen()}")

    def _seen(self) -> str:
        seen = [f"{name} ({', '.join(table.types)})" for name, table in self._raw.items()]
        return f"The tables that were given and their columns: {'; '.join(seen) or 'none'}."

    @contextmanager
    def _database(self) -> Iterator[Connection]:
        """A database that may open the given tables and the work folder only."""
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.settings.memory_limit,
            "temp_directory": str(self.work / "spill-select"),
            "autoinstall_known_extensions": False,
            "threads": 1,
        }
        with duckdb.connect(":memory:", config=config) as con:
            con.execute("SET TimeZone = 'UTC'")
            define_macros(con)
            paths = [path for table in self._raw.values() for path in table.parquet]
            con.execute(f"SET allowed_directories = [{literal(self.work)}]")
            con.execute(f"SET allowed_paths = [{', '.join(map(literal, paths))}]")
            con.execute("SET enable_external_access = false; SET lock_configuration = true")
            yield con


def _one_select(con: Connection, kind: str, select: str) -> str:
    """The SELECT without its semicolon, checked to be one, and with a name for every column."""
    statements = con.extract_statements(select)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        seen = ", ".join(statement.type.name for statement in statements) or "nothing"
        raise InputError(f"data.select.{kind} must be one SELECT; seen: {seen}.")
    query = statements[0].query.strip().rstrip("; \n")
    names = Counter(str(row[0]).lower() for row in con.execute(f"DESCRIBE {query}").fetchall())
    if twice := [name for name, count in names.items() if count > 1]:
        raise InputError(f"data.select.{kind} gives two columns the name {', '.join(twice)}: rename one with AS.")
    return f"{query}\n"
