"""One table, one meaning: whatever file a table came in, the dataset and the index's columns are the same."""

import csv
import json
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from shop_tables import click, log, run

from smar.search.local.payload import write_payload

Column = tuple[pa.DataType, st.SearchStrategy[Any]]
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8) | st.sampled_from(
    ["007", "1e5", "1_000", "12E2", "38.5", "TRUE", "-", 'a "b" c', "a,b;c\td", "line\nbreak", "红色连衣裙", "शर्ट",
     "قميص", "NaN", "null", "03/04/2025", "1,299", "0x1F", " x ", "R&D", "a < b", "\\N", "'", "#"]
)  # fmt: skip
ZONES = [UTC, timezone(timedelta(hours=2)), timezone(-timedelta(hours=9, minutes=30))]
MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2090, 1, 1))
COLUMNS: dict[str, Column] = {
    "name": (pa.string(), TEXT),
    "whole": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "small": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "size": (pa.float64(), st.decimals(-9999, 9999, places=3).map(float).filter(lambda x: x == 0 or abs(x) >= 0.001)),
    "price": (pa.float64(), st.decimals(0, 9999, places=2).map(float)),
    "ratio": (pa.float64(), st.floats(0.001, 1e15, allow_nan=False)),
    "new": (pa.bool_(), st.booleans()),
    "since": (pa.date32(), st.dates(date(1900, 1, 1), date(2100, 1, 1))),
    "seen": (pa.timestamp("us"), MOMENTS),
    "zoned": (pa.timestamp("us", "UTC"), st.builds(lambda t, z: t.replace(tzinfo=z), MOMENTS, st.sampled_from(ZONES))),
}
CODES = st.sampled_from(["007", "1e5", "1_000", "12E2", "0012", "1E3"])


@st.composite
def tables(draw: st.DrawFn) -> list[dict[str, Any]]:
    count = draw(st.integers(1, 8))
    columns = {name: draw(st.lists(st.none() | values, min_size=count, max_size=count))
               for name, (_, values) in COLUMNS.items()}  # fmt: skip
    columns["code"] = draw(st.lists(CODES, min_size=count, max_size=count))
    return [
        {"item_id": f"i{n}", "title": f"title {n}", **{name: values[n] for name, values in columns.items()}}
        for n in range(count)
    ]


def declared(rows: list[dict[str, Any]]) -> dict[str, str]:
    """What a text file cannot tell: texts that all look like something else, and columns without any value."""
    kinds = {pa.string(): "text", pa.int64(): "integer", pa.int16(): "integer", pa.float64(): "number",
             pa.bool_(): "boolean", pa.date32(): "date"}  # fmt: skip
    types = {"name": "text"}
    for name, (kind, _) in COLUMNS.items():
        if all(row[name] is None for row in rows):
            types[name] = kinds.get(kind, "timestamp")
    return types


def written(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | datetime) else value


def write(folder: Path, name: str, suffix: str, rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
    elif suffix == "jsonl":
        lines = (json.dumps({key: written(value) for key, value in row.items()}, ensure_ascii=False) for row in rows)
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if suffix == "tsv" else ",")
            writer.writeheader()
            writer.writerows([{key: written(value) for key, value in row.items()} for row in rows])
    return str(path)


SCHEMA = pa.schema({"item_id": pa.string(), "title": pa.string(), **{n: kind for n, (kind, _) in COLUMNS.items()},
                    "code": pa.string()})  # fmt: skip


@hypothesis_settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(tables())
def test_formats_give_the_same_dataset(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("formats")
    clicks = [*log(), *[click("sofa", f"i{n % len(rows)}", n) for n in range(11)]]
    seen: dict[str, Any] = {}
    queries = pa.schema({"query": pa.string(), **{n: kind for n, (kind, _) in COLUMNS.items()}})
    for suffix in ("parquet", "csv", "tsv", "jsonl"):
        asked = [{"query": f"sofa {row['item_id']}", **{n: row[n] for n in COLUMNS}} for row in rows]
        run(
            folder / suffix,
            write(folder / suffix, "items", suffix, rows, SCHEMA),
            write(folder / suffix, "clicks", suffix, clicks),
            queries=write(folder / suffix, "queries", suffix, asked, queries),
            types=declared(rows),
        )
        out = folder / suffix / "out"
        files = ["items", "queries", "rejects", "pairs/train", "pairs/valid", "pairs/test", "qrels"]
        seen[suffix] = {name: pq.read_table(out / f"{name}.parquet") for name in files}
        write_payload(seen[suffix]["items"], out)  # what the index keeps of them
        with pa.ipc.open_file(out / "payload.arrow") as kept:
            seen[suffix]["index"] = kept.read_all()
    for suffix in ("csv", "tsv", "jsonl"):
        for name, table in seen["parquet"].items():
            mine, theirs = (dict(zip(t.column_names, t.schema.types, strict=True)) for t in (seen[suffix][name], table))
            assert list(mine.items()) == list(theirs.items()), (suffix, name)
            assert seen[suffix][name].to_pylist() == table.to_pylist(), (suffix, name)
    kept = seen["csv"]["items"].to_pylist()
    for row, one in zip(rows, kept, strict=True):
        for name in ("whole", "small", "size", "price", "new", "since", "seen", "code", "name"):
            assert one[name] == row[name], name
        assert one["zoned"] == (row["zoned"] and row["zoned"].astimezone(UTC).replace(tzinfo=None))
