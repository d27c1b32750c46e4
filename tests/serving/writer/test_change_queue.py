"""The queue of changes on a real index: order, batches, one bad item among good ones, deletions between."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smar.core.errors import InputError
from smar.embedding.kept import Words
from smar.search.items import Items, OtherModel, RefusedItems
from smar.search.local.build import build_index
from smar.search.local.live import LastItem, UpdatableIndex
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.updates import UpdateLog
from smar.search.local.versions import UnreadableIndex, locked
from smar.serving.writer.encode_item import Kept, Prepared
from smar.serving.writer.one_thread import OneThread
from smar.serving.writer.queue import Change, ChangeQueue, split
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


NO_WORDS = Words(lambda _: set(), lambda _, rows: encode([Prepared(row, (), None) for row in rows]))


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
    queue = ChangeQueue(index, encode, NO_WORDS, lambda: None)
    changes = [(f"n{at}", item(f"n{at}", "bad" if at == 2 else "good")) for at in range(5)]
    outcomes = asyncio.run(together(queue, changes))
    assert isinstance(outcomes[2], RefusedItems)
    assert outcomes[:2] + outcomes[3:] == [False] * 4
    there = [index.snapshot.catalogue.row_of(name) is not None for name, _ in changes]
    assert there == [True, True, False, True, True]
    assert (queue.counts.items, queue.counts.failed) == (5, 1)


def test_changes_of_one_item_keep_their_order(index: UpdatableIndex) -> None:
    queue = ChangeQueue(index, encode, NO_WORDS, lambda: None)
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


def put(queue: ChangeQueue, *changes: tuple[str, Prepared | None]) -> list[bool]:
    """Put changes one after the other."""

    async def all_of_them() -> list[bool]:
        consumer = asyncio.create_task(queue.run())
        try:
            async with asyncio.timeout(60):
                return [await queue.put(*change) for change in changes]
        finally:
            consumer.cancel()

    return asyncio.run(all_of_them())


def test_faults_of_the_index_are_not_the_items(index: UpdatableIndex) -> None:
    other = ChangeQueue(index, lambda items: replace(encode(items), fingerprint="beef"), NO_WORDS, lambda: None)
    with pytest.raises(OtherModel, match="the items' vectors are of model beef"):
        put(other, ("a", item("a")))
    queue = ChangeQueue(index, encode, NO_WORDS, lambda: None)
    (index.folder / "current").write_bytes(b"damaged")
    for change in (item("a"), None):
        with pytest.raises(UnreadableIndex, match="current is damaged"):
            put(queue, ("a", change))


def test_nor_are_those_that_show_while_it_is_written(index: UpdatableIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object, **__: object) -> None:
        raise InputError("updates.json cannot be read: too many open files")

    monkeypatch.setattr(UpdateLog, "append", unreadable)
    queue = ChangeQueue(index, encode, NO_WORDS, lambda: None)
    for change in (item("a"), None):
        with pytest.raises(OSError, match="too many open files"):
            put(queue, ("item/00001", change))
    assert queue.counts.failed == 2


def test_the_last_item_is_told_apart(index: UpdatableIndex) -> None:
    names = [index.snapshot.catalogue.item_id(row) for row in range(len(index.snapshot))]
    index.delete(names[1:])
    with pytest.raises(LastItem):
        put(ChangeQueue(index, encode, NO_WORDS, lambda: None), (names[0], None))


class Unable(OneThread):
    """A thread that the system does not start at first."""

    tried = False

    def submit(self, work: Callable, /, *args: object, **kwargs: object) -> Future:
        if not self.tried:
            self.tried = True
            raise RuntimeError("can't start new thread")
        return super().submit(work, *args, **kwargs)


def test_a_thread_that_cannot_start_is_told_and_the_next_change_is_written(index: UpdatableIndex) -> None:
    queue = ChangeQueue(index, encode, NO_WORDS, lambda: None, thread=Unable("writer"))

    async def both() -> list[bool | BaseException]:
        consumer = asyncio.create_task(queue.run())
        try:
            async with asyncio.timeout(60):
                first = await asyncio.gather(queue.put("a", item("a")), return_exceptions=True)
                return [*first, await queue.put("b", item("b"))]
        finally:
            consumer.cancel()

    refused, written = asyncio.run(both())
    assert isinstance(refused, RuntimeError)
    assert written is False


@pytest.mark.parametrize(("pictures", "batches"), [(0, [1, 100]), (1, [1, 64, 36])])
def test_all_that_wait_are_written_at_once(index: UpdatableIndex, pictures: int, batches: list[int]) -> None:
    woken: list[int] = []
    queue = ChangeQueue(index, encode, NO_WORDS, lambda: woken.append(1))
    packed = (np.zeros((2, 2, 3), np.uint8),) * pictures
    outcomes = asyncio.run(together(queue, [(f"n{at}", replace(item(f"n{at}"), packed=packed)) for at in range(100)]))
    assert outcomes == [False] * 100
    counts = queue.counts
    assert (counts.batches, counts.largest_batch, len(woken)) == (len(batches), max(batches), len(batches))


def test_columns_change_together_and_only_other_words_are_encoded(index: UpdatableIndex) -> None:
    encoded: list[dict] = []

    def reword(snapshot: EmbeddedIndex, rows: Sequence[dict]) -> Items:
        encoded.extend(rows)
        return encode([Prepared(row, (), None) for row in rows])

    queue = ChangeQueue(index, encode, Words(lambda _: {"title"}, reword), lambda: None)
    name = index.snapshot.catalogue.item_id(1)
    before = index.snapshot.catalogue.items([1])[0]
    changes = [
        {"item_id": name, "price": 1.5},
        {"item_id": name, "title": before["title"], "brand": "Other"},
        {"item_id": name, "title": "New words", "in_stock": None},
        {"item_id": "none", "price": 3.0},
    ]
    kept = [(row["item_id"], Kept(row)) for row in changes]
    assert asyncio.run(together(queue, kept)) == [True, True, True, False]
    assert encoded == [before | {"price": 1.5, "brand": "Other", "title": "New words", "in_stock": None}]
    assert (queue.counts.items, queue.counts.patched, index.patched) == (1, 3, 0)


def test_parts_hold_each_id_once() -> None:
    loop = asyncio.new_event_loop()
    names = ["a", "b", "a", "-c", "c", "-d", "-e", "~f", "~f", "~b", "f", "~f"]
    made = {"-": None, "~": Kept({})}
    items = [(name.strip("-~"), made.get(name[0], item(name))) for name in names]
    changes = [Change(name, one, loop.create_future()) for name, one in items]
    loop.close()
    assert [[change.item_id for change in part] for part in split(changes)] == [
        ["a", "b"],
        ["a", "c"],
        ["c", "d", "e", "f", "f", "b"],
        ["f"],
        ["f"],
    ]
