"""From the log to pairs, qrels and rejects on a Spark cluster: an engine that DuckDB's SQL is given to.

What stands in a cell is read by DuckDB, inside of Spark's tasks, each of which takes a range of rows of one file: so
times with zones, numbers and row numbers are what they are without Spark. Joins, groups, sorts and files are Spark's
own, in the SQL that `smar.data.transpile` makes of DuckDB's. The catalogue stays in the DuckDB of the driver. Every
node has to see the tables and the dataset's folder under the same paths.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from smar.core.errors import InputError
from smar.data.database import Connection, copy, define_macros, normalised
from smar.data.tables import Table

ROWS = 1 << 20
"""Rows of a table that one task reads."""
_VIEW = re.compile(r"CREATE TEMP VIEW (\w+) AS (.*)", re.DOTALL)
_PIP = "pip install 'smar[spark]'"


class Rows(list[Any]):
    """The rows of a result, in the driver."""

    def fetchall(self) -> list[Any]:
        """The rows that are left."""
        rows = list(self)
        self.clear()
        return rows

    def fetchone(self) -> Any:
        """The next row."""
        return self.pop(0) if self else None


@contextmanager
def session(master: str | None) -> Iterator[Any]:
    """A Spark session of our own settings; one that runs in this process is taken and left running.

    Args:
        master: such as ``local[4]`` or ``spark://host:7077``; None: what Spark's configuration says, else ``local[*]``.

    Raises:
        InputError: the extra is not installed, Spark does not start, or a node cannot read a table.
    """
    try:
        import sqlglot  # noqa: F401
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise InputError(f"--engine spark needs {error.name}: {_PIP}.") from None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    running = SparkSession.getActiveSession()
    builder = SparkSession.builder.appName("smar prepare").config("spark.ui.showConsoleProgress", "false")
    builder = builder.config("spark.sql.warehouse.dir", tempfile.gettempdir())  # else a folder here; it stays empty
    try:
        started = running or (builder.master(master) if master else builder).getOrCreate()
    except (PySparkException, OSError) as error:
        raise InputError(
            f"--engine spark: Spark does not start ({_first_line(error)}). It needs Java 17 or newer "
            "(`java -version`), and a --spark-master that answers."
        ) from None
    try:
        spark = started.newSession()
        spark.conf.set("spark.sql.session.timeZone", "UTC")
        spark.conf.set("spark.sql.ansi.enabled", "true")
        _register(spark)
        yield spark
    except PySparkException as error:
        if "duckdb.IOException" in str(error) or "IOException: IO Error" in str(error):
            raise InputError(
                f"--engine spark: a node cannot read a table. All need the same paths to it. {_first_line(error)}"
            ) from error
        raise
    finally:
        if running is None:
            started.stop()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _register(spark: Any) -> None:
    """The functions of `smar.data.transpile.FUNCTIONS`, over columns of Arrow."""
    from pyspark.sql.functions import arrow_udf

    def normalise(texts: pa.Array) -> pa.Array:
        return normalised(texts)

    def exact(numbers: pa.Array) -> pa.Array:
        return _by_duckdb("exact", numbers)

    def approximate(numbers: pa.Array) -> pa.Array:
        return _by_duckdb("approximate", numbers)

    for function, type_ in ((normalise, "string"), (exact, "decimal(38,9)"), (approximate, "double")):
        spark.udf.register(function.__name__, arrow_udf(function, returnType=type_))


def _by_duckdb(macro: str, values: pa.Array) -> pa.Array:
    """A macro of ``sql/macros.sql`` for each value."""
    con = _database()
    con.register("given", pa.table({"value": values}))
    return con.sql(f"SELECT {macro}(value) AS value FROM given").to_arrow_table()["value"].combine_chunks()


@cache
def _database() -> Connection:
    """The DuckDB of a task: one thread, as Spark runs one task on a core."""
    con = duckdb.connect(":memory:", config={"threads": 1, "autoinstall_known_extensions": False})
    con.execute("SET TimeZone = 'UTC'")
    define_macros(con)
    return con


class Spark:
    """Runs what `smar.data.clicks` says, as a DuckDB connection would; see `smar.data.database.Engine`."""

    def __init__(self, spark: Any, con: Connection, log: Table, work: Path) -> None:
        """`con`: the DuckDB that has the catalogue; `work`: a folder that all nodes see."""
        self._spark, self._con, self._log, self._work = spark, con, log, work / "spark"
        self._work.mkdir()
        self._variables: dict[str, object] = {}
        self._views: dict[str, Any] = {}
        """View -> its query: Spark binds literals when a view is made, DuckDB's views see variables that come later."""
        self.share("item")

    def share(self, table: str) -> None:
        """Make a table of the driver's DuckDB one of Spark's."""
        path = self._work / f"shared-{table}.parquet"
        copy(self._con, f"FROM {table}", path, "lz4")
        self._view(table, path)

    def execute(self, query: str, parameters: Sequence[object] | None = None) -> Rows:
        """Run statements in DuckDB's dialect.

        A view of the log's files is read by the tasks. Other queries of these files are small questions for messages:
        the driver's DuckDB answers them.
        """
        from smar.data.transpile import parse

        if self._log.raw in query:
            made = _VIEW.fullmatch(query)
            if made is None:
                return Rows(self._con.execute(query).fetchall())
            self._read_log(made[1], made[2])
            return Rows()
        rows = Rows()
        for statement in parse(query):
            rows = self._run(statement, parameters or ())
        return rows

    def _run(self, statement: Any, parameters: Sequence[object]) -> Rows:
        from sqlglot import exp

        name = statement.find(exp.Table).name if isinstance(statement, exp.Create | exp.Drop) else ""
        if isinstance(statement, exp.Set):
            self._set(statement.expressions[0].this, parameters)
        elif isinstance(statement, exp.Copy):
            self._write(self._query(statement.this.this), Path(statement.args["files"][0].name))
        elif isinstance(statement, exp.Drop):
            self._spark.catalog.dropTempView(name)
            self._views.pop(name, None)
        elif not isinstance(statement, exp.Create):
            return Rows(map(tuple, self._query(statement).collect()))
        elif statement.args["kind"] == "TABLE":
            self._query(statement.expression).write.parquet(_location(self._work / name))
            self._view(name, self._work / name)
        else:
            self._views[name] = statement.expression
            if statement.find(exp.ReadParquet):  # a part of the dataset, which the item columns depend on
                self._con.execute(statement.sql("duckdb"))
        return Rows()

    def _query(self, statement: Any) -> Any:
        from smar.data.transpile import spark_sql

        for name, view in self._views.items():
            self._spark.sql(spark_sql(view, self._variables)).createOrReplaceTempView(name)
        return self._spark.sql(spark_sql(statement, self._variables))

    def _set(self, assignment: Any, parameters: Sequence[object]) -> None:
        from sqlglot import exp

        value = assignment.expression
        if isinstance(value, exp.Placeholder):
            self._variables[assignment.this.name] = parameters[0]
        else:
            self._variables[assignment.this.name] = self._query(value.this).collect()[0][0]

    def _view(self, name: str, path: Path) -> None:
        self._spark.read.parquet(_location(path)).createOrReplaceTempView(name)

    def _write(self, rows: Any, folder: Path) -> None:
        """A folder of parts, whose names rise as the rows do; nothing else stays in it."""
        rows.write.option("compression", "zstd").parquet(_location(folder))
        parts = sorted(folder.glob("part-*.parquet"))
        for file in set(folder.iterdir()) - set(parts):  # _SUCCESS and checksums
            file.unlink()
        for number, part in enumerate(parts):
            part.rename(folder / f"part-{number:05d}.parquet")

    def _read_log(self, name: str, select: str) -> None:
        """The view that DuckDB would make of the log's files, read range by range."""
        from pyspark.sql.pandas.types import from_arrow_schema

        tasks = [select.replace(self._log.raw, part) for part in _parts(self._log)]
        schema = _signed(self._con.sql(f"SELECT * FROM ({select}) LIMIT 0").to_arrow_table().schema)

        def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for task in batch.column(0).to_pylist():
                    for rows in _database().sql(tasks[task]).to_arrow_reader(10_000):
                        yield rows.cast(schema)

        numbers = self._spark.range(0, len(tasks), 1, len(tasks))
        ntz = from_arrow_schema(schema, prefer_timestamp_ntz=True)
        numbers.mapInArrow(read, ntz).createOrReplaceTempView(name)


def _parts(table: Table) -> list[str]:
    """SQL for every range of rows of a table's files."""
    return [
        table.part(file, first, min(first + ROWS, end - start) - 1)
        for file, (_, _, start, end) in enumerate(table.spans())
        for first in range(0, end - start, ROWS)
    ]


def _signed(schema: pa.Schema) -> pa.Schema:
    """Spark has no unsigned numbers."""
    return pa.schema([field.with_type(pa.int16()) if field.type == pa.uint8() else field for field in schema])


def _location(path: Path) -> str:
    from smar.data.transpile import location

    return location(path)
