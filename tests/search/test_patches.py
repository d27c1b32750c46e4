"""Columns that change without the rest of the item: what is searched, what survives, what is refused."""

import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smar.core.errors import InputError
from smar.search.filter_parser import parse_filter
from smar.search.local.live import UpdatableIndex
from smar.search.local.patched import Overlay, replaced, touched
from smar.search.local.updates import FIRST


@pytest.fixture
def folder(index_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index_path, tmp_path / "index"))


def prices(index: UpdatableIndex, *names: str) -> list[float | None]:
    catalogue = index.snapshot.catalogue
    return [item["price"] for item in catalogue.items([catalogue.row_of(name) for name in names])]


def table(**columns: object) -> pa.Table:
    return pa.table(columns)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (pa.array([1.5, None, 3.5, 4.5]), pa.array([None, 9.5])),
        (pa.array([1, 2, 3, None], pa.int16()), pa.array([7, None], pa.int16())),
        (pa.array([True, False, None, True]), pa.array([None, True])),
        (pa.array(["a", "b", None, "d"]), pa.array(["", None])),
        (pa.array(["a", "b", None, "a"]).dictionary_encode(), pa.array(["z", None])),
        (pa.array([["a"], [], None, ["b", "c"]]), pa.array([["x", "y"], None])),
        (pa.array([{"a": 1}, None, {"a": 3}, {"a": 4}]), pa.array([None, {"a": 9}])),
        (
            pa.array([Decimal("1.50"), None, Decimal("2.25"), None]),
            pa.array([Decimal("9.75"), None], pa.decimal128(3, 2)),
        ),
        (pa.array([datetime(2026, 1, day) for day in (1, 2, 3, 4)]), pa.array([None, datetime(2027, 1, 1)])),
    ],
    ids=lambda array: str(array.type),
)
def test_columns_of_every_type(old: pa.Array, new: pa.Array) -> None:
    overlay = Overlay()
    overlay.add(np.array([0, 3, 0]), {"x": pa.concat_arrays([new.slice(1), new])})
    (changes := overlay.view())
    overlay.add(np.array([1]), {"x": new.slice(1)})
    found = replaced(pa.chunked_array([old]), changes["x"])
    assert found.type == old.type
    assert found.to_pylist() == [new[1].as_py(), *old.to_pylist()[1:3], new[0].as_py()]
    assert touched(changes, 4).tolist() == [True, False, False, True]


def test_many_changes_are_kept_as_few(folder: Path) -> None:
    overlay, rng = Overlay(), np.random.default_rng(0)
    expected = np.zeros(50)
    for at in range(1000):
        rows = rng.permutation(50)[:3]
        expected[rows] = at
        overlay.add(rows, {"x": pa.array([float(at)] * 3)})
    parts = overlay.view()["x"]
    assert len(parts) < 200
    assert replaced(pa.chunked_array([pa.array(np.zeros(50))]), parts).to_pylist() == expected.tolist()


def test_nothing_that_is_searched_grows(folder: Path) -> None:
    index = UpdatableIndex.open(folder)
    before = index.snapshot
    for at in range(20):
        assert index.patch(table(item_id=["item/00001", "none"], price=[at / 2, 1.0])) == [True, False]
    assert (index.changed, index.patched, len(index.snapshot.segments)) == (0, 20, 1)
    assert prices(index, "item/00001") == [9.5]
    query = before.encoder.encode(["red shirt"])
    found, other = (snapshot.search(query, 180)[0] for snapshot in (before, index.snapshot))
    assert [(hit.item_id, hit.score) for hit in found] == [(hit.item_id, hit.score) for hit in other]
    assert before.catalogue.items([before.catalogue.row_of("item/00001")])[0]["price"] != 9.5
    assert index.snapshot.facets(parse_filter("price=9.5", index.snapshot.schema)).items == 1


def test_what_was_converted_of_other_columns_is_kept(folder: Path) -> None:
    index = UpdatableIndex.open(folder)
    codes = index.snapshot.segments[0].catalogue.columns.codes("brand")
    index.patch(table(item_id=["item/00001"], price=[1.0]))
    assert index.snapshot.segments[0].catalogue.columns.codes("brand") is codes
    index.patch(table(item_id=["item/00001"], brand=["Another"]))
    again = index.snapshot.segments[0].catalogue.columns.codes("brand")
    assert again is not None
    assert "Another" in again.values


def test_many_changes_ask_for_a_compaction(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smar.search.local.live.PATCH_LIMIT", 3)
    index = UpdatableIndex.open(folder)
    for at in range(4):
        assert not index.needs_compaction
        index.patch(table(item_id=["item/00001"], price=[float(at)]))
    assert index.needs_compaction
    index.compact()
    assert (index.needs_compaction, index.patched, prices(index, "item/00001")) == (False, 0, [3.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (table(item_id=["item/00001"], colour=["red"]), r"\['colour'\] is unknown"),
        (table(price=[1.0]), "item_id is needed"),
        (table(item_id=["item/00001"], price=["cheap"]), "column price of the items does not fit double"),
        (table(item_id=["item/00001", "item/00001"], price=[1.0, 2.0]), "occurs twice"),
        (table(item_id=["item/00001"], title=["Other"]), "words of title are searched"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(folder: Path, change: pa.Table, message: str) -> None:
    index = UpdatableIndex.open(folder)
    log = folder / "v0001" / "updates.log"
    with pytest.raises(InputError, match=message):
        index.patch(table(item_id=["item/00002"], price=[1.0]), change)
    assert log.stat().st_size == FIRST
    assert index.patch(table(item_id=["none"], price=[1.0])) == [False]
    assert log.stat().st_size == FIRST


KILLED = """
import os, signal, sys
import pyarrow as pa
from smar.search.local import updates
from smar.search.local.live import UpdatableIndex
index = UpdatableIndex.open(sys.argv[1])
for at in range(3):
    brand = pa.table({"item_id": ["item/00002"], "brand": [str(at)]})
    index.patch(pa.table({"item_id": ["item/00001"], "price": [float(at)]}), brand)
    print(at, flush=True)
if sys.argv[2] == "torn":  # die in the middle of a write
    updates.os.fsync = lambda log: (os.truncate(log, os.fstat(log).st_size - 1), os.kill(os.getpid(), signal.SIGKILL))
    index.patch(pa.table({"item_id": ["item/00001"], "price": [99.0]}))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["torn", "idle"])
def test_kill_keeps_what_was_acknowledged(folder: Path, when: str) -> None:
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), when], capture_output=True, text=True, env=os.environ
    )
    assert (died.returncode, died.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"]), died.stderr
    index = UpdatableIndex.open(folder)
    assert prices(index, "item/00001") == [2.0]
    index.patch(table(item_id=["item/00003"], price=[5.0]))  # the torn bytes are cut off, and the log goes on
    assert prices(UpdatableIndex.open(folder), "item/00001", "item/00003") == [2.0, 5.0]


def test_a_log_of_before_is_refused_by_name(folder: Path) -> None:
    """Its end stood in a file of its own, and it had no header."""
    log = folder / "v0001" / "updates.log"
    log.write_bytes(log.read_bytes()[FIRST:])
    log.with_name("updates.json").write_text('{"format": "smar-updates/2", "length": 0, "records": 0}')
    with pytest.raises(InputError, match=r"updates\.log is of an older format.*this smar reads smar-updates/3"):
        UpdatableIndex.open(folder)
