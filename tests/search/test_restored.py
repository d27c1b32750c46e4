"""An older copy in the place of an index that is served, and files that are changed where they lie."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smar.search.items import Items
from smar.search.local.build import build_index
from smar.search.local.live import UpdatableIndex
from smar.search.local.versions import UnreadableIndex
from tiny_index import DIM, FINGERPRINT


@pytest.fixture
def folder(index_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(index_path, tmp_path / "index"))


def items(*names: str, picture: bytes = b"a picture") -> Items:
    one = np.zeros((len(names), DIM), np.float32)
    one[:, 0] = 1
    return Items(FINGERPRINT, pa.table({"item_id": list(names)}), one, one, [picture] * len(names))


def copied(source: Path, target: Path) -> None:
    """As people make and restore copies: into the files that are there already."""
    target.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", f"{source}/.", f"{target}/"], check=True)


def held(index: UpdatableIndex, *names: str) -> list[bytes | None]:
    """Pictures of some items, None where there is no such item."""
    catalogue = index.snapshot.catalogue
    rows = [catalogue.row_of(name) for name in names]
    return [None if row is None else catalogue.picture(row) for row in rows]


def test_an_older_log_is_taken_by_readers_and_writers(folder: Path, tmp_path: Path) -> None:
    writer, reader = UpdatableIndex.open(folder), UpdatableIndex.open(folder)
    writer.upsert(items("old"))
    copied(folder, tmp_path / "backup")
    writer.upsert(items("lost", picture=b"a longer picture"))
    writer.upsert(items("lost, too"))
    assert reader.refresh()
    copied(tmp_path / "backup", folder)
    assert reader.refresh()
    assert not reader.refresh()
    assert held(reader, "old", "lost", "lost, too") == [b"a picture", None, None]
    assert writer.upsert(items("new")) == 1
    assert reader.refresh()
    for index in (reader, writer, UpdatableIndex.open(folder)):
        assert held(index, "old", "lost", "lost, too", "new") == [b"a picture", None, None, b"a picture"]
        assert index.problem is None


def test_another_log_of_the_same_length_is_another(folder: Path, tmp_path: Path) -> None:
    """Restored, and written to since: as many bytes and records as were read, and not the same ones."""
    copied(folder, tmp_path / "backup")
    reader = UpdatableIndex.open(folder)
    for name in ("a", "b"):
        UpdatableIndex.open(folder).upsert(items(name, picture=name.encode()))
    assert reader.refresh()
    copied(tmp_path / "backup", folder)
    for name in ("c", "d", "e"):
        UpdatableIndex.open(folder).upsert(items(name, picture=name.encode()))
    assert reader.refresh()
    assert held(reader, "a", "b", "c", "d", "e") == [None, None, b"c", b"d", b"e"]


def test_an_older_version_of_the_same_name(embeddings: Path, folder: Path, tmp_path: Path) -> None:
    """`current` says what it said before; the files are others."""
    reader = UpdatableIndex.open(folder)
    other = tmp_path / "other"
    build_index(embeddings, other)
    UpdatableIndex.open(other).delete(["item/00001"])
    UpdatableIndex.open(other).compact()
    shutil.rmtree(other / "v0001")
    (other / "v0002").rename(other / "v0001")
    (other / "current").unlink()
    copied(other, folder)
    assert reader.refresh()
    assert reader.snapshot.catalogue.row_of("item/00001") is None
    assert len(reader.snapshot) == 179
    assert not reader.refresh()


def test_a_version_that_was_removed(embeddings: Path, folder: Path, tmp_path: Path) -> None:
    """Half of the copy is there at first; it is taken once it is whole, and not after half a minute."""
    index = UpdatableIndex.open(folder)
    index.upsert(items("old"))
    copied(folder, tmp_path / "backup")
    index.compact()
    build_index(embeddings, folder)
    index.upsert(items("lost"))
    assert not (folder / "v0001").exists()
    shutil.copy2(tmp_path / "backup" / "current", folder / "current")
    (folder / "v0001").mkdir()
    for name in ("manifest.json", "items.json", "updates.log"):
        shutil.copy2(tmp_path / "backup" / "v0001" / name, folder / "v0001" / name)
        with pytest.raises(UnreadableIndex, match="is missing"):
            index.refresh()
        assert index.unsafe is None
        assert held(index, "old", "lost") == [None, b"a picture"]
    copied(tmp_path / "backup", folder)
    assert index.refresh()
    assert held(index, "old", "lost") == [b"a picture", None]


@pytest.mark.parametrize("name", ["items.json", "payload.arrow", "vectors.faiss", "words/rows.npy", "pictures.bin"])
def test_a_file_that_is_shortened_in_place_is_not_read(folder: Path, name: str) -> None:
    reader, writer = UpdatableIndex.open(folder), UpdatableIndex.open(folder)
    path = folder / "v0001" / name
    content, before = path.read_bytes(), path.stat()
    path.unlink()  # of its own: in the copy it may be shared with the embeddings
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert reader.refresh(), "another file"
    assert writer.refresh()
    with path.open("rb+") as file:
        file.truncate(100)
    for _ in range(2):
        with pytest.raises(UnreadableIndex, match=f"{name} was changed in place"):
            reader.refresh()
        assert reader.unsafe is not None
    with pytest.raises(UnreadableIndex, match=f"{name} was changed in place"):
        writer.upsert(items("lost"))
    path.write_bytes(content[:-1] + b"?")
    with pytest.raises(UnreadableIndex, match="was changed in place"):
        reader.refresh()
    path.write_bytes(content)
    assert reader.refresh()
    assert (reader.unsafe, reader.problem) == (None, None)
    assert writer.upsert(items("new")) == 1
    assert reader.refresh()
    assert held(reader, "new", "lost") == [b"a picture", None]
