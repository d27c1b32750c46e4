"""The update log of an index beside SQLite with a write-ahead log: acknowledged writes a second, and reading them back.

    python benchmarks/update_log.py [--seconds 3] [--dim 128] [--folder DIR]

Both get the same Arrow record (an upsert of `items` items with their vectors and a picture of 10 kB each) and have it
on disk when a write returns: SQLite with `journal_mode=WAL, synchronous=FULL`. They take turns. Generated data.
"""

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from smar.search.local.updates import FIRST, OpenLog, UpdateLog

TURNS = 3


def upsert(items: int, dim: int) -> pa.Table:
    rng = np.random.default_rng(0)
    columns = {"item_id": [f"item-{at}" for at in range(items)], "title": ["red summer dress of linen"] * items}
    for name in ("__text", "__multimodal"):
        flat = pa.array(rng.standard_normal(items * dim, np.float32))
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, dim)
    return pa.table(columns | {"__picture": [rng.bytes(10_000) for _ in range(items)]})


class Sqlite:
    """One table of records, as the log has them."""

    def __init__(self, path: Path) -> None:
        self.path, self.base = path, sqlite3.connect(path, isolation_level=None)
        self.base.execute("PRAGMA journal_mode=WAL")
        self.base.execute("PRAGMA synchronous=FULL")
        self.base.execute("CREATE TABLE log (id INTEGER PRIMARY KEY, op TEXT, record BLOB)")

    def append(self, op: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        self.base.execute("INSERT INTO log (op, record) VALUES (?, ?)", (op, memoryview(sink.getvalue())))

    def replayed(self) -> int:
        """Rows of all records, by a reader of its own."""
        reader = sqlite3.connect(self.path)
        records = reader.execute("SELECT record FROM log ORDER BY id")
        return sum(batch.num_rows for (record,) in records for batch in pa.ipc.open_stream(pa.py_buffer(record)))


def rate(append: Callable[[str, pa.Table], None], table: pa.Table, seconds: float) -> tuple[int, float, float]:
    """Writes, seconds and CPU seconds."""
    writes, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        append("upsert", table)
        writes += 1
    return writes, time.perf_counter() - started, time.process_time() - cpu


def replayed(log: UpdateLog) -> int:
    return sum(record.batch.num_rows for record in OpenLog(log.path).records(FIRST, log.acknowledged()))


def compare(folder: Path, items: int, dim: int, seconds: float) -> None:
    table = upsert(items, dim)
    folder.mkdir()
    ours, sqlite = UpdateLog(folder), Sqlite(folder / "log.sqlite")
    ours.create()
    rates: dict[str, list[tuple[int, float, float]]] = {"ours": [], "sqlite": []}
    for _ in range(TURNS):
        for name, append in (("ours", ours.append), ("sqlite", sqlite.append)):
            rates[name].append(rate(append, table, seconds))
    for name, replay in (("ours", lambda: replayed(ours)), ("sqlite", sqlite.replayed)):
        (writes, wall, cpu), started = map(sum, zip(*rates[name], strict=True)), time.perf_counter()
        rows = replay()
        spent = time.perf_counter() - started
        each = " ".join(f"{count / second:.0f}" for count, second, _ in rates[name])
        print(
            f"{items:>5} items a write, {name:<6} {writes / wall:6.0f} writes/s (turns {each}),"
            f" CPU {1e3 * cpu / writes:5.2f} ms each;"
            f" {rows:,} rows read back in {spent:.2f} s, {rows / spent:,.0f} a second",
            flush=True,
        )
        assert rows == writes * items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; a temporary one by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smar-log-", dir=arguments.folder) as folder:
        for items in (1, 100):
            compare(Path(folder) / str(items), items, arguments.dim, arguments.seconds)


if __name__ == "__main__":
    main()
