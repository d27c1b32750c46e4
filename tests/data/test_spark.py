"""`--engine spark` against DuckDB: pairs, qrels and rejects are equal in value, type and order."""

import json
import math
import os
import random
import shutil
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop_tables import START, items, settings, write_table

from smar.cli import main
from smar.core.errors import InputError
from smar.data.dataset import Dataset
from smar.data.prepare import prepare
from smar.demo.shop import generate_shop

pytestmark = pytest.mark.cluster
ROWS = 2000
QUICK = {
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
"""A JVM that lives for a minute compiles little."""
QUERIES = (
    *("red dress", "Red  DRESS", " red\u00a0dress\u200b", "RED\tdress\x0b", "crème brûlée", "CRE\u0300ME BRU\u0302LÉE"),
    *("Straße", "STRASSE", "ﾍﾟｯﾄ", "İstanbul", "😀 socks", "nike™", "1½ inch", "\u2003", "\u200b\ufeff", "", None),
    *(
        "q" * 1000,
        "q" * 1001,
        "é" * 1000,
        "quote ' and \\ and `tick`",
        "a\nb",
        "\x1f",
        "z'); DROP TABLE item; --",
        "\U0001d173",
    ),
)
IDS = ("i0", "i1", "i2", "i3", "é 4", "", " i0", "I0", None, "nobody", "💥" * 300, "x" * 250)
TIMES = (
    *(
        "2026-01-02T10:00:00+02:00",
        "2026-01-02 10:00:00-11:30",
        "2026-01-02T10:00:00Z",
        "2026-01-02 10:00:00.123456789",
    ),
    *("2026-01-03", "20260104", "1767500000", "1767500000123", "1767500000.25", " 2026-01-05 ", "2026-1-6", "infinity"),
    *(
        "2026-13-01",
        "yesterday",
        "12:30",
        "2026",
        "",
        None,
        "2026-03-29 02:30:00 Europe/Berlin",
        "99999999999999999999",
    ),
    *("2026-01-02T24:00:00", "2026-01-02 10:00:60", "epoch", "-infinity", "1e9", "2026-01-02 10:00 PM"),
)
FLAGS = ("true", "true", "true", "1", "yes", "t", "false", "0", "no", "", None, "maybe", "2", "nan", "TRUE ")
POSITIONS = (
    "1",
    "2",
    "3",
    "2",
    "1",
    "3.0",
    "1e3",
    "2.5",
    "nan",
    "inf",
    "-1",
    "",
    None,
    "9223372036854775807",
    "1e300",
    "٣",
)
WEIGHTS = (1.0, 0.1, 1 / 3, 1e-6, 9.9e-7, 1e12, 1.0000001e12, 123456789012.345678, 1.2345678905, 2.5e-9, 1e300)
WEIGHTS_ODD = (*WEIGHTS, 5e11 / 3, math.nan, math.inf, -1.0, 0.0, None)


@pytest.fixture(scope="module", autouse=True)
def spark() -> Iterator[Any]:
    """One session for all tests; `prepare` takes what runs and leaves it running."""
    if shutil.which("java") is None:
        pytest.skip("needs Java")
    sql = pytest.importorskip("pyspark.sql")
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    for name, value in QUICK.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


def hostile(columns: dict[str, tuple[Any, ...]], seed: int) -> list[dict[str, Any]]:
    """Rows of which half are good, so that many are kept, and half draw every cell from the odd values."""
    chance = random.Random(seed)
    good = {"item_id": IDS[:5], "query": QUERIES[:9], "clicked": FLAGS[:4], "position": POSITIONS[:5]}
    rows = []
    for _ in range(ROWS):
        odd = chance.random() < 0.5
        row = {name: chance.choice(values if odd else good.get(name, values)) for name, values in columns.items()}
        if "timestamp" in columns and not odd:
            row["timestamp"] = str(START + timedelta(seconds=chance.randrange(10**6)))
        rows.append(row)
    return rows


def catalogue(folder: Path) -> Path:
    rows = [
        *items(4),
        {"item_id": "é 4", "title": "é"},
        {"item_id": "i0", "title": "again"},
        {"item_id": "", "title": "x"},
    ]
    return write_table(folder / "items.parquet", [*rows, {"item_id": "i9", "title": " "}])


def same(folder: Path, clicks: Any, catalogue: Path, **changes: Any) -> Dataset:
    """Both engines' datasets are equal; returns Spark's."""
    queries = changes.pop("queries", ())
    made = {}
    for engine in ("duckdb", "spark"):
        out = folder / engine
        done = prepare(settings(suggest_from=3, **changes), catalogue, clicks, queries=queries, out=out, engine=engine)
        made[engine] = Dataset.open(out), done
    (ours, expected), (spark, got) = made["duckdb"], made["spark"]
    for part in ("train", "valid", "test"):
        assert_equal(spark.pairs(part), ours.pairs(part))
    assert_equal(spark.qrels(), ours.qrels())
    assert_equal(spark.rejects(), ours.rejects())
    found, expected_found = spark.suggestions(), ours.suggestions()
    assert found is not None
    assert expected_found is not None
    assert_equal(found, expected_found)
    assert spark.items.equals(ours.items)
    assert (got.counts, got.rejects, got.notes) == (expected.counts, expected.rejects, expected.notes)
    assert (got.test_from, got.valid_from) == (expected.test_from, expected.valid_from)
    return spark


def assert_equal(got: pa.Table, expected: pa.Table) -> None:
    assert [(field.name, field.type) for field in got.schema] == [(field.name, field.type) for field in expected.schema]
    for place, (one, other) in enumerate(zip(got.to_pylist(), expected.to_pylist(), strict=False)):
        assert one == other, place
    assert len(got) == len(expected)


def test_a_hostile_log(tmp_path: Path) -> None:
    columns = {"query": QUERIES, "item_id": IDS, "timestamp": TIMES, "clicked": FLAGS, "position": POSITIONS}
    rows = hostile(columns | {"ordered": FLAGS, "user_id": ("u1", "u2", "u3", "é", "", None)}, 1)
    files = [write_table(tmp_path / "log" / f"{n}.csv", rows[n::2]) for n in range(2)]
    made = same(tmp_path, files, catalogue(tmp_path), date_format="%Y-%m-%d %H:%M:%S", position_bias=True)
    parts = [path for path in made.manifest.files if path.startswith("pairs/train.parquet/")]
    assert len(made.suggestions() or ()) > 3
    assert parts[0] == "pairs/train.parquet/part-00000.parquet"
    assert not [path for path in made.manifest.files if "SUCCESS" in path or path.endswith(".crc")]
    reasons = {row["reason"] for row in made.rejects().to_pylist() if row["table"] == "clicks"}
    assert {"no query", "query too long", "no item_id", "unknown item", "no readable timestamp"} < reasons
    assert {"position is not a whole number", "clicked is neither true nor false"} < reasons


def test_typed_files_of_two_schemas(tmp_path: Path) -> None:
    """Times with zones, nanoseconds and epochs; a column that one file lacks; repeats dropped."""
    chance = random.Random(2)
    moments = [START + timedelta(microseconds=chance.randrange(10**12)) for _ in range(ROWS)]
    table = {
        "query": [f"{chance.choice(QUERIES[:9])} {chance.randrange(100)}" for _ in moments],
        "item_id": [chance.choice(IDS[:5]) for _ in moments],
        "clicked": [chance.choice((True, True, False, None)) for _ in moments],
    }
    zoned = pa.table(table | {"timestamp": pa.array(moments, pa.timestamp("us", "Europe/Berlin"))})
    position = pa.array([chance.choice((1, 2, 3, 2**63, None)) for _ in moments], pa.uint64())
    nanos = pa.table(table | {"timestamp": pa.array(moments, pa.timestamp("ns")), "position": position})
    folder = tmp_path / "log [1] {a}"
    folder.mkdir()
    pq.write_table(zoned, folder / "a.parquet", row_group_size=300)
    pq.write_table(nanos, folder / "b.parquet", row_group_size=700)
    made = same(tmp_path, [folder / "a.parquet", folder / "b.parquet"], catalogue(tmp_path), repeat_pairs="drop")
    assert made.manifest.counts["dropped_clicks"]


def test_a_table_of_pairs_is_drawn(tmp_path: Path) -> None:
    rows = hostile({"query": QUERIES, "item_id": IDS, "weight": WEIGHTS_ODD}, 3)
    made = same(tmp_path, write_table(tmp_path / "pairs.parquet", rows), catalogue(tmp_path), test_share=0.3)
    assert len(made.pairs("valid"))


def test_a_judged_table_with_parts(tmp_path: Path) -> None:
    columns = {"query": QUERIES, "item_id": IDS, "relevance": (0, 1, 2, 3, -1, 2.5, 11, None, math.nan)}
    rows = hostile(columns | {"split": ("train", "Training", "test", "TEST ", "dev?", None), "weight": WEIGHTS}, 4)
    attributes = write_table(tmp_path / "queries.jsonl", [{"query": query, "kind": 1} for query in QUERIES[:6]])
    pairs = write_table(tmp_path / "pairs.parquet", rows)
    made = same(tmp_path, pairs, catalogue(tmp_path), queries=attributes)
    assert set(made.qrels()["relevance"].to_pylist()) == {0, 1, 2, 3}


def test_the_generated_shop_by_command(tmp_path: Path) -> None:
    shop = tmp_path / "shop"
    generate_shop(shop, items=120, searches=1500)
    command = ["prepare", "--items", str(shop / "items.parquet"), "--clicks", str(shop / "clicks.parquet")]
    command += ["--set", "data.slice_columns=[group,category]", "--set", "data.image_size=16"]
    assert main([*command, "--out", str(tmp_path / "duckdb")]) == 0
    assert main([*command, "--out", str(tmp_path / "spark"), "--engine", "spark", "--spark-master", "local[2]"]) == 0
    ours, made = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("duckdb", "spark"))
    assert made["counts"] == ours["counts"]
    for file in ("items.parquet", "images.npy", "pictures.bin", "images.parquet"):
        assert made["files"][file] == ours["files"][file]
    for name in ("pairs/train", "pairs/valid", "pairs/test", "qrels", "suggestions", "rejects"):
        assert_equal(
            pq.read_table(tmp_path / f"spark/{name}.parquet"), pq.read_table(tmp_path / f"duckdb/{name}.parquet")
        )


def test_messages_are_the_same(tmp_path: Path) -> None:
    """A log that cannot be used ends as it does without Spark, and leaves nothing behind."""
    for rows in (
        [{"query": "a", "item_id": "zz"}],
        [{"query": "a", "item_id": "i0", "timestamp": "x", "clicked": True}],
    ):
        said = []
        for engine in ("duckdb", "spark"):
            with pytest.raises(InputError) as error:
                prepare(
                    settings(),
                    catalogue(tmp_path),
                    write_table(tmp_path / "log.csv", rows),
                    out=tmp_path / "no",
                    engine=engine,
                )
            said.append(str(error.value))
        assert said[0] == said[1]
    assert not list(tmp_path.glob("no*"))
