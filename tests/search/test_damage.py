"""An index folder that is not exactly what was written is refused, and the message names the file."""

import shutil
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smar.core.errors import InputError
from smar.search.items import Items
from smar.search.local.build import build_index
from smar.search.local.live import UpdatableIndex
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.updates import FIRST, UpdateLog
from smar.search.local.versions import current_version, rollback
from tiny_index import DIM, FINGERPRINT, reseal_manifest, write_query_encoder

KINDS = {"exact": 1000, "lists": 100}
"""Largest number of items that is searched exactly; there are 180."""
LOCKS = {"lock"}
"""Held, never read: nothing in them can be damaged."""
Damaged = Iterator[tuple[str, bytes | None]]


@pytest.fixture(scope="module")
def whole(embeddings: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An index folder of each kind, with every file there can be, and with updates; tests work on a copy."""
    folder = tmp_path_factory.mktemp("whole")
    source = Path(shutil.copytree(embeddings, folder / "embeddings"))
    clicks = [{"query": "red shirt", "item_id": f"item/{at:05d}", "weight": 1.0} for at in range(0, 60, 3)]
    pq.write_table(pa.Table.from_pylist(clicks), source / "valid.parquet")
    for kind, limit in KINDS.items():
        build_index(source, folder / kind, exact_limit=limit)
        index = UpdatableIndex.open(folder / kind)
        index.upsert(new_items("new/1", "item/00001"))
        index.delete(["item/00002", "item/00003"])
        index.upsert(new_items("new/2"))
    return {kind: folder / kind for kind in KINDS}


def new_items(*names: str) -> Items:
    one = np.zeros((len(names), DIM), np.float32)
    one[:, 0] = 1
    return Items(FINGERPRINT, pa.table({"item_id": list(names)}), one, one, [b"a picture"] * len(names))


@pytest.fixture(params=KINDS)
def served(request: pytest.FixtureRequest, whole: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of an index folder."""
    return Path(shutil.copytree(whole[request.param], tmp_path / "index"))


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in LOCKS)


def places(content: bytes, rng: np.random.Generator) -> list[slice]:
    """The first bytes, the last ones, all of them, and some in between: one, and many."""
    size = len(content)
    within = [int(at) for at in rng.integers(size, size=2)]
    between = [slice(at, min(size, at + length)) for at, length in zip(within, (1, 600), strict=True)]
    return [slice(0, min(size, 16)), slice(max(0, size - 16), size), slice(0, size), *between]


def overwritten(content: bytes, rng: np.random.Generator) -> Damaged:
    for part in places(content, rng):
        other = np.frombuffer(content[part], np.uint8) ^ rng.integers(1, 256, part.stop - part.start, np.uint8)
        yield f"other bytes at {part}", content[: part.start] + other.tobytes() + content[part.stop :]


def zeroed(content: bytes, rng: np.random.Generator) -> Damaged:
    for part in places(content, rng):
        yield f"zeros at {part}", content[: part.start] + bytes(part.stop - part.start) + content[part.stop :]


def flipped(content: bytes, rng: np.random.Generator) -> Damaged:
    for part in places(content, rng):
        at, bit = int(rng.integers(part.start, part.stop)), int(rng.integers(8))
        yield f"bit {bit} of byte {at}", content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def truncated(content: bytes, rng: np.random.Generator) -> Damaged:
    for length in {0, 1, len(content) // 2, len(content) - 1, int(rng.integers(len(content)))}:
        yield f"the first {length} bytes", content[:length]


def extended(content: bytes, rng: np.random.Generator) -> Damaged:
    for more in (b"\0", b"\n", bytes(4096), content, rng.bytes(100)):
        yield f"{len(more)} bytes more", content + more


def missing(content: bytes, rng: np.random.Generator) -> Damaged:
    yield "missing", None


@pytest.mark.parametrize(
    "damage", [overwritten, zeroed, flipped, truncated, extended, missing], ids=lambda d: d.__name__
)
def test_every_file_is_refused_by_name(served: Path, damage: Callable[[bytes, np.random.Generator], Damaged]) -> None:
    """Files are found by looking, so one that is added to the index is swept as well."""
    wrong = []
    for file in files_of(served):
        content, name = file.read_bytes(), str(file.relative_to(served))
        if (damage is extended and file.name == "updates.log") or (not content and damage not in (extended, missing)):
            continue  # what follows the acknowledged bytes is tested below; an empty file holds nothing to damage
        cases = [
            case for case in damage(content, np.random.default_rng(zlib.crc32(name.encode()))) if case[1] != content
        ]
        assert cases, f"{name} was not damaged"
        for at, (what, bad) in enumerate(cases):
            file.unlink(missing_ok=True)  # not written in place: what was opened before may have mapped it
            if bad is not None:
                file.write_bytes(bad)
            once = at == 0 and file.name != "updates.log"  # the first is made of the second
            seen = [outcome(opener, served) for opener in (UpdatableIndex.open, *[EmbeddedIndex.open] * once)]
            wrong += [
                f"{name}, {what}: {said}" for said in seen if not (said.startswith("InputError") and str(file) in said)
            ]
        file.unlink(missing_ok=True)
        file.write_bytes(content)
    assert not wrong, "\n".join(wrong)
    assert len(UpdatableIndex.open(served).snapshot) == 180


def outcome(opener: Callable[[Path], object], folder: Path) -> str:
    try:
        opener(folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "opened as if it were whole"


def test_every_record_of_the_log_is_refused(served: Path) -> None:
    """Blocks of zeros are what a disk leaves of a write that it lost."""
    log = current_version(served) / "updates.log"
    content, starts = log.read_bytes(), [FIRST]
    while starts[-1] < len(content):
        starts.append(starts[-1] + 16 + int.from_bytes(content[starts[-1] :][:8], "little"))
    assert len(starts) == 4
    for start, stop in pairwise(starts):
        for end in (start + 8, start + 16, start + 17, stop, len(content)):
            log.write_bytes(content[:start] + bytes(end - start) + content[end:])
            assert outcome(UpdatableIndex.open, served).startswith(
                f"InputError: {log} is damaged: the record at byte {start:,}"
            )


def test_a_folder_that_is_gone_is_named(served: Path) -> None:
    for folder in [path for path in served.rglob("*") if path.is_dir()]:
        folder.rename(served.parent / "elsewhere")
        with pytest.raises(InputError, match=str(folder)):
            UpdatableIndex.open(served)
        (served.parent / "elsewhere").rename(folder)


@pytest.mark.parametrize("tail", ["a byte", "zeros", "noise", "half a record"])
def test_bytes_that_were_not_acknowledged_are_ignored_and_cut_off(served: Path, tail: str) -> None:
    """What a killed writer leaves behind the end that the header tells; one byte less than that is damage."""
    log = current_version(served) / "updates.log"
    content = log.read_bytes()
    assert UpdateLog(log.parent).acknowledged() == len(content)
    other = Path(shutil.copytree(served, served.parent / "other"))
    UpdatableIndex.open(other).upsert(new_items("new/3"))
    after = (other / log.relative_to(served)).read_bytes()
    record = after[len(content) :]
    junk = {
        "a byte": b"\1",
        "zeros": bytes(4096),
        "noise": np.random.default_rng(0).bytes(5000),
        "half a record": record[: len(record) // 2],
    }
    log.write_bytes(content + junk[tail])
    index = UpdatableIndex.open(served)
    catalogue = index.snapshot.catalogue
    assert [catalogue.row_of(name) is not None for name in ("new/1", "item/00002", "new/2", "new/3")] == [1, 0, 1, 0]
    assert len(index.snapshot) == 180
    index.upsert(new_items("new/3"))
    assert log.read_bytes() == after
    assert len(UpdatableIndex.open(served).snapshot) == 181


def test_locks_hold_nothing(served: Path) -> None:
    locks = [path for path in served.rglob("*") if path.name in LOCKS]
    assert {path.name for path in locks} == LOCKS
    for content in (b"noise", None):
        for lock in locks:
            lock.unlink() if content is None else lock.write_bytes(content)
        index = UpdatableIndex.open(served)
        assert len(index.snapshot) == 180
        assert index.upsert(new_items("new/1")) == 1


def test_damage_to_the_previous_version_shows_when_it_is_served_again(served: Path) -> None:
    UpdatableIndex.open(served).compact()
    files = files_of(served / "v0001")
    assert files
    for file in files:
        content = file.read_bytes()
        file.write_bytes(content[:-1])
        assert UpdatableIndex.open(served).snapshot.path.name == "v0002"
        rollback(served)
        with pytest.raises(InputError, match=str(file)):
            UpdatableIndex.open(served)
        rollback(served)
        file.write_bytes(content)


@pytest.fixture
def folder(index_path: Path, tmp_path: Path) -> Path:
    """A copy of a version folder."""
    return Path(shutil.copytree(current_version(index_path), tmp_path / "version"))


def test_swapped_query_encoder_names_both_models(folder: Path) -> None:
    shutil.rmtree(folder / "query")
    write_query_encoder(folder / "query", fingerprint="beef" * 16, seed=1)
    with pytest.raises(InputError) as caught:
        EmbeddedIndex.open(folder)
    message = str(caught.value)
    assert str(folder / "query" / "manifest.json") in message
    assert "beef" * 16 in message
    assert "feed" * 16 in message


def test_swapped_query_encoder_under_the_same_name(folder: Path) -> None:
    """Other weights that claim the right fingerprint are caught by their checksum."""
    shutil.rmtree(folder / "query")
    write_query_encoder(folder / "query", seed=1)
    with pytest.raises(InputError, match=r"query/m\S+ is damaged"):
        EmbeddedIndex.open(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"items": 181}, "order.npy holds int32 .180,., expected int32 .181,."),
        ({"dim": 16}, "dim 16"),
        (
            {"format": "smar-index/2"},
            r"is of format smar-index/2; this smar reads smar-index/7. Build it again with `smar index`",
        ),
        ({"files": {"../../etc/passwd": {"size": 1, "xxh3": ""}}}, "lies outside the index"),
        ({"surprise": 1}, "is not a manifest"),
    ],
)
def test_altered_manifest(folder: Path, changes: dict, message: str) -> None:
    reseal_manifest(folder, **changes)
    with pytest.raises(InputError, match=message):
        EmbeddedIndex.open(folder)


@pytest.mark.parametrize("name", ["payload.arrow", "order.npy", "items.json", "items.npy", "vectors.faiss"])
def test_unchecked_files_are_still_recognised(folder: Path, name: str) -> None:
    """Without checksums a file that cannot be what it should be is named, too."""
    (folder / name).write_bytes(b"{}\n" * 40)
    with pytest.raises(InputError, match=name):
        EmbeddedIndex.open(folder, check=False)


def test_half_written_and_absent(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").write_text('{"format": "smar-ind')
    with pytest.raises(InputError, match=r"manifest.json is damaged"):
        EmbeddedIndex.open(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match="Run `smar index`"):
        EmbeddedIndex.open(folder)
    with pytest.raises(InputError, match=r"nowhere/current is missing"):
        EmbeddedIndex.open(tmp_path / "nowhere")
