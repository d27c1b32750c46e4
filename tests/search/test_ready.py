"""Items as ready JSON: what is written is what the twin says, row by row."""

import datetime as dt
import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smar.core.errors import InputError
from smar.search.local.payload import open_payload, write_payload
from smar.search.local.ready import FreshJson, encoded, plain

PLAIN = {
    "item_id": ["b/2", "a\n1", 'c"\\\u2028', "🙂", "\x00"],
    "price": [1.5, float("nan"), None, float("inf"), -0.0],
    "stock": [2**53 + 1, None, -(2**63), 0, 1],
    "new": [True, False, None, True, False],
    "tags": [["x", None], [], None, ["\n"], ["y"]],
    "numbers": [[1.0, float("nan")], None, [], [2.5], [0.1]],
    "brand": pa.array(["A", None, "B", "A", "é"]).dictionary_encode(),
    "nothing": pa.nulls(5),
}
OTHER = {
    "since": [dt.date(2026, 1, 2), None, *[dt.date(1970, 1, 1)] * 3],
    "at": pa.array([dt.datetime(2026, 1, 2, 3, 4, 5, 600), *[None] * 4], pa.timestamp("us", "UTC")),
    "paid": pa.array([Decimal("1.50"), None, *[Decimal("-3.00")] * 3]),
    "size": [{"wide": 1, "high": float("nan")}, None, *[{"wide": 2, "high": 0.5}] * 3],
    "raw": [b"\xff\x00", None, b"", b"abc", b"x"],
}


def twin(value: object) -> object:
    """What the API has always answered."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: twin(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [twin(inner) for inner in value]
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, dt.date | dt.datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


@pytest.mark.parametrize("columns", [PLAIN, PLAIN | OTHER])
def test_every_kind_of_column(columns: dict) -> None:
    table = pa.table(columns)
    lines = b"".join(encoded(table, np.array([True, True, False, True, False]))).split(b"\n")
    assert lines.pop() == b""
    addresses = ["b%2F2", "a%0A1", None, "%F0%9F%99%82", None]
    assert [json.loads(line) for line in lines] == [
        {"item_id": row["item_id"], "picture": at and f"/v1/items/{at}/picture", "item": twin(row)}
        for row, at in zip(table.to_pylist(), addresses, strict=True)
    ]
    assert [plain(row) for row in table.to_pylist()] == [twin(row) for row in table.to_pylist()]


def test_written_and_fresh_agree(tmp_path: Path) -> None:
    table = pa.table(
        {"item_id": [f"{at:05}" for at in range(40_000)][::-1], "title": ["x" * (at % 9) for at in range(40_000)]}
    )
    (tmp_path / "pictures.bin").touch()
    write_payload(pa.concat_tables([table.slice(0, 7), table.slice(7)]), tmp_path)
    stored = open_payload(tmp_path, 40_000, "smar index")
    fresh = FreshJson(table, np.zeros(40_000, np.bool_), kept := {})
    rows = np.random.default_rng(0).integers(0, 40_000, 300)
    rows[5] = rows[6]
    expected = [{"item_id": f"{39_999 - row:05}", "title": "x" * (row % 9)} for row in rows.tolist()]
    assert [json.loads(item)["item"] for item in stored.json(rows)] == expected
    assert fresh(rows) == stored.json(rows)
    assert set(kept) == set(rows.tolist())
    first = fresh(rows)
    assert all(one is other for one, other in zip(first, fresh(rows), strict=True))  # encoded once
    last = b'{"item_id":"00000","picture":null,"item":{"item_id":"00000","title":"xxx"}}'
    assert stored.json(np.array([0, 39_999]))[1] == last
    assert [stored.row_of(f"{at:05}") for at in (0, 1, 39_999)] == [39_999, 39_998, 0]
    assert stored.row_of("no") is None
    with pytest.raises(InputError, match=r"order.npy holds int32 .40000"):
        open_payload(tmp_path, 39_999, "smar index")
