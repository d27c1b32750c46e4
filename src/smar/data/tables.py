"""The user's tables, each of one or several files (`smar.data.sources` finds them).

Parquet is read where it lies. Text formats are copied once into Parquet in the work folder, so that
everything after this module sees one format, numbers rows the same way, and parses a log only once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from pyarrow import ArrowException

from smar.core.errors import InputError, one_of
from smar.core.sections.data import DataSettings
from smar.data.database import Connection, literal, quote
from smar.data.dialect import check_names
from smar.data.sources import Given, as_list, find_files
from smar.data.staged import BadLine, Written
from smar.data.staging import stage
from smar.data.types import PRICE, Reading, Rules, read_columns

ROW = "__row"
"""Name of the row number (0-based over the whole table) in every source view."""


@dataclass(frozen=True)
class Table:
    """One table of the user's, readable as Parquet."""

    kind: str
    """items, clicks, images or queries."""
    files: tuple[Path, ...]
    """The user's files, in order."""
    parquet: tuple[Path, ...]
    """The Parquet file to read for each of `files`."""
    offsets: tuple[int, ...]
    """Number of the first row of each file."""
    rows: int
    types: dict[str, str]
    """The user's column name -> DuckDB type as read, in the table's order."""
    mapping: dict[str, str]
    """Our column name -> the user's, where the configuration renames one."""
    bad_lines: tuple[BadLine, ...] = ()
    readings: dict[str, Reading] = field(default_factory=dict)
    """The user's column name -> how it is read, where it is not taken as it lies in the Parquet file."""
    notes: list[str] = field(default_factory=list)
    """What the user should know, one sentence each."""
    rules: Rules | None = None

    def column(self, name: str) -> str | None:
        """Return the user's name of our column, None when the table has none."""
        theirs = self.mapping.get(name, name)
        return theirs if theirs in self.types else None

    def type(self, name: str) -> str:
        """DuckDB type of one of our columns, which must exist."""
        return self.types[self.mapping.get(name, name)]

    def spans(self) -> Iterator[tuple[Path, Path, int, int]]:
        """Yield for each file: the user's path, the Parquet path, first row number, one after the last."""
        yield from zip(self.files, self.parquet, self.offsets, (*self.offsets[1:], self.rows), strict=True)

    @property
    def scan(self) -> str:
        """SQL for the table's rows as they are read, with their number."""
        read = ", ".join(f"{reading.sql} AS {quote(name)}" for name, reading in self.readings.items())
        return f"(SELECT * REPLACE ({read}) FROM {self.raw})" if read else self.raw

    @property
    def raw(self) -> str:
        """SQL for the rows as they lie in the Parquet files, with their number."""
        paths = ", ".join(literal(path) for path in self.parquet)
        starts = ", ".join(f"{offset}::BIGINT" for offset in self.offsets)
        start = f"list_extract([{starts}], CAST(file_index AS BIGINT) + 1)"
        return (
            f"(SELECT *, {start} + CAST(file_row_number AS BIGINT) AS {ROW} "
            f"FROM read_parquet([{paths}], union_by_name = true))"
        )

    def part(self, file: int, first: int, last: int) -> str:
        """SQL for the rows `first` to `last` of one of the files, as `raw` has them; other files are not opened."""
        columns = ", ".join(f"CAST(NULL AS {type_}) AS {quote(name)}" for name, type_ in self.types.items())
        return (
            f"(SELECT *, CAST({self.offsets[file]} + file_row_number AS BIGINT) AS {ROW} "
            f"FROM read_parquet({literal(self.parquet[file].absolute())}) "
            f"WHERE file_row_number BETWEEN {first} AND {last} "
            f"UNION ALL BY NAME SELECT {columns}, CAST(NULL AS BIGINT) AS {ROW} WHERE false)"
        )

    @property
    def misfit(self) -> str:
        """SQL over `raw`: why a value of the row does not fit its column's declared type, null where all do."""
        reasons = [reading.misfit for reading in self.readings.values() if reading.misfit]
        return f"coalesce({', '.join(reasons)})" if reasons else "CAST(NULL AS VARCHAR)"


def open_table(
    con: Connection,
    sources: Given,
    kind: str,
    settings: DataSettings,
    work: Path,
    text: tuple[str, ...] | None,
    declared: Mapping[str, str] | None = None,
    prices: bool = True,
) -> Table:
    """Find, check and (for text formats) stage one table, and decide what its columns hold.

    Args:
        con: the database.
        sources: files, folders, globs, addresses or tables in memory.
        kind: items, clicks, images or queries; names the table in messages.
        settings: the data section.
        work: folder for the staged copies.
        text: our columns that stay as they are (007 must not become a number); None: all do.
        declared: our column -> type, which goes before ``data.types``.
        prices: whether a column `price` of the items is read as prices are; else like any column.

    Raises:
        InputError: no such file, an unreadable or empty table, a mapped column that the table lacks, or values that
            leave two readings.
    """
    mapping: dict[str, str] = getattr(settings.columns, kind)
    header: tuple[str, ...] = getattr(settings.header, kind)
    found = find_files(as_list(sources), kind, work)
    files, name = list(found.local), found.format
    if header and name not in ("csv", "tsv"):
        raise InputError(f"data.header.{kind} is for CSV and TSV files; --{kind} is {name}, which names its columns.")
    staged = files if name == "parquet" else [work / f"{kind}-{n:05d}.parquet" for n in range(len(files))]
    bad: list[BadLine] = []
    notes: list[str] = []
    written: dict[str, Written] = {}
    if name != "parquet":
        for file, target in zip(files, staged, strict=True):
            read = stage(con, file, name, target, settings.encoding, kind, header)
            bad += read.bad_lines
            notes += read.notes
            for column, how in read.written.items():
                written[column] = how if written.get(column, how) == how else "text"
    table = _count_rows(kind, list(found.named), staged, mapping, tuple(bad))
    table.notes.extend(notes)
    try:
        described = con.execute(f"DESCRIBE SELECT * EXCLUDE ({ROW}) FROM {table.raw}").fetchall()
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise InputError(f"--{kind}: the files do not form one table ({error}).") from None
    table.types.update({str(row[0]): str(row[1]) for row in described})
    _check_mapped(table)
    if text is not None:
        ours = {theirs: column for column, theirs in mapping.items()}
        given = {**settings.types, **(declared or {})}
        known = {column: given.get(ours.get(column, column), given.get(column)) for column in table.types}
        rules = Rules(
            settings,
            written,
            {column: type_ for column, type_ in known.items() if type_ is not None},
            [column for column in map(table.column, (*text, "image")) if column is not None],
            table.column(PRICE) if kind == "items" and prices else None,
            table.notes,
        )
        table.readings.update(read_columns(con, table.raw, table.types, rules, kind))
        table.types.update({column: reading.type for column, reading in table.readings.items()})
        return replace(table, rules=rules)
    return table


def _check_mapped(table: Table) -> None:
    for ours, theirs in table.mapping.items():
        if theirs not in table.types:
            raise InputError(
                f"--{table.kind}: data.columns.{table.kind} maps {ours!r} to {theirs!r}, which the table lacks. "
                f"Its columns: {', '.join(table.types)}."
            )


def _count_rows(
    kind: str, files: list[Path], staged: list[Path], mapping: dict[str, str], bad: tuple[BadLine, ...]
) -> Table:
    counts = []
    for file, source in zip(files, staged, strict=True):
        try:
            metadata = pq.read_metadata(source)
            check_names(file, metadata.schema.to_arrow_schema().names)
            counts.append(metadata.num_rows)
        except (OSError, ArrowException) as error:
            raise InputError(f"--{kind} {file}: cannot be read as Parquet ({error}). Write the file again.") from None
    if not sum(counts):
        raise InputError(f"--{kind}: the table is empty (0 rows in {', '.join(map(str, files[:3]))}).")
    offsets = (0, *accumulate(counts))[:-1]
    return Table(kind, tuple(files), tuple(staged), offsets, sum(counts), {}, mapping, bad)


def check_types(settings: DataSettings, *tables: Table | None) -> None:
    """Refuse a name in ``data.types`` that is no column of these tables, neither as we call it nor as they do."""
    names = {name for table in tables if table for name in (*table.types, *table.mapping)}
    for name in settings.types:
        if name not in names:
            raise one_of(name, names, "a name in data.types", "These are the columns of the items and queries tables.")


def applied_format(settings: DataSettings, items: Table) -> DataSettings:
    """The settings with the number format that the prices turned out to have: an update has to read them so, too."""
    if settings.number_format is None and items.rules is not None and items.rules.number_format is not None:
        return settings.model_copy(update={"number_format": items.rules.number_format})
    return settings
