"""Pair building on a large generated log within ``data.memory_limit``: rows, pairs, time, peak memory.

    python benchmarks/prepare.py [--rows 40000000] [--memory-limit 2GB]

The log is generated with SQL: item and query popularity fall like a power law, one row in five is a click.
The measured part runs in a process of its own, so that its peak memory is its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

ITEMS = 1_000_000
QUERIES = 2_000_000
GENERATE = """
COPY (
    WITH drawn AS (
        SELECT range AS row, hash(3 * range) / 2.0 ** 64 AS a,
               hash(3 * range + 1) / 2.0 ** 64 AS b, hash(3 * range + 2) / 2.0 ** 64 AS c
        FROM range({rows})
    )
    SELECT 'Query ' || CAST(floor({queries} * a * a * a) AS BIGINT) || ' of shop' AS query,
           'item-' || CAST(floor({items} * b * b) AS BIGINT) AS item_id,
           TIMESTAMP '2026-01-01' + to_seconds(CAST(row * (60 * 86400.0 / {rows}) AS BIGINT)) AS timestamp,
           1 + row % 10 AS position, c < 0.36 / (1 + 0.2 * (row % 10)) AS clicked, c < 0.02 AS ordered
    FROM drawn
) TO '{path}' (FORMAT parquet)
"""


def generate(folder: Path, rows: int) -> None:
    with duckdb.connect(":memory:", config={"memory_limit": "2GB", "temp_directory": str(folder)}) as con:
        con.execute("SET preserve_insertion_order = false")
        con.execute(GENERATE.format(rows=rows, queries=QUERIES, items=ITEMS, path=folder / "clicks.parquet"))
        con.execute(
            f"COPY (SELECT 'item-' || range AS item_id, 'Title ' || range AS title FROM range({ITEMS})) "
            f"TO '{folder / 'items.parquet'}' (FORMAT parquet)"
        )


def measure(folder: Path, memory_limit: str) -> None:
    """Run in the child: prepare without pictures, print one line of JSON."""
    from smar.core.sections.data import DataSettings
    from smar.data.prepare import prepare

    started = time.monotonic()
    settings = DataSettings(text_fields=("title",), slice_columns=(), memory_limit=memory_limit)
    paths = [str(folder / "items.parquet")], [str(folder / "clicks.parquet")]
    summary = prepare(settings, *paths, [], [], None, folder / "dataset")
    usage = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "log rows": summary.counts["log_rows"],
        "clicks": summary.counts["clicks"],
        "pairs": sum(summary.counts[f"pairs_{part}"] for part in ("train", "valid", "test")),
        "wall s": round(time.monotonic() - started, 1),
        "of that pair building s": round(summary.seconds["pairs"], 1),
        "CPU s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak RSS GiB": round(usage.ru_maxrss / 2**20, 2),
        "memory_limit": memory_limit,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=40_000_000)
    parser.add_argument("--memory-limit", default="2GB")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder:
        measure(arguments.folder, arguments.memory_limit)
        return
    with tempfile.TemporaryDirectory(prefix="smar-prepare-") as name:
        started = time.monotonic()
        generate(Path(name), arguments.rows)
        print(f"generated a log of {arguments.rows:,} rows in {time.monotonic() - started:.1f} s", flush=True)
        command = [sys.executable, __file__, "--folder", name, "--memory-limit", arguments.memory_limit]
        child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        for key, value in json.loads(child.stdout.splitlines()[-1]).items():
            print(f"{key:<26} {value:,}" if isinstance(value, int) else f"{key:<26} {value}")


if __name__ == "__main__":
    main()
