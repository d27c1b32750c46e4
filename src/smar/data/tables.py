"""The user's tables, each of one or several files (`smar.data.sources` finds them).

Parquet is read where it lies. Text formats are copied once into Parquet in the work folder, so that
everything after this module sees one format, numbers rows the same way, and parses a log only once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
from pyarrow import ArrowException

from smar.data.database import Connection, literal, quote
from smar.data.sources import Given, as_list, find_files
from smar.data.staging import BadLine, infer_types, stage
from smar.errors import InputError

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
    """The user's column name -> DuckDB type, in the table's order."""
    mapping: dict[str, str]
    """Our column name -> the user's, where the configuration renames one."""
    bad_lines: tuple[BadLine, ...] = ()
    casts: dict[str, str] = field(default_factory=dict)
    """The user's column name -> type, where a text format's column is read as more than text."""

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
        """SQL for the table's rows with their number."""
        paths = ", ".join(literal(path) for path in self.parquet)
        starts = ", ".join(f"{offset}::BIGINT" for offset in self.offsets)
        start = f"list_extract([{starts}], CAST(file_index AS BIGINT) + 1)"
        typed = ", ".join(f"CAST({quote(name)} AS {kind}) AS {quote(name)}" for name, kind in self.casts.items())
        columns = f"* REPLACE ({typed})" if typed else "*"
        return (
            f"(SELECT {columns}, {start} + CAST(file_row_number AS BIGINT) AS {ROW} "
            f"FROM read_parquet([{paths}], union_by_name = true))"
        )


def open_table(
    con: Connection,
    sources: Given,
    kind: str,
    mapping: dict[str, str],
    work: Path,
    text: tuple[str, ...] | None,
    header: Sequence[str] = (),
) -> Table:
    """Find, check and (for text formats) stage one table.

    Args:
        con: the database.
        sources: files, folders, globs, addresses or tables in memory.
        kind: items, clicks, images or queries; names the table in messages.
        mapping: our column name -> the user's.
        work: folder for the staged copies.
        text: our columns to read as text (007 must not become a number); None reads all as text.
        header: names of the columns, for CSV and TSV files without a line of them.

    Raises:
        InputError: no such file, an unreadable or empty table, or a mapped column that the table lacks.
    """
    found = find_files(as_list(sources), kind, work, header)
    files, name = list(found.local), found.format
    keep = None if text is None else [mapping.get(column, column) for column in text]
    staged = files if name == "parquet" else [work / f"{kind}-{n:05d}.parquet" for n in range(len(files))]
    bad: list[BadLine] = []
    if name != "parquet":
        for file, target in zip(files, staged, strict=True):
            bad += stage(con, file, name, target, keep, kind)
    table = _count_rows(kind, list(found.named), staged, mapping, tuple(bad))
    try:
        described = con.execute(f"DESCRIBE SELECT * EXCLUDE ({ROW}) FROM {table.scan}").fetchall()
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise InputError(f"--{kind}: the files do not form one table ({error}).") from None
    table.types.update({str(row[0]): str(row[1]) for row in described})
    if name in ("csv", "tsv") and keep is not None:
        unsure = [column for column in table.types if column not in (*keep, table.column("image"))]
        table.casts.update(infer_types(con, table.scan, unsure))
        table.types.update(table.casts)
    _check_mapped(table)
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
            counts.append(pq.read_metadata(source).num_rows)
        except (OSError, ArrowException) as error:
            raise InputError(f"--{kind} {file}: cannot be read as Parquet ({error}). Write the file again.") from None
    if not sum(counts):
        raise InputError(f"--{kind}: the table is empty (0 rows in {', '.join(map(str, files[:3]))}).")
    offsets = (0, *accumulate(counts))[:-1]
    return Table(kind, tuple(files), tuple(staged), offsets, sum(counts), {}, mapping, bad)
