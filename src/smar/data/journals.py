"""The journals of `smar serve --events`, and the Parquet parts that they become; `smar.data.event_tables` reads these.

A worker appends JSON lines to a journal of its own, and tells nobody before they are on disk. A journal is *sealed*,
turned into parts of its name, when it is large or old, when its worker ends, and, where that was killed, when another
one starts. Sealed again it gives the same files again, so that nothing is there twice.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import json as arrow_json

from smar.core.errors import InputError
from smar.core.files import atomic, make_writable, sync_folder

ACTIONS = ("impression", "click", "cart", "order")
"""What may happen to an item that a search found."""
SEARCHED = "query"
"""In a journal, the action of a search that was answered."""
JOURNAL = ".journal"


def _text(*names: str) -> list[tuple[str, pa.DataType]]:
    return [(name, pa.string()) for name in names]


EVENTS = pa.schema(
    [
        ("timestamp", pa.timestamp("us", "UTC")),
        *_text("action_name", "query_id", "session_id", "client_id", "object_id"),
        ("position", pa.int32()),
        *_text("query", "variant", "application", "message_type", "message", "object_id_field"),
    ]
)
"""Columns of `events-*.parquet`, one row an event."""
QUERIES = pa.schema(
    [
        ("timestamp", pa.timestamp("us", "UTC")),
        *_text("query_id", "session_id", "query", "variant", "mode", "filter"),
        *((name, pa.int32()) for name in ("offset", "hits", "total")),
        ("image_probability", pa.float32()),
        ("routed", pa.bool_()),
    ]
)
"""Columns of `queries-*.parquet`, one row a search that was answered."""
_NAMES = ["query_id", "query", "variant"]
_LATEST = 32
_LINE = {field.name: field.type for schema in (EVENTS, QUERIES) for field in schema} | {"timestamp": pa.int64()}
_PARSE = arrow_json.ParseOptions(explicit_schema=pa.schema(list(_LINE.items())))
_READ = arrow_json.ReadOptions(use_threads=False)  # searches need the other cores
logger = logging.getLogger("smar.events")


def make_folder(folder: Path) -> None:
    """Make the folder of events where it is not there; raises InputError where nothing can be written into it."""
    try:
        make_writable(folder)
    except OSError as error:
        raise InputError(f"--events {folder} cannot be written: {error.strerror}.") from None


def new_journal(folder: Path) -> Path:
    """A name for a journal that no other has; names sort by time."""
    return folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.urandom(4).hex()}{JOURNAL}"


def lock(file: int) -> bool:
    """Take a journal for this process, which has it until it closes the file or dies; False where another has it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def recover(folder: Path) -> int:
    """Seal the journals of processes that have ended; returns how many. Several processes may do so at a time."""
    sealed = 0
    for journal in sorted(folder.glob(f"*{JOURNAL}")):
        try:
            file = os.open(journal, os.O_RDONLY)
        except FileNotFoundError:  # another process was quicker
            continue
        try:
            if lock(file) and journal.exists():
                seal(journal)
                sealed += 1
        finally:
            os.close(file)
    return sealed


def seal(journal: Path) -> None:
    """Turn a journal whose lock is held into parts, and remove it. Another crash in between does no harm."""
    lines = _lines(journal)
    if lines is not None:
        asked = pc.equal(lines["action_name"], SEARCHED)
        searches = lines.filter(asked).select(QUERIES.names).cast(QUERIES)
        happened = lines.filter(pc.invert(asked)).select(EVENTS.names).cast(EVENTS)
        known = pa.concat_tables([searches.select(_NAMES), *_others(journal, happened["query_id"])])
        for kind, table in (("queries", searches), ("events", _told(happened, known))):
            if len(table):
                with atomic(journal.with_name(f"{kind}-{journal.stem}.parquet")) as partial:
                    pq.write_table(table, partial, compression="zstd")
        sync_folder(journal.parent)
    journal.unlink()


def _told(events: pa.Table, searches: pa.Table) -> pa.Table:
    """Events with the words and the variant of their search, where that is known; readers look further."""
    at = pc.index_in(events["query_id"], value_set=searches["query_id"])
    for name in ("query", "variant"):
        found = pc.coalesce(events[name], searches[name].take(at))
        events = events.set_column(events.schema.get_field_index(name), EVENTS.field(name), found)
    return events


def _others(journal: Path, wanted: pa.ChunkedArray) -> Iterator[pa.Table]:
    """Searches of these ids in the journals of other workers and in the latest parts; any may go away meanwhile."""
    ids, folder = pc.unique(wanted), journal.parent
    parts = sorted(folder.glob("queries-*.parquet"))[-_LATEST:]
    for file in (*folder.glob(f"*{JOURNAL}"), *parts):
        with contextlib.suppress(FileNotFoundError):
            if file.suffix != JOURNAL:
                yield pq.read_table(file, columns=_NAMES, filters=pc.field("query_id").isin(ids))
            elif file != journal and (lines := _lines(file)) is not None:
                lines = lines.filter(pc.equal(lines["action_name"], SEARCHED)).select(_NAMES)
                yield lines.filter(pc.is_in(lines["query_id"], value_set=ids))


def _lines(journal: Path) -> pa.Table | None:
    """What a journal holds; a last line that was not finished was told to nobody."""
    content = journal.read_bytes()
    content = content[: content.rfind(b"\n") + 1]
    if not content:
        return None
    try:
        return arrow_json.read_json(pa.BufferReader(content), _READ, _PARSE)
    except pa.ArrowInvalid:
        whole = [line for line in content.splitlines(keepends=True) if _whole(line)]
        logger.warning("%s: %d lines are damaged and left out", journal, content.count(b"\n") - len(whole))
        return arrow_json.read_json(pa.BufferReader(b"".join(whole)), _READ, _PARSE) if whole else None


def _whole(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except msgspec.DecodeError:
        return False
