"""DuckDB as smar uses it: memory bounded by a setting, spilling to the partial folder, SQL in files.

Values reach the SQL through ``SET VARIABLE`` and ``getvariable``; its text is never assembled from
values.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import duckdb
import pyarrow as pa
from duckdb import DuckDBPyConnection
from duckdb.func import PythonUDFType
from duckdb.sqltypes import VARCHAR

from smar.core.errors import InputError
from smar.core.sections.data import DataSettings
from smar.data.markup import plain_text
from smar.data.text import normalise

Connection: TypeAlias = DuckDBPyConnection


class Engine(Protocol):
    """What runs the SQL from the log to pairs, qrels and rejects: DuckDB, or `smar.data.spark.Spark`."""

    def execute(self, query: str, parameters: Any = None) -> "Rows":
        """Run statements in DuckDB's dialect; the result is the last one's."""


class Rows(Protocol):
    """The result of a query."""

    def fetchall(self) -> list[Any]:
        """All rows, or those that are left."""

    def fetchone(self) -> Any:
        """The next row, None after the last."""


def quote(name: str) -> str:
    """SQL identifier for a column of the user's."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def once(value: str, name: str, expression: str) -> str:
    """SQL for an expression that names a value several times, which is computed once."""
    return f"list_transform([{value}], lambda {name}: {expression})[1]"


def script(name: str) -> str:
    """Text of ``sql/NAME.sql``."""
    return (files("smar.data") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


@contextmanager
def connect(settings: DataSettings, work: Path) -> Iterator[Connection]:
    """Open an in-memory database that holds ``settings.memory_limit`` and spills into ``work/spill``.

    Raises:
        InputError: the limit is too small for the tables, or a file cannot be read or written.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": settings.memory_limit,
        "temp_directory": str(work / "spill"),
        "autoinstall_known_extensions": False,
    }
    if settings.workers is not None:
        config["threads"] = settings.workers
    with duckdb.connect(":memory:", config=config) as con, input_errors(settings):
        con.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
        define_macros(con)
        yield con


def define_macros(con: Connection) -> None:
    """The shared expressions of ``sql/macros.sql`` and ``sql/readings.sql``, and the functions of Python in them."""
    con.create_function("normalise", normalised, [VARCHAR], VARCHAR, type=PythonUDFType.ARROW)
    con.create_function("plain_text", plain_text, [VARCHAR], VARCHAR)
    con.execute(script("macros"))
    con.execute(script("readings"))


def normalised(texts: pa.ChunkedArray | pa.Array) -> pa.Array:
    """`smar.data.text.normalise` of a column of texts; null stays null."""
    return pa.array([None if text is None else normalise(text) for text in texts.to_pylist()], pa.string())


@contextmanager
def input_errors(settings: DataSettings) -> Iterator[None]:
    """Turn what the user can mend (memory, disk, damaged files) into InputError; other errors pass."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise InputError(
            f"the tables do not fit data.memory_limit ({settings.memory_limit}): {error}. Raise the limit."
        ) from error
    except (duckdb.IOException, duckdb.SerializationException) as error:
        raise InputError(f"a table cannot be read, or the disk is full: {error}") from error


def set_variables(con: Engine, **values: object) -> None:
    """Set SQL variables (numbers, strings, timestamps, None) that the scripts read with ``getvariable``."""
    for name, value in values.items():
        con.execute(f"SET VARIABLE {quote(name)} = $1", [value])


def copy(con: Engine, select: str, path: Path, compression: str = "zstd") -> None:
    """Write the result of a SELECT as one Parquet file; lz4 is for files that are read once or twice and deleted."""
    con.execute(f"COPY ({select}) TO {literal(path)} (FORMAT parquet, COMPRESSION {compression})")


def number(con: Engine, select: str) -> int:
    """Return the one number that a query yields; null counts as 0."""
    rows = con.execute(select).fetchall()  # all: nothing can be registered while a result is unfinished
    return int(rows[0][0] or 0) if rows else 0
