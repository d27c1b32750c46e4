"""Updates, versions and their files: what another process sees, what survives, what damage is refused."""

import contextlib
import errno
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smar.core.errors import InputError
from smar.search.filter_parser import parse_filter
from smar.search.items import Items
from smar.search.local import live as live_module
from smar.search.local.build import build_index
from smar.search.local.live import UpdatableIndex
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.ready import plain
from smar.search.local.updates import UpdateLog
from smar.search.local.versions import building, file_stamp, locked, publish_version, read_current, rollback
from smar.search.protocol import Mode
from tiny_index import DIM, FINGERPRINT, write_embeddings, write_query_encoder


@pytest.fixture
def folder(index_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index_path, tmp_path / "index"))


def items(*names: str, seed: int = 0, **columns: object) -> Items:
    """Items with random vectors; every second one has a picture."""
    rng = np.random.default_rng(seed)
    text, multimodal = rng.normal(size=(2, len(names), DIM)).astype(np.float32)
    payload = pa.table({"item_id": list(names)} | {name: [value] * len(names) for name, value in columns.items()})
    pictures = [f"picture of {name} {seed}".encode() if at % 2 == 0 else None for at, name in enumerate(names)]
    return Items(FINGERPRINT, payload, unit(text), unit(multimodal), pictures)


def unit(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


class Twin:
    """The obvious way: a dictionary of all items, scored one by one."""

    def __init__(self, index: UpdatableIndex) -> None:
        (segment,) = index.snapshot.segments
        vectors = segment.store.vectors
        self.items = {
            row["item_id"]: (vectors[at, DIM:].copy(), vectors[at, :DIM].copy(), row, segment.catalogue.picture(at))
            for at, row in enumerate(segment.catalogue.table.to_pylist())
        }

    def upsert(self, new: Items, schema: pa.Schema) -> None:
        for at, row in enumerate(new.payload.to_pylist()):
            full = {name: row.get(name) for name in schema.names}
            self.items[row["item_id"]] = (new.text[at], new.multimodal[at], full, new.pictures[at])

    def patch(self, names: list[str], seed: int) -> list[pa.Table]:
        """Three changes as an index takes them, the second of what the first changed."""
        first = {"item_id": names, "price": [float(seed)] * len(names), "brand": ["Bosch"] * len(names)}
        again = {"item_id": names[:1], "price": [seed + 0.5]}
        last = {"item_id": names, "in_stock": [None] * len(names)}
        for name in set(names) & self.items.keys():
            text, multimodal, row, picture = self.items[name]
            price = seed + 0.5 if name == names[0] else float(seed)
            self.items[name] = text, multimodal, row | {"price": price, "brand": "Bosch", "in_stock": None}, picture
        return [pa.table(first), pa.table(again), pa.table(last, pa.schema({"item_id": "string", "in_stock": "bool"}))]

    def check(self, index: UpdatableIndex, text: str | None = None) -> None:
        snapshot = index.snapshot
        assert len(snapshot) == len(self.items)
        queries = snapshot.encoder.encode(["red shirt", "kettle"])
        chosen = None if text is None else parse_filter(text, snapshot.schema)
        for at, hits in enumerate(snapshot.search(queries, 1000, Mode.ADAPTIVE, chosen)):
            p = float(queries.image_probability[at])
            found = {hit.item_id: hit for hit in hits}
            rows = [row for _, _, row, _ in self.items.values()]
            if chosen is not None:
                table = pa.Table.from_pylist(rows, snapshot.schema)
                rows = [row for row, kept in zip(rows, chosen.mask(table), strict=True) if kept]
            assert found.keys() == {row["item_id"] for row in rows}
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            asked = np.array([hit.row for hit in hits], np.int64)
            ready = [json.loads(item) for item in snapshot.catalogue.json(asked)]
            assert [item["item"] for item in ready] == [plain(hit.payload) for hit in hits]
            assert [item["item_id"] for item in ready] == list(found)
            assert [item["picture"] is not None for item in ready] == [hit.has_picture for hit in hits]
            assert snapshot.catalogue.pictured(asked).tolist() == [hit.has_picture for hit in hits]
            for hit in hits:
                own_text, own_multimodal, payload, picture = self.items[hit.item_id]
                expected = p * own_multimodal @ queries.embedding[at] + (1 - p) * own_text @ queries.embedding[at]
                assert hit.score == pytest.approx(float(expected), abs=1e-5)
                assert hit.payload == payload
                assert snapshot.catalogue.picture(hit.row) == picture
                assert snapshot.catalogue.row_of(hit.item_id) == hit.row
        assert snapshot.facets().items == len(self.items)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["upsert", "patch", "delete", "compact", "reopen"]),
            st.lists(st.sampled_from(["new/1", "new/2", "new/3", "item/00001", "item/00002"]), min_size=1, unique=True),
        ),
        max_size=6,
    )
)
def test_any_sequence_equals_the_twin(index_path: Path, tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:
    folder = Path(shutil.copytree(index_path, tmp_path_factory.mktemp("steps") / "index"))
    index, other = UpdatableIndex.open(folder), UpdatableIndex.open(folder)
    twin = Twin(index)
    for seed, (step, names) in enumerate(steps):
        if step == "upsert":
            new = items(*names, seed=seed, price=float(seed), category="Shirt")
            assert index.upsert(new) == len(names)
            twin.upsert(new, index.snapshot.schema)
        elif step == "patch":
            known = [name in twin.items for name in (*names, names[0], *names)]
            assert index.patch(*twin.patch(names, seed)) == known
        elif step == "delete":
            assert index.delete(names) == sum(twin.items.pop(name, None) is not None for name in names)
        elif step == "compact":
            index.compact()
            assert len(index.snapshot.segments) == 1
        else:
            index = UpdatableIndex.open(folder)
    twin.check(index)
    twin.check(index, "price<50 and category=Shirt or not exists(brand)")
    other.refresh()
    twin.check(other)


def test_other_openers_see_changes_and_old_snapshots_stay(folder: Path) -> None:
    writer, reader = UpdatableIndex.open(folder), UpdatableIndex.open(folder)
    before = reader.snapshot
    assert not reader.refresh()
    writer.upsert(items("new/1", "item/00003", title="A thing"))
    assert reader.refresh()
    assert not reader.refresh()
    assert len(reader.snapshot) == len(before) + 1
    assert reader.snapshot.catalogue.items([reader.snapshot.catalogue.row_of("item/00003")])[0]["title"] == "A thing"
    assert before.catalogue.row_of("new/1") is None
    writer.delete(["new/1", "unknown"])
    reader.refresh()
    assert reader.snapshot.catalogue.row_of("new/1") is None
    assert len(reader.snapshot) == len(before)


def test_updates_on_an_inverted_file(tmp_path: Path) -> None:
    build_index(write_embeddings(tmp_path / "embeddings", 600), tmp_path / "index", exact_limit=100)
    index = UpdatableIndex.open(tmp_path / "index")
    twin = Twin(index)
    gone = [f"item/{at:05d}" for at in range(0, 600, 2)]
    assert index.delete(gone) == 300
    for name in gone:
        del twin.items[name]
    new = items(*(f"new/{at}" for at in range(250)))
    index.upsert(new)
    twin.upsert(new, index.snapshot.schema)
    twin.check(index)
    assert index.needs_compaction
    index.compact()
    assert not index.needs_compaction
    twin.check(UpdatableIndex.open(tmp_path / "index"))


def test_updates_during_a_compaction_are_carried_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from smar.search.local import compact

    index, other = UpdatableIndex.open(folder), UpdatableIndex.open(folder)
    index.upsert(items("new/1", seed=1))
    whole = compact.write_version

    def meanwhile(*arguments: object) -> object:
        other.upsert(items("new/2", seed=2))
        other.delete(["new/1"])
        with pytest.raises(InputError, match=r"compaction.lock is held by another process"):
            other.compact()
        return whole(*arguments)

    monkeypatch.setattr(compact, "write_version", meanwhile)
    assert index.compact() == "v0002"
    for opened in (index, UpdatableIndex.open(folder)):
        assert opened.snapshot.catalogue.row_of("new/2") is not None
        assert opened.snapshot.catalogue.row_of("new/1") is None
    assert other.refresh()
    assert other.snapshot.path.name == "v0002"


def test_columns_without_gaps_may_get_some(embeddings: Path, tmp_path: Path) -> None:
    """Parquet files say of such columns that they hold no nulls, and DuckDB writes them so."""
    source = Path(shutil.copytree(embeddings, tmp_path / "embeddings"))
    table = pq.read_table(source / "payload.parquet")
    full = [field.with_nullable(table[field.name].null_count > 0) for field in table.schema]
    pq.write_table(table.cast(pa.schema(full)), source / "payload.parquet")
    build_index(source, tmp_path / "index")
    index = UpdatableIndex.open(tmp_path / "index")
    index.upsert(items("new/1", title="Only a title"))
    index.compact()
    snapshot = UpdatableIndex.open(tmp_path / "index").snapshot
    assert snapshot.catalogue.items([snapshot.catalogue.row_of("new/1")])[0]["category"] is None


def test_an_old_snapshot_is_freed_at_once(folder: Path) -> None:
    """Each holds a copy of all changes: they would add up until Python looks for circles."""
    index = UpdatableIndex.open(folder)
    index.upsert(items("new/1"))
    gc.disable()
    try:
        price = pa.table({"item_id": ["item/00001", "new/1"], "price": [1.5, 2.5]})
        changes = (lambda: index.patch(price), lambda: index.upsert(items("new/2")), lambda: index.patch(price))
        for at, change in enumerate([*changes, lambda: index.delete(["new/2"])]):
            snapshot = index.snapshot
            snapshot.facets()
            snapshot.search(
                snapshot.encoder.encode(["red"]), 5, Mode.ADAPTIVE, parse_filter("price<50", snapshot.schema)
            )
            parts = [weakref.ref(part) for part in (snapshot, *snapshot.segments)]
            del snapshot
            change()
            assert [part() for part in parts] == [None] * 3, f"change {at}"
    finally:
        gc.enable()


def held_logs() -> int:
    """How many descriptors of this process lead to an update log, those of removed folders among them."""
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found += "updates.log" in str(descriptor.readlink())
    return found


def test_one_descriptor_however_much_is_written(folder: Path) -> None:
    gc.collect()
    others = held_logs()
    writer, reader = UpdatableIndex.open(folder), UpdatableIndex.open(folder)
    writer.upsert(items("new/0"))
    assert reader.refresh()
    before = psutil.Process().num_fds()
    for at in range(1, 300):
        writer.upsert(items(f"new/{at}", seed=at))
        assert reader.refresh()
    assert psutil.Process().num_fds() <= before
    assert held_logs() - others == 2
    old = reader.snapshot
    writer.compact()
    assert reader.refresh()
    shutil.rmtree(old.path)
    for catalogue in (old.catalogue, writer.snapshot.catalogue, reader.snapshot.catalogue):
        for at in range(300):
            assert catalogue.picture(catalogue.row_of(f"new/{at}")) == f"picture of new/{at} {at}".encode()
    assert held_logs() - others == 3
    del old, catalogue
    assert held_logs() - others == 2
    del writer, reader
    assert held_logs() == others


def test_a_log_that_another_file_took_the_place_of(folder: Path, tmp_path: Path) -> None:
    """So copies arrive from another machine."""
    reader = UpdatableIndex.open(folder)
    reader.upsert(items("new/1"))
    other, old = Path(shutil.copytree(folder, tmp_path / "other")), reader.snapshot
    UpdatableIndex.open(other).upsert(items("new/2"))
    shutil.copy(other / "v0001" / "updates.log", tmp_path)
    (tmp_path / "updates.log").replace(folder / "v0001" / "updates.log")
    assert reader.refresh()
    for catalogue, name in ((old.catalogue, "new/1"), (reader.snapshot.catalogue, "new/2")):
        assert catalogue.picture(catalogue.row_of(name)) == f"picture of {name} 0".encode()


def test_nothing_of_a_damaged_piece_is_taken_in(folder: Path) -> None:
    writer, reader = UpdatableIndex.open(folder), UpdatableIndex.open(folder)
    writer.upsert(items("new/1"))
    writer.upsert(items("new/2"))
    log = folder / "v0001" / "updates.log"
    content = log.read_bytes()
    log.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for _ in range(3):  # as a service does four times a second
        with pytest.raises(InputError, match=r"updates\.log is damaged"):
            reader.refresh()
    assert reader.changed == 0
    log.write_bytes(content)
    assert reader.refresh()
    assert reader.changed == 2


def test_what_cannot_be_read_back_is_written_all_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = UpdatableIndex.open(folder)
    whole, calls = UpdatableIndex.refresh, []

    def failing(self: UpdatableIndex) -> bool:
        calls.append(1)
        if len(calls) % 2 == 0:
            raise InputError("too many open files")
        return whole(self)

    monkeypatch.setattr(UpdatableIndex, "refresh", failing)
    assert index.upsert(items("new/1")) == 1
    assert index.delete(["item/00001"]) == 1
    monkeypatch.undo()
    index.refresh()
    assert len(index.snapshot) == len(UpdatableIndex.open(folder).snapshot) == 180
    assert index.snapshot.catalogue.row_of("new/1") is not None


def test_rollback_and_new_versions_under_a_reader(embeddings: Path, folder: Path) -> None:
    reader = UpdatableIndex.open(folder)
    reader.upsert(items("new/1"))
    build_index(embeddings, folder)
    old = reader.snapshot
    assert reader.refresh()
    assert (reader.snapshot.path.name, reader.snapshot.catalogue.row_of("new/1")) == ("v0002", None)
    assert rollback(folder).version == "v0001"
    assert reader.refresh()
    assert reader.snapshot.catalogue.row_of("new/1") is not None
    assert rollback(folder).version == "v0002"
    build_index(embeddings, folder)
    assert sorted(path.name for path in folder.glob("v*")) == ["v0002", "v0003"]
    queries = old.encoder.encode(["red shirt"])
    assert len(old.search(queries, 5)[0]) == 5  # its files are gone from the folder, not from this process
    assert reader.refresh()


def test_a_compaction_keeps_the_version_to_go_back_to(embeddings: Path, folder: Path) -> None:
    build_index(embeddings, folder)
    index = UpdatableIndex.open(folder)
    index.upsert(items("new/1"))
    assert index.compact() == "v0003"
    assert sorted(path.name for path in folder.glob("v*")) == ["v0001", "v0003"]
    assert [rollback(folder).version for _ in range(2)] == ["v0001", "v0003"]
    index.upsert(items("new/2"))
    shutil.rmtree(folder / "v0001")  # by hand: then it is the compacted one, which is better than none
    assert index.compact() == "v0004"
    assert rollback(folder).version == "v0003"


def test_a_first_compaction_keeps_what_it_compacted(folder: Path) -> None:
    index = UpdatableIndex.open(folder)
    index.upsert(items("new/1"))
    index.compact()
    assert [rollback(folder).version for _ in range(3)] == ["v0001", "v0002", "v0001"]
    assert index.refresh()
    index.upsert(items("new/2"))
    assert index.compact() == "v0003"
    assert rollback(folder).version == "v0002"  # forward again, though the version left behind was compacted


def test_builds_beside_each_other_leave_each_other_alone(folder: Path) -> None:
    """And count: v10000 comes after v9999. What a killed build left, and is locked no more, goes."""
    for name in ("vendor", "v0001.bak", "v9998", "v9999.partial"):
        (folder / name).mkdir()
    (folder / "v9999.partial" / "vectors.npy").touch()
    with building(folder) as first, building(folder) as second:
        assert (first.name, second.name) == ("v9999.partial", "v10000.partial")
        assert not any(first.iterdir())
        for partial in (second, first):
            with locked(folder):
                publish_version(folder, partial)
    assert sorted(path.name for path in folder.glob("v*")) == ["v0001.bak", "v10000", "v9999", "vendor"]
    assert read_current(folder).previous == "v10000"


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("v0001")])
def test_a_lost_pointer_is_mended_by_the_next_build(
    embeddings: Path, folder: Path, damage: Callable[[Path], object]
) -> None:
    UpdatableIndex.open(folder).upsert(items("new/1"))
    damage(folder / "current")
    with pytest.raises(InputError, match=r"current .*Run `smar index`"):
        UpdatableIndex.open(folder)
    build_index(embeddings, folder)
    assert rollback(folder).version == "v0001"  # and what was acknowledged is there
    assert UpdatableIndex.open(folder).snapshot.catalogue.row_of("new/1") is not None


def test_a_refused_version_is_not_read_at_every_look(
    embeddings: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = UpdatableIndex.open(folder)
    build_index(embeddings, folder)
    (folder / "v0002" / "items.json").write_bytes(b"{}")
    opened: list[Path] = []
    really = EmbeddedIndex.open
    monkeypatch.setattr(EmbeddedIndex, "open", lambda path, check: opened.append(path) or really(path, check))
    for _ in range(3):
        with pytest.raises(InputError, match=r"items\.json has 2 bytes"):
            index.refresh()
    assert opened == [folder / "v0002"]
    rollback(folder)
    assert index.refresh()
    monkeypatch.setattr("smar.search.local.live._REFUSED_SECONDS", -1.0)
    rollback(folder)
    for _ in range(2):
        with pytest.raises(InputError, match=r"items\.json has 2 bytes"):
            index.refresh()
    assert len(opened) == 4


def test_a_file_that_looks_the_same_from_outside_is_another(tmp_path: Path) -> None:
    (path := tmp_path / "current").write_text("one")
    seen = path.stat()
    before = file_stamp(path)
    path.write_text("two")
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert file_stamp(path) != before
    assert file_stamp(tmp_path / "none") is None


def test_a_version_alone_is_not_changed(folder: Path) -> None:
    """Its lock is not the index's, so writers would not wait for each other."""
    index = UpdatableIndex.open(folder / "v0001")
    for change in (lambda: index.upsert(items("a")), lambda: index.delete(["item/00001"]), index.compact):
        with pytest.raises(InputError, match="is one version of an index; open"):
            change()


def test_nothing_to_roll_back_to(folder: Path) -> None:
    with pytest.raises(InputError, match="no version before v0001"):
        rollback(folder)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [sys.argv[2], str(Path(sys.argv[2]).parent)]
from test_updates import items
from smar.search.local import updates
from smar.search.local.live import UpdatableIndex
from smar.search.local.ready import plain
index = UpdatableIndex.open(Path(sys.argv[1]))
for at in range(3):
    index.upsert(items(f"killed/{at}", seed=at))
    print(at, flush=True)
cut = {"torn": 1, "whole": 0}.get(sys.argv[3])
if cut is not None:  # die in the middle of a write, or before it is acknowledged
    updates.os.fsync = lambda log: (os.truncate(log, os.fstat(log).st_size - cut), os.kill(os.getpid(), signal.SIGKILL))
    index.upsert(items("killed/3"))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("when", ["torn", "whole", "idle"])
def test_kill_keeps_what_was_acknowledged(folder: Path, when: str) -> None:
    """A whole record may have been acknowledged, so it counts; `reader` learns of it by the next write."""
    reader = UpdatableIndex.open(folder)
    command = [sys.executable, "-c", KILLED, str(folder), str(Path(__file__).parent), when]
    died = subprocess.run(command, capture_output=True, text=True)
    assert (died.returncode, died.stdout.split()) == (-signal.SIGKILL, ["0", "1", "2"]), died.stderr
    index = UpdatableIndex.open(folder)
    found = [index.snapshot.catalogue.row_of(f"killed/{at}") is not None for at in range(4)]
    assert found == [True, True, True, when == "whole"]
    index.upsert(items("killed/4"))  # the torn bytes are cut off, and the log goes on
    assert reader.refresh()
    for one in (reader, index, UpdatableIndex.open(folder)):
        assert len(one.snapshot) == 180 + sum(found) + 1


RED = pa.table({"item_id": ["new/1"], "brand": ["red"]}), pa.table({"item_id": ["new/1"], "price": [1.0]})


def test_one_flush_a_write_and_the_header_after_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, log, flushed = UpdatableIndex.open(folder), UpdateLog(folder / "v0001"), []

    def flush(file: int) -> None:
        assert os.path.sameopenfile(file, handle.fileno())
        flushed.append((log.acknowledged(), log.recovered(), os.fstat(file).st_size))

    changes = (
        lambda: index.upsert(items("new/1", "new/2")),
        lambda: index.patch(*RED),
        lambda: index.delete(["new/1"]),
    )
    ends = [log.acknowledged()]
    with log.path.open("rb") as handle:
        for name in ("fsync", "fdatasync", "sync"):
            monkeypatch.setattr(os, name, flush)
        for change in changes:
            change()
            ends.append(log.acknowledged())
    assert flushed == [(before, end, end) for before, end in pairwise(ends)]


@pytest.mark.parametrize("lost", ["nothing", "half of the record", "the record"])
def test_a_loss_of_power_may_take_the_last_header(folder: Path, lost: str) -> None:
    """It reaches the disk with the next write's flush; the record was there before."""
    log = folder / "v0001" / "updates.log"
    index = UpdatableIndex.open(folder)
    index.upsert(items("new/1"))
    before = log.read_bytes()
    index.patch(*RED)
    written = log.read_bytes()[len(before) :]
    kept = {"nothing": len(written), "half of the record": len(written) // 2, "the record": 0}[lost]
    log.write_bytes(before + written[:kept])
    assert UpdateLog(log.parent).acknowledged() == len(before)
    for change in (lambda index: None, lambda index: index.delete(["item/00001"]), UpdatableIndex.compact):
        index = UpdatableIndex.open(folder)
        change(index)
        catalogue = index.snapshot.catalogue
        (found,) = catalogue.items([catalogue.row_of("new/1")])
        assert (found["brand"], found["price"]) == (("red", 1.0) if lost == "nothing" else (None, None))


def test_what_could_not_be_flushed_is_taken_back(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, log = UpdatableIndex.open(folder), folder / "v0001" / "updates.log"
    before = log.read_bytes()

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            index.upsert(items("lost"))
    assert log.read_bytes() == before
    index.upsert(items("new/1"))
    assert [UpdatableIndex.open(folder).snapshot.catalogue.row_of(name) for name in ("lost", "new/1")] == [None, 180]


@pytest.mark.parametrize("name", ["current", "v0001/manifest.json", "v0001/updates.log"])
def test_every_flipped_or_missing_byte_is_refused(folder: Path, name: str) -> None:
    UpdatableIndex.open(folder).upsert(items("new/1"))
    content = (folder / name).read_bytes()
    opened = UpdatableIndex.open(folder)
    for at in np.unique(np.linspace(0, len(content) - 1, 60).astype(int)):
        (folder / name).write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        with pytest.raises(InputError, match=Path(name).name):
            UpdatableIndex.open(folder)
        (folder / name).write_bytes(content[:at])
        with pytest.raises(InputError, match=Path(name).name):
            UpdatableIndex.open(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{Path(name).name} is missing|{Path(name).parent.name}"):
        UpdatableIndex.open(folder)
    assert opened.snapshot.catalogue.row_of("new/1") is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fingerprint": "beef"}, "vectors are of model beef"),
        ({"payload": pa.table({"item_id": ["a"], "colour": ["red"]})}, r"\['colour'\] is unknown"),
        ({"payload": pa.table({"title": ["a"]})}, "item_id is needed"),
        (
            {"payload": pa.table({"item_id": ["a"], "price": ["cheap"]})},
            "column price of the items does not fit double",
        ),
        ({"payload": pa.table({"item_id": pa.array([None], pa.string())})}, "item_id is missing"),
        ({"payload": pa.table({"item_id": ["a", "a"]})}, "occurs twice"),
        ({"text": np.ones((1, DIM), np.float32)}, "row 0 of the text vectors is not a unit vector"),
        ({"multimodal": np.full((1, DIM), np.nan, np.float32)}, "of the multimodal vectors is not a unit"),
        ({"text": np.ones((1, 3), np.float32)}, r"text vectors have shape \(1, 3\), expected \(1, 32\)"),
        ({"pictures": []}, "0 pictures for 1 items"),
    ],
)
def test_items_that_do_not_fit_are_refused(folder: Path, change: dict, message: str) -> None:
    index = UpdatableIndex.open(folder)
    good = items("a")
    fields = {name: getattr(good, name) for name in Items.__dataclass_fields__}
    with pytest.raises(InputError, match=message):
        index.upsert(Items(**fields | change))
    assert len(index.snapshot) == 180
    assert not index.refresh()
    assert index.upsert(items()) == 0


def test_the_last_item_stays(folder: Path) -> None:
    index = UpdatableIndex.open(folder)
    everything = [index.snapshot.catalogue.item_id(row) for row in range(180)]
    with pytest.raises(InputError, match="would delete every item"):
        index.delete(everything)
    assert index.delete(everything[1:]) == 179
    index.compact()
    assert [hit.item_id for hit in index.snapshot.search(index.snapshot.encoder.encode(["red"]), 9)[0]] == everything[
        :1
    ]


def test_a_new_version_of_another_model_brings_its_encoder(embeddings: Path, folder: Path, tmp_path: Path) -> None:
    index = UpdatableIndex.open(folder)
    source = Path(shutil.copytree(embeddings, tmp_path / "embeddings"))
    shutil.rmtree(source / "query")
    write_query_encoder(source / "query", seed=1)
    build_index(source, folder)
    before = index.snapshot.encoder.encode(["red"]).embedding
    assert index.refresh()
    assert np.abs(index.snapshot.encoder.encode(["red"]).embedding - before).max() > 0.01


def test_a_version_removed_while_it_is_opened(embeddings: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two builds between reading `current` and opening what it named: the newest is opened instead."""
    whole, calls = live_module.current_version, []

    def slow(path: Path) -> Path:
        version = whole(path)
        if not calls:
            calls.append(version)
            build_index(embeddings, folder)
            build_index(embeddings, folder)
        return version

    monkeypatch.setattr(live_module, "current_version", slow)
    assert UpdatableIndex.open(folder).snapshot.path.name == "v0003"
    assert not calls[0].exists()


def test_a_version_removed_while_its_log_is_looked_at(
    embeddings: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, whole = UpdatableIndex.open(folder), UpdateLog.stamp

    def slow(log: UpdateLog) -> tuple[int, int] | None:
        monkeypatch.setattr(UpdateLog, "stamp", whole)
        build_index(embeddings, folder)
        build_index(embeddings, folder)
        return whole(log)

    monkeypatch.setattr(UpdateLog, "stamp", slow)
    assert index.refresh()
    assert index.snapshot.path.name == "v0003"


def damage(version: Path) -> None:
    """So that only a checksum tells."""
    path = version / "items.json"
    content = path.read_bytes()
    path.write_bytes(content[:-3] + b"x" + content[-2:])


def test_only_the_first_version_may_be_unverified(embeddings: Path, folder: Path) -> None:
    """Another process has verified that one, and not what takes its place."""
    damage(folder / "v0001")
    index = UpdatableIndex.open(folder, check=False)
    build_index(embeddings, folder)
    damage(folder / "v0002")
    for _ in range(2):
        with pytest.raises(InputError, match=r"v0002/items\.json is damaged"):
            index.refresh()
    assert index.snapshot.path.name == "v0001"


def test_what_is_opened_in_place_of_an_unverified_version_is_verified(
    embeddings: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = live_module.current_version

    def slow(path: Path) -> Path:
        monkeypatch.setattr(live_module, "current_version", whole)
        version = whole(path)
        build_index(embeddings, folder)
        build_index(embeddings, folder)
        damage(folder / "v0003")
        return version

    monkeypatch.setattr(live_module, "current_version", slow)
    with pytest.raises(InputError, match=r"v0003/items\.json is damaged"):
        UpdatableIndex.open(folder, check=False)


def test_writers_wait_for_each_other(folder: Path) -> None:
    index = UpdatableIndex.open(folder)
    with locked(folder), pytest.raises(InputError, match="lock is held"), locked(folder, wait=False):
        pass
    command = [sys.executable, "-c", KILLED, str(folder), str(Path(__file__).parent), "idle"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        for at in range(5):
            index.upsert(items(f"own/{at}"))
        assert other.communicate()[0].split() == ["0", "1", "2"]
    index.refresh()
    assert len(index.snapshot) == len(UpdatableIndex.open(folder).snapshot) == 188
