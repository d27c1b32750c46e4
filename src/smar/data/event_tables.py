"""Events of shoppers, read: the folder that `smar serve --events` fills (docs/events.md), as SQL views and as a log."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.data.database import Connection, copy, literal, number, quote, script
from smar.data.journals import ACTIONS, EVENTS, JOURNAL, QUERIES

UBI = {"clicks": {"action_name", "query_id", "event_attributes"}, "queries": {"query_id", "user_query"}}
"""Columns by which tables of User Behavior Insights are known."""
_FIRST_LINE = 1 << 20
_TYPES = {"string": "VARCHAR", "int32": "INTEGER", "float": "FLOAT", "bool": "BOOLEAN"}


def event_folders(sources: Sequence[object]) -> list[str | Path]:
    """The folders among the sources of a log that `smar serve --events` filled; raises InputError beside others."""
    found = [one for one in sources if isinstance(one, str | Path) and _is_events(Path(one))]
    if found and len(found) < len(sources):
        raise InputError(f"--clicks: {found[0]} holds events of `smar serve`; give such folders only, or none.")
    return found


def _is_events(folder: Path) -> bool:
    try:
        return folder.is_dir() and any(any(folder.glob(pattern)) for pattern in ("events-*.parquet", f"*{JOURNAL}"))
    except OSError:  # told by who reads it
        return False


def first_columns(sources: Sequence[object]) -> set[str]:
    """Names of the columns in the first file of a table, where that is Parquet or JSON lines of this machine."""
    source = next((one for one in sources if isinstance(one, str | Path)), "")
    try:
        path = Path(source)
        file = next((one for one in sorted(path.iterdir()) if one.is_file()), path) if path.is_dir() else path
        if file.suffix in (".parquet", ".pq"):
            return set(pq.read_schema(file).names)
        if file.suffix in (".jsonl", ".ndjson"):
            with file.open("rb") as lines:
                return set(msgspec.json.decode(lines.readline(_FIRST_LINE), type=dict[str, msgspec.Raw]))
    except (OSError, ValueError):  # an address, a pattern, a broken file: told by who reads it
        pass
    return set()


def open_events(con: Connection, folders: Sequence[StrPath]) -> None:
    """Create the SQL views ``event`` and ``searched``, of the columns `EVENTS` and `QUERIES`, over some folders.

    An event has the words and the variant of its search, wherever in the folders that is. Times are in UTC,
    without a zone.

    >>> import tempfile
    >>> from smar.data.journals import new_journal, seal
    >>> journal = new_journal(Path(tempfile.mkdtemp()))
    >>> line = '{"action_name": "click", "query_id": "q", "object_id": "i1", "timestamp": 0}'
    >>> _ = journal.write_bytes(line.encode() + bytes([10]))
    >>> seal(journal)
    >>> with duckdb.connect(":memory:") as con:
    ...     open_events(con, [journal.parent])
    ...     con.execute("SELECT action_name, count(*) FROM event GROUP BY ALL").fetchall()
    [('click', 1)]

    Raises:
        InputError: a folder has no events, or a file cannot be read or has other columns.
    """
    for folder in folders:
        if not _parts(folder, "events"):
            waiting = " What a running service was told lately is not in parts yet." if _is_events(Path(folder)) else ""
            raise InputError(f"{folder} holds no events-*.parquet, as `smar serve --events` writes them.{waiting}")
    con.execute("SET TimeZone = 'UTC'")
    try:
        _view(con, "told", EVENTS, [file for folder in folders for file in _parts(folder, "events")])
        _view(con, "searched", QUERIES, [file for folder in folders for file in _parts(folder, "queries")])
        con.execute(script("events"))
    except duckdb.Error as error:
        raise InputError(f"{', '.join(map(str, folders))}: the events cannot be read ({error}).") from None


def _parts(folder: StrPath, kind: str) -> list[Path]:
    return sorted(Path(folder).glob(f"{kind}-*.parquet"))


def _view(con: Connection, name: str, schema: pa.Schema, files: Sequence[Path]) -> None:
    """Columns that a part lacks are null, and those that nobody knows are not seen."""
    columns = ", ".join(f"NULL::{_sql(field.type)} AS {quote(field.name)}" for field in schema)
    empty = f"SELECT {columns} WHERE false"
    read = f" UNION ALL BY NAME SELECT * FROM read_parquet([{', '.join(map(literal, files))}], union_by_name = true)"
    names = ", ".join(f"{quote(name)}{'::TIMESTAMP' * (name == 'timestamp')} AS {quote(name)}" for name in schema.names)
    con.execute(f"CREATE TEMP VIEW {name} AS SELECT {names} FROM ({empty}{read if files else ''})")


def _sql(kind: pa.DataType) -> str:
    return _TYPES.get(str(kind), "TIMESTAMPTZ")


def write_log(folders: Sequence[StrPath], out: Path) -> list[str]:
    """Write events as the log that `smar prepare` reads: a row for each item that a search showed or led to.

    Its columns: query, item_id, timestamp, clicked, ordered, position (where the item was shown).

    Returns:
        What the user should know, one sentence each.

    Raises:
        InputError: as `open_events`.
    """
    with duckdb.connect(":memory:") as con:
        open_events(con, folders)
        copy(con, script("events_log"), out)
        strange = number(con, "SELECT count(*) FROM event WHERE coalesce(query, '') = ''")
        rows = number(con, "SELECT count(*) FROM event")
    if strange == rows:
        raise InputError(f"{', '.join(map(str, folders))}: none of the {rows:,} events tells what was searched for.")
    known = ", ".join(ACTIONS)
    said = [f"clicks: {rows:,} events ({known}) are read as one row for each item of a search"]
    if strange:
        said.append(f"clicks: {strange:,} events of searches without words, or that the folder does not hold, left out")
    return said
