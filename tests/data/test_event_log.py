"""Events of a service as the log that `smar prepare --clicks EVENTS` reads, and User Behavior Insights' own tables."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smar.core.errors import InputError
from smar.core.sections.data import DataSettings
from smar.data.event_tables import write_log
from smar.data.journals import EVENTS, QUERIES, lock, new_journal, recover, seal
from smar.data.prepare import prepare

START = datetime(2026, 1, 1, 10, tzinfo=UTC)


def line(
    action: str, query_id: str, item: str | None = None, position: int | None = None, day: int = 0, **more: Any
) -> bytes:
    moment = int((START + timedelta(days=day)).timestamp() * 1e6)
    told = {"timestamp": moment, "action_name": action, "query_id": query_id, "object_id": item, "position": position}
    return json.dumps(told | more).encode() + b"\n"


def journal(folder: Path, *lines: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = new_journal(folder)
    path.write_bytes(b"".join(lines))
    return path


def read(folder: Path, kind: str = "events") -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob(f"{kind}-*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_a_killed_writers_journal_is_sealed_once(tmp_path: Path) -> None:
    path = journal(tmp_path, line("query", "q", query="shoe"), line("click", "q", "i1"), line("click", "q", "i2")[:-9])
    content = path.read_bytes()
    held = os.open(path, os.O_RDONLY)
    assert lock(held)
    assert recover(tmp_path) == 0, "its writer lives"
    os.close(held)
    assert recover(tmp_path) == 1
    path.write_bytes(content)  # killed between the part and the end of the journal
    assert recover(tmp_path) == 1
    assert [(row["object_id"], row["query"]) for row in read(tmp_path)] == [("i1", "shoe")]
    assert [row["query_id"] for row in read(tmp_path, "queries")] == ["q"]
    assert not list(tmp_path.glob("*.journal"))


def test_a_damaged_line_harms_no_other(tmp_path: Path) -> None:
    seal(journal(tmp_path, line("click", "q", "i1"), b"\x00\x00{\n", line("order", "q", "i2")))
    assert [row["object_id"] for row in read(tmp_path)] == ["i1", "i2"]
    seal(journal(tmp_path / "empty"))
    assert not list((tmp_path / "empty").iterdir())


def shop(folder: Path, days: int = 28) -> None:
    """Two workers: one answers, the other is told what came of it. The third item is clicked a quarter as often."""
    searches = [
        line("query", f"q{day}", query=f"shoe {day % 7}", day=day, offset=0, hits=3, total=3) for day in range(days)
    ]
    seal(journal(folder, *searches))
    events = [line("impression", f"q{day}", f"i{at}", at + 1, day) for day in range(days) for at in range(3)]
    events += [line("click", f"q{day}", "i0", None, day) for day in range(days)]
    events += [line("click", f"q{day}", "i2", None, day) for day in range(0, days, 4)]
    events += [line("order", "q27", "i1", 2, 27), line("click", "nobody's", "i1", 1, 27)]
    events += events[:3]  # sent again by a client that had no answer
    seal(journal(folder, *events))


def test_prepare_reads_events_with_their_positions(tmp_path: Path) -> None:
    shop(tmp_path / "events")
    assert sum(row["query"] is not None for row in read(tmp_path / "events")) == 3 * 28 + 28 + 7 + 1 + 3
    notes = write_log([tmp_path / "events"], tmp_path / "log.parquet")
    log = pq.read_table(tmp_path / "log.parquet").to_pylist()
    assert len(log) == 3 * 28
    assert "1 events of searches without words" in " ".join(notes)
    first = [row for row in log if row["timestamp"] == START.replace(tzinfo=None)]
    assert {(row["item_id"], row["position"], row["clicked"], row["query"]) for row in first} == {
        ("i0", 1, True, "shoe 0"), ("i1", 2, False, "shoe 0"), ("i2", 3, True, "shoe 0")}  # fmt: skip
    items = pa.table({"item_id": ["i0", "i1", "i2"], "title": ["shoe", "boot", "sandal"]})
    settings = DataSettings(text_fields=("title",), slice_columns=(), test_share=0.2)
    done = prepare(settings, items, tmp_path / "events", out=tmp_path / "dataset")
    assert (done.counts["log_rows"], done.counts["clicks"]) == (84, 36)
    train = pq.read_table(tmp_path / "dataset" / "pairs" / "train.parquet").to_pylist()
    weight = {row["item_index"]: row["weight"] / row["clicks"] for row in train}
    assert weight[2] > 1.5 * weight[0], "a click further down, where fewer click, says more"


def test_events_cannot_be_read_in_silence(tmp_path: Path) -> None:
    journal(tmp_path / "fresh", line("click", "q", "i1"))
    items = pa.table({"item_id": ["i1"], "title": ["shoe"]})
    with pytest.raises(InputError, match=r"holds no events-\*.parquet.*lately is not in parts yet"):
        prepare(DataSettings(), items, tmp_path / "fresh", out=tmp_path / "dataset")
    seal(journal(tmp_path / "strange", line("click", "q", "i1")))
    with pytest.raises(InputError, match="none of the 1 events tells what was searched for"):
        prepare(DataSettings(), items, tmp_path / "strange", out=tmp_path / "dataset")
    with pytest.raises(InputError, match="give such folders only, or none"):
        prepare(DataSettings(), items, [tmp_path / "strange", tmp_path / "log.csv"], out=tmp_path / "dataset")


@pytest.mark.parametrize("kind", ["parquet", "ndjson"])
def test_tables_of_user_behavior_insights_are_known(tmp_path: Path, kind: str) -> None:
    def event(query: str, action: str, item: str, place: int, day: int) -> dict[str, Any]:
        told = {"position": {"ordinal": place}, "object": {"object_id": item, "object_id_field": "sku"}}
        return {
            "action_name": action,
            "query_id": query,
            "timestamp": f"2026-01-{day:02d}T10:00:00Z",
            "event_attributes": told,
        }

    events = [
        event(f"q{n}", action, f"i{n % 3}", n % 3 + 1, 1 + n) for n in range(28) for action in ("impression", "click")
    ]
    queries = [{"query_id": f"q{n}", "user_query": f"shoe {n % 7}"} for n in range(28)]
    paths = {}
    for name, rows in (("events", events), ("queries", queries)):
        paths[name] = tmp_path / f"{name}.{kind}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), paths[name])
        else:
            paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = pa.table({"item_id": ["i0", "i1", "i2"], "title": ["shoe", "boot", "sandal"]})
    settings = DataSettings(text_fields=("title",), slice_columns=())
    done = prepare(settings, items, paths["events"], queries=paths["queries"], out=tmp_path / "dataset")
    assert (done.counts["log_rows"], done.counts["clicks"]) == (28, 28)
    with pytest.raises(InputError, match="give their --queries, too"):
        prepare(settings, items, paths["events"], out=tmp_path / "dataset")


def test_schemas_are_what_readers_were_promised() -> None:
    assert EVENTS.names[:4] == ["timestamp", "action_name", "query_id", "session_id"]
    assert str(EVENTS.field("timestamp").type) == "timestamp[us, tz=UTC]"
    assert str(EVENTS.field("position").type) == "int32"
    assert {"client_id", "object_id", "query", "variant"} < set(EVENTS.names)
    assert {"query_id", "query", "hits", "routed"} < set(QUERIES.names)
