import hashlib
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from shop_tables import START, click, items, log, read, rejects, run, write_table

from smar.core.errors import InputError
from smar.data import clicks as clicks_module
from smar.data.text import normalise

PARTS = ("train", "valid", "test")
Pair = tuple[str, int]


def split(folder: Path) -> dict[str, dict[Pair, dict[str, Any]]]:
    return {
        part: {(row["query"], row["item_index"]): row for row in read(folder, f"pairs/{part}.parquet")}
        for part in PARTS
    }


def twin(rows: list[dict[str, Any]], test_from: datetime, valid_from: datetime, order_weight: float, top: float) -> Any:
    """The slow, obvious way to the same pairs."""
    known = {f"i{n}": n for n in range(4)}
    good = [row for row in rows if row["query"].strip() and row["item_id"] in known]
    shown, clicked = defaultdict(int), defaultdict(int)
    for row in good:
        if row["timestamp"] < test_from and row["position"] is not None:
            shown[row["position"]] += 1
            clicked[row["position"]] += row["clicked"] or row["ordered"]
    rate = {position: clicked[position] / shown[position] for position in shown if clicked[position]}
    parts: Any = {part: {} for part in PARTS}
    for row in good:
        if not (row["clicked"] or row["ordered"]):
            continue
        part = "test" if row["timestamp"] >= test_from else "valid" if row["timestamp"] >= valid_from else "train"
        key = normalise(row["query"]), known[row["item_id"]]
        pair = parts[part].setdefault(key, {"clicks": 0, "orders": 0, "weight": 0.0, "times": []})
        bias = min(rate[min(rate)] / rate[row["position"]], top) if row["position"] in rate else 1.0
        pair["clicks"] += 1
        pair["orders"] += row["ordered"]
        pair["weight"] += bias * (1 + order_weight * row["ordered"])
        pair["times"].append(row["timestamp"])
    mean = sum(pair["weight"] for pair in parts["train"].values()) / max(1, len(parts["train"]))
    for part in PARTS:
        for key, pair in parts[part].items():
            pair["weight"] /= mean
            pair["seen"] = part != "train" and key in parts["train"]
    return parts


EVENTS = st.builds(
    lambda query, item, hour, clicked, ordered, position: click(
        query, f"i{item}", hour / 24, clicked, ordered=ordered, position=position
    ),
    st.sampled_from(["red dress", "Red  DRESS ", "hat", "x", " ", "é", "é"]),
    st.integers(0, 5),
    st.integers(0, 239),
    st.booleans(),
    st.sampled_from([False, False, False, True]),
    st.sampled_from([None, 1, 2, 3, 7]),
)


@hypothesis_settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(EVENTS, max_size=40), st.sampled_from([0.0, 2.0]), st.sampled_from([1.0, 3.0]))
def test_pairs_weights_and_split_equal_the_twin(
    tmp_path_factory: pytest.TempPathFactory, events: list[dict[str, Any]], order_weight: float, top: float
) -> None:
    folder = tmp_path_factory.mktemp("twin")
    fixed = [click("hat", "i0", day, ordered=False, position=1) for day in (0.0, 8.5, 9.5)]
    rows = [*fixed, *events]
    summary = run(
        folder, items(), rows, test_from=date(2026, 1, 10), order_weight=order_weight, max_position_weight=top
    )
    everything = twin(rows, datetime.max, datetime.max, order_weight, top)["train"].values()
    first = min(moment for pair in everything for moment in pair["times"])
    test_from = datetime(2026, 1, 10)
    valid_from = test_from - (test_from - first) * 0.2
    assert summary.valid_from == valid_from
    expected, seen = twin(rows, test_from, valid_from, order_weight, top), split(folder)
    for part in PARTS:
        assert seen[part].keys() == expected[part].keys()
        for key, row in seen[part].items():
            pair = expected[part][key]
            assert (row["clicks"], row["orders"]) == (pair["clicks"], pair["orders"])
            assert (row["first_click"], row["last_click"]) == (min(pair["times"]), max(pair["times"]))
            assert row["weight"] == pytest.approx(pair["weight"], rel=1e-5)
            assert row["seen_in_train"] == pair["seen"]
    judged = {(row["query"], row["item_id"]): row["relevance"] for row in read(folder, "qrels.parquet")}
    assert judged == {(q, f"i{n}"): 2 if p["orders"] else 1 for (q, n), p in expected["test"].items()}
    touched = {n for _, n in expected["train"]}
    assert [row["clicked_in_train"] for row in read(folder, "items.parquet")] == [n in touched for n in range(4)]


def test_columns_and_types_are_as_agreed(tmp_path: Path) -> None:
    run(tmp_path, items(), log())
    schema = pq.read_schema(tmp_path / "out" / "pairs" / "train.parquet")
    assert [(field.name, str(field.type)) for field in schema] == [
        ("query", "string"), ("item_index", "int32"), ("clicks", "int32"), ("orders", "int32"), ("weight", "float"),
        ("first_click", "timestamp[us]"), ("last_click", "timestamp[us]"), ("seen_in_train", "bool"),
    ]  # fmt: skip


def test_default_split_is_the_end_of_the_time_range(tmp_path: Path) -> None:
    summary = run(tmp_path, items(), log(), test_share=0.2)
    assert summary.test_from == START + timedelta(days=8)
    assert summary.valid_from == START + timedelta(days=6.4)
    assert {part: len(rows) for part, rows in split(tmp_path).items()} == {"train": 2, "valid": 1, "test": 2}
    assert (summary.counts["seen_in_train"], summary.counts["clicks"]) == (1, 5)


def test_repeats_can_be_dropped(tmp_path: Path) -> None:
    summary = run(tmp_path, items(), log(), test_share=0.2, repeat_pairs="drop")
    assert set(split(tmp_path)["test"]) == {("hat", 3)}
    assert (summary.counts["seen_in_train"], summary.counts["dropped_clicks"]) == (0, 1)


def test_borders_as_date_time_and_zone(tmp_path: Path) -> None:
    zoned = datetime(2026, 1, 9, 2, tzinfo=UTC).astimezone()
    for number, border in enumerate((date(2026, 1, 9), datetime(2026, 1, 9), zoned - timedelta(hours=2))):
        summary = run(tmp_path / str(number), items(), log(), test_from=border)
        assert summary.test_from == datetime(2026, 1, 9)


def test_a_date_that_leaves_a_part_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test period holds no click.*from 2026-01-01 .* to 2026-01-11 .*earlier"):
        run(tmp_path, items(), log(), test_from=date(2027, 1, 1))
    with pytest.raises(InputError, match=r"no click is left for training.*from 2026-01-01"):
        run(tmp_path, items(), log(), test_from=date(2025, 1, 1))
    with pytest.raises(InputError, match="no click is left for training"):
        run(tmp_path, items(), [click("hat", "i0", 1)])


def test_an_empty_validation_period_takes_the_last_click(tmp_path: Path) -> None:
    summary = run(tmp_path, items(), log(), test_from=date(2026, 1, 9), valid_share=0.001)
    assert {part: len(rows) for part, rows in split(tmp_path).items()} == {"train": 2, "valid": 1, "test": 2}
    assert any("validation starts at" in note for note in summary.notes)
    one = [click("hat", "i0", 1), click("hat", "i1", 5)]
    summary = run(tmp_path, items(), one, test_from=date(2026, 1, 5))
    assert summary.counts["pairs_valid"] == 0
    assert any("validation has no pairs" in note for note in summary.notes)


def test_plain_table_is_split_by_a_hash(tmp_path: Path) -> None:
    rows = [{"query": f"Q {n % 40}", "item_id": f"i{n % 7}", "weight": 1 + n % 3} for n in range(280)]
    summary = run(tmp_path, items(7), rows, test_share=0.3)
    expected: Any = {part: defaultdict(float) for part in PARTS}
    for row in rows:
        query = normalise(row["query"])
        share = int(hashlib.md5(f"{query}\x1f{row['item_id']}".encode()).hexdigest()[:8], 16) / 2**32
        part = "test" if share < 0.3 else "valid" if share < 0.3 + 0.7 * 0.2 else "train"
        expected[part][query, int(row["item_id"][1:])] += row["weight"]
    seen = split(tmp_path)
    mean = sum(expected["train"].values()) / len(expected["train"])
    for part in PARTS:
        assert {key: row["weight"] for key, row in seen[part].items()} == {
            key: pytest.approx(weight / mean, rel=1e-5) for key, weight in expected[part].items()
        }
    assert summary.test_from is None
    assert all(row["first_click"] is None for row in seen["train"].values())
    with pytest.raises(InputError, match="--test-from needs a log"):
        run(tmp_path, items(7), rows, test_from=date(2026, 1, 1))
    with pytest.raises(InputError, match="the split left"):
        run(tmp_path, items(7), rows[:1])


def test_bad_weights_are_rejected(tmp_path: Path) -> None:
    bad = ["0", "-1", "nan", "inf", "much", None]
    rows = [{"query": f"q{n}", "item_id": "i1", "weight": "2"} for n in range(60)]
    run(tmp_path, items(), [*rows, *({"query": "q", "item_id": "i1", "weight": weight} for weight in bad)])
    assert [row for _, row, _, _ in rejects(tmp_path)] == [60, 61, 62, 63, 64, 65]


def test_bad_log_rows_are_listed_with_their_reason(tmp_path: Path) -> None:
    rows = [{**row, "timestamp": str(row["timestamp"]), "clicked": str(row["clicked"])} for row in log()]
    base = rows[0]
    bad = [
        ({"query": None}, "i0", "no query"),
        ({"query": " \t"}, "i0", "no query"),
        ({"query": "x" * 1001}, "x" * 200, "query too long"),
        ({"item_id": None}, "red dress", "no item_id"),
        ({"item_id": "i9"}, "i9", "unknown item"),
        ({"timestamp": "yesterday"}, "i0", "no readable timestamp"),
        ({"timestamp": None}, "i0", "no readable timestamp"),
        ({"clicked": "maybe"}, "i0", "clicked is neither true nor false"),
    ]
    summary = run(tmp_path, items(), [*rows, *({**base, **change} for change, _, _ in bad)])
    assert rejects(tmp_path) == [("clicks", 6 + n, key, why) for n, (_, key, why) in enumerate(bad)]
    assert summary.rejects["clicks: no query"] == 2
    assert summary.counts["log_rows"] == summary.counts["rejects"] + len(log())


def test_logs_without_anything_to_learn(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No row names an item.*'zz'.*'i0', 'i1', 'i2'"):
        run(tmp_path, items(), [click("hat", "zz", 1)])
    with pytest.raises(InputError, match=r"every one of the 2 rows was rejected \(no query: 1, unknown item: 1\)"):
        run(tmp_path, items(), [click("hat", "zz", 1), click("", "i0", 1)])
    with pytest.raises(InputError, match="the log has no click"):
        run(tmp_path, items(), [click("hat", "i0", day, False) for day in (1, 2)])


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_position_that_is_no_whole_number_is_rejected_and_none_is_unknown(tmp_path: Path, suffix: str) -> None:
    """It was rounded: 1.5 counted as the second place."""
    places = [1.0, 2.0, None, 1.5, float("nan"), 3.0]
    rows = [{**row, "position": place} for row, place in zip(log(), places, strict=True)]
    if suffix == "csv":
        rows = [{**row, "position": "" if row["position"] in (None, places[4]) else row["position"]} for row in rows]
        rows.append({**rows[0], "position": "first"})
    run(tmp_path, items(), str(write_table(tmp_path / f"log.{suffix}", rows)))
    lost = [row for _, row, _, reason in rejects(tmp_path) if reason == "position is not a whole number"]
    assert lost == ([3, 6] if suffix == "csv" else [3])


def test_position_bias_can_be_off(tmp_path: Path) -> None:
    rows = [{**row, "position": 1 + n % 2} for n, row in enumerate(log() * 3)]
    run(tmp_path, items(), rows, position_bias=False)
    weights = {key: row["weight"] / row["clicks"] for key, row in split(tmp_path)["train"].items()}
    assert len({round(weight, 5) for weight in weights.values()}) == 1


LATER = "UPDATE {} SET last_click = last_click + INTERVAL 9 DAY"
MORE = "UPDATE {} SET clicks = clicks + 1"
SEEN = "UPDATE {} SET seen_in_train = NOT seen_in_train"


@pytest.mark.parametrize(
    ("part", "damage"),
    [
        ("train", LATER),
        ("valid", LATER),
        ("train", MORE),
        ("valid", MORE),
        ("test", MORE),
        ("valid", SEEN),
        ("test", SEEN),
    ],
)
def test_leak_check_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, part: str) -> None:
    """Damage a written part before the check: what the file says must count, not what we meant to write."""
    honest = clicks_module.copy

    def copy(con: Any, select: str, path: Path) -> None:
        honest(con, select, path)
        if path.name == f"{part}.parquet":
            with duckdb.connect() as other:
                other.execute(f"CREATE TABLE {part} AS SELECT * FROM read_parquet('{path}')")
                other.execute(damage.format(part))
                other.execute(f"COPY {part} TO '{path}' (FORMAT parquet)")

    monkeypatch.setattr(clicks_module, "copy", copy)
    with pytest.raises(clicks_module.LeakError, match="leak check failed"):
        run(tmp_path, items(), log(), test_share=0.2)
    assert not (tmp_path / "out").exists()


def test_a_large_log_stays_in_the_database(tmp_path: Path) -> None:
    """Two threads and one give the same bytes; the log's rows are drawn so that every step has work."""
    count = 20_000
    table = pa.table(
        {
            "query": [f"query {n * n % 997}" for n in range(count)],
            "item_id": [f"i{n * 7 % 60}" for n in range(count)],
            "timestamp": [START + timedelta(minutes=n) for n in range(count)],
            "clicked": [n % 3 == 0 for n in range(count)],
            "ordered": [n % 30 == 0 for n in range(count)],
            "position": [n % 11 for n in range(count)],
        }
    )
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=2_000)
    for workers in (1, 2):
        run(
            tmp_path / str(workers),
            items(50),
            str(tmp_path / "log.parquet"),
            workers=workers,
            memory_limit="200MB",
        )
    for name in (
        "pairs/train.parquet",
        "pairs/valid.parquet",
        "pairs/test.parquet",
        "qrels.parquet",
        "rejects.parquet",
    ):
        assert read(tmp_path / "1", name) == read(tmp_path / "2", name)
        assert (tmp_path / "1/out" / name).read_bytes() == (tmp_path / "2/out" / name).read_bytes()


def test_too_little_memory_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.memory_limit \(1KB\)"):
        run(tmp_path, items(), log(), memory_limit="1KB")
