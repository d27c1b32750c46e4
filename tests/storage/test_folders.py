"""Folders in a store (fsspec's memory://): parts are sent once, whole or absent, altered ones refused."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from smar.core.errors import InputError
from smar.storage.folders import StoredFolder
from smar.storage.objects import KEPT, Objects, StoreDown

URL = "memory://shop/run"


@pytest.fixture(autouse=True)
def store() -> Iterator[fsspec.AbstractFileSystem]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    (made / "stage1").mkdir(parents=True)
    (made / "stage1" / "weights.bin").write_bytes(bytes(range(256)) * 10)
    (made / "empty").write_bytes(b"")
    (made / "manifest.json").write_text("{}")
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sent(monkeypatch: pytest.MonkeyPatch, system: fsspec.AbstractFileSystem, fail_after: int = 10**9) -> list[str]:
    """Keys that are written from now on; the connection breaks after some."""
    keys: list[str] = []
    plain = type(system).pipe_file

    def pipe_file(self: object, key: str, value: bytes, **options: str) -> None:
        if len(keys) >= fail_after:
            raise ConnectionResetError("reset by the test")
        keys.append(key)
        plain(self, key, value, **options)

    monkeypatch.setattr(type(system), "pipe_file", pipe_file)
    return keys


def test_what_is_fetched_is_what_was_published(folder: Path, tmp_path: Path) -> None:
    StoredFolder(URL, part=1000).publish(folder)
    found = StoredFolder(URL).fetch(tmp_path / "copy")
    assert content(tmp_path / "copy") == content(folder)
    assert len(found.files["stage1/weights.bin"].parts) == 3
    assert StoredFolder(URL).read("stage1/weights.bin", 990, 2010) == (bytes(range(256)) * 10)[990:2010]


def test_a_broken_upload_goes_on_and_is_absent_until_then(
    folder: Path, tmp_path: Path, store: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        first = sent(patch, store, fail_after=2)
        with pytest.raises(StoreDown, match="reset by the test"):
            StoredFolder(URL, part=600).publish(folder)
    with pytest.raises(InputError, match="nothing was published there"):
        StoredFolder(URL).fetch(tmp_path / "copy")
    with monkeypatch.context() as patch:
        second = sent(patch, store)
        StoredFolder(URL, part=600).publish(folder)
    assert len(first) == 2
    assert not set(first) & set(second)
    StoredFolder(URL).fetch(tmp_path / "copy")
    assert content(tmp_path / "copy") == content(folder)


def test_a_broken_download_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    StoredFolder(URL, part=600).publish(folder)
    plain, read = Objects.part, list[str]()

    def part(self: Objects, name: str, digest: str) -> bytes:
        if len(read) == 3:
            raise StoreDown("reset by the test")
        read.append(digest)
        return plain(self, name, digest)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "part", part)
        with pytest.raises(StoreDown):
            StoredFolder(URL).fetch(tmp_path / "copy")
    first = list(read)
    read[:] = [""] * 4  # counts on, without an end
    monkeypatch.setattr(Objects, "part", part)
    StoredFolder(URL).fetch(tmp_path / "copy")
    assert not set(first) & set(read[4:])
    assert content(tmp_path / "copy") == content(folder)


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_part_is_refused_and_the_copy_stays(
    damage: str, folder: Path, tmp_path: Path, store: fsspec.AbstractFileSystem
) -> None:
    stored = StoredFolder(URL)
    stored.publish(folder)
    stored.fetch(tmp_path / "copy")
    before = content(tmp_path / "copy")
    (folder / "stage1" / "weights.bin").write_bytes(b"new")
    (folder / "manifest.json").write_text('{"new": 1}')
    made = stored.publish(folder)
    key = f"/shop/run/files/stage1/weights.bin/{made.files['stage1/weights.bin'].parts[0]}"
    store.rm_file(key)
    if damage == "altered":
        store.pipe_file(key, b"neW")
    with pytest.raises(InputError, match=damage):
        stored.fetch(tmp_path / "copy")
    assert content(tmp_path / "copy")["manifest.json"] == before["manifest.json"]


def test_of_two_that_publish_at_once_one_is_refused(folder: Path) -> None:
    base = StoredFolder(URL).publish(folder).number
    (folder / "empty").write_text("a")
    StoredFolder(URL).publish(folder, base=base)
    with pytest.raises(InputError, match="another process published there meanwhile"):
        StoredFolder(URL).publish(folder, base=base)


def test_an_unfinished_state_is_to_go_on_from_only(folder: Path, tmp_path: Path) -> None:
    stored = StoredFolder(URL)
    stored.publish(folder, complete=False)
    assert stored.newest() is None
    stored.fetch(tmp_path / "copy", complete=False)
    assert content(tmp_path / "copy") == content(folder)
    assert stored.publish(folder, complete=False).number == 1  # nothing is new


def test_old_states_go_with_what_only_they_held(folder: Path, store: fsspec.AbstractFileSystem) -> None:
    stored = StoredFolder(URL)
    for number in range(KEPT + 2):
        (folder / "empty").write_text(str(number))
        stored.publish(folder)
    assert len(store.find("/shop/run/manifests")) == KEPT
    assert len(store.find("/shop/run/files/empty")) == KEPT


def test_a_manifest_that_leads_out_is_refused(folder: Path, tmp_path: Path, store: fsspec.AbstractFileSystem) -> None:
    StoredFolder(URL).publish(folder)
    key = "/shop/run/manifests/00000001.json"
    store.pipe_file(key, store.cat_file(key).replace(b'"empty"', b'"../empty"'))
    with pytest.raises(InputError, match="leads out of the folder"):
        StoredFolder(URL).fetch(tmp_path / "copy")
    assert not (tmp_path / "empty").exists()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"pip install 'smar\[gs\]'"):
        StoredFolder("gs://shop/run")
