"""Small tables and pictures for the tests of smar.data."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from smar.core.sections.data import DataSettings
from smar.data.prepare import PrepareSummary, prepare

Row = dict[str, Any]
START = datetime(2026, 1, 1)


def write_table(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows (dicts with the same keys) in the format of the file's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def items(count: int = 4, **columns: Any) -> list[Row]:
    return [{"item_id": f"i{n}", "title": f"title {n}", **columns} for n in range(count)]


def click(query: str, item_id: Any, day: float, clicked: Any = True, **columns: Any) -> Row:
    when = START + timedelta(days=day)
    return {"query": query, "item_id": item_id, "timestamp": when, "clicked": clicked, **columns}


def log() -> list[Row]:
    """Ten days: two train days, a click on the 8.75th (valid with shares 0.2) and two on the last."""
    return [
        click("red dress", "i0", 0),
        click("red dress", "i1", 0, False),
        click("blue  Shoe", "i1", 1),
        click("hat", "i2", 7.5),
        click("red dress", "i0", 9),
        click("hat", "i3", 10),
    ]


def settings(**changes: Any) -> DataSettings:
    """Quick settings for tables that have no category and no brand."""
    quick = {
        "text_fields": ("title",),
        "slice_columns": (),
        "image_size": 16,
        "workers": 1,
        "valid_share": 0.2,
    }
    return DataSettings(**{**quick, **changes})


def run(
    folder: Path,
    item_rows: Any,
    click_rows: Any,
    images: Any = (),
    queries: Any = (),
    test_from: Any = None,
    **changes: Any,
) -> PrepareSummary:
    """Prepare into folder/out; rows are written as Parquet first, strings are taken as paths."""

    def paths(name: str, rows: Any) -> list[str]:
        if isinstance(rows, str | Path):
            return [str(rows)]
        return [str(write_table(folder / f"{name}.parquet", rows))] if rows else []

    tables = [paths(*pair) for pair in (("items", item_rows), ("clicks", click_rows), ("images", images))]
    return prepare(settings(**changes), *tables, paths("queries", queries), test_from, folder / "out")


def read(folder: Path, name: str) -> list[Row]:
    rows: list[Row] = pq.read_table(folder / "out" / name).to_pylist()
    return rows


def rejects(folder: Path) -> list[tuple[str, int, str, str]]:
    return [(r["table"], r["row"], r["key"], r["reason"]) for r in read(folder, "rejects.parquet")]


def picture(
    colour: Any = "red", size: tuple[int, int] = (40, 30), kind: str = "JPEG", mode: str = "RGB", **save: Any
) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, colour).save(buffer, kind, **save)
    return buffer.getvalue()
