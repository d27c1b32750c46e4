"""The queue of changes on a real index: order, batches, one bad item among good ones, deletions between."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smar.errors import InputError
from smar.index.build import build_index
from smar.index.delta import Items
from smar.index.live import UpdatableIndex
from smar.index.versions import locked
from smar.writer.encode import Prepared
from smar.writer.queue import Change, ChangeQueue, OtherModel, split
from tiny_index import DIM, FINGERPRINT, write_embeddings


@pytest.fixture
def index(tmp_path: Path) -> UpdatableIndex:
    build_index(write_embeddings(tmp_path / "embeddings", 30), tmp_path / "index")
    return UpdatableIndex.open(tmp_path / "index")


def encode(items: Sequence[Prepared]) -> Items:
    """Every item on one axis; an item titled "bad" gets a vector that no index takes."""
    vectors = np.zeros((len(items), DIM), np.float32)
    vectors[:, 0] = [2.0 if item.row["title"] == "bad" else 1.0 for item in items]
    payload = pa.table({name: [item.row[name] for item in items] for name in ("item_id", "title")})
    return Items(FINGERPRINT, payload, vectors, vectors, [None] * len(items))


def item(name: str, title: str = "good") -> Prepared:
    return Prepared({"item_id": name, "title": title}, (), None)


async def together(queue: ChangeQueue, changes: Sequence[tuple[str, Prepared | None]]) -> list[bool | BaseException]:
    """Put all changes while the first batch is held up by the index's lock."""
    consumer = asyncio.create_task(queue.run())
    try:
        with locked(queue.index.folder):
            first = asyncio.create_task(queue.put("first", item("first")))
            while queue.pending or not queue.thread._threads:
                await asyncio.sleep(0.01)
            tasks = [asyncio.create_task(queue.put(*change)) for change in changes]
            while queue.pending < len(changes):
                await asyncio.sleep(0.01)
        outcomes = await asyncio.gather(first, *tasks, return_exceptions=True)
    finally:
        consumer.cancel()
    return outcomes[1:]


def test_one_bad_item_harms_no_other(index: UpdatableIndex) -> None:
    queue = ChangeQueue(index, encode, lambda: None)
    changes = [(f"n{at}", item(f"n{at}", "bad" if at == 2 else "good")) for at in range(5)]
    outcomes = asyncio.run(together(queue, changes))
    assert isinstance(outcomes[2], InputError)
    assert outcomes[:2] + outcomes[3:] == [False] * 4
    there = [index.snapshot.catalogue.row_of(name) is not None for name, _ in changes]
    assert there == [True, True, False, True, True]
    assert (queue.counts.items, queue.counts.failed) == (5, 1)


def test_changes_of_one_item_keep_their_order(index: UpdatableIndex) -> None:
    queue = ChangeQueue(index, encode, lambda: None)
    changes = [
        ("a", item("a", "one")),
        ("a", item("a", "two")),
        ("b", item("b")),
        ("b", None),
        ("b", None),
        ("c", item("c")),
        ("a", None),
        ("a", item("a", "three")),
    ]
    assert asyncio.run(together(queue, changes)) == [False, True, False, True, False, False, True, False]
    catalogue = index.snapshot.catalogue
    row = catalogue.row_of("a")
    assert row is not None
    assert catalogue.items([row])[0]["title"] == "three"
    assert catalogue.row_of("b") is None
    assert catalogue.row_of("c") is not None


def test_faults_of_the_index_are_not_the_items(index: UpdatableIndex) -> None:
    async def put_one(queue: ChangeQueue, change: Prepared | None) -> bool:
        consumer = asyncio.create_task(queue.run())
        try:
            return await queue.put("a", change)
        finally:
            consumer.cancel()

    other = ChangeQueue(index, lambda items: replace(encode(items), fingerprint="beef"), lambda: None)
    with pytest.raises(OtherModel, match="another model now"):
        asyncio.run(put_one(other, item("a")))
    queue = ChangeQueue(index, encode, lambda: None)
    (index.folder / "current").write_bytes(b"damaged")
    for change in (item("a"), None):
        with pytest.raises(OSError, match="current is damaged"):
            asyncio.run(put_one(queue, change))


def test_all_that_wait_are_written_at_once(index: UpdatableIndex) -> None:
    woken: list[int] = []
    queue = ChangeQueue(index, encode, lambda: woken.append(1))
    outcomes = asyncio.run(together(queue, [(f"n{at}", item(f"n{at}")) for at in range(100)]))
    assert outcomes == [False] * 100
    assert (queue.counts.batches, queue.counts.largest_batch, len(woken)) == (3, 64, 3)  # 1, 64 and 36 items


def test_parts_hold_each_id_once_and_deletions_stand_alone() -> None:
    loop = asyncio.new_event_loop()
    names = ["a", "b", "a", "-c", "c", "-d", "-e"]
    items = [(name.strip("-"), None if name.startswith("-") else item(name)) for name in names]
    changes = [Change(name, one, loop.create_future()) for name, one in items]
    loop.close()
    assert [[change.item_id for change in part] for part in split(changes)] == [
        ["a", "b"],
        ["a"],
        ["c"],
        ["c"],
        ["d"],
        ["e"],
    ]
