"""A copy follows its store (fsspec's memory://); what is damaged or away is told, and the copy stays."""

from pathlib import Path

import fsspec
import pytest

from smar.storage.copies import copy_of, fetched
from smar.storage.folders import StoredFolder
from smar.storage.following import following, problem
from tiny_service import becomes

URL = "memory://shop/followed"


def test_a_copy_follows_what_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMAR_CACHE", str(tmp_path / "cache"))
    system, stored, folder = fsspec.filesystem("memory"), StoredFolder(URL), tmp_path / "index"
    system.store.clear()
    folder.mkdir()
    (folder / "current").write_text("1")
    stored.publish(folder)
    copy = fetched(URL)
    with following([URL], 0.05):
        (folder / "current").write_text("2")
        stored.publish(folder)
        assert becomes(lambda: (copy / "current").read_text() == "2", 10)
        assert problem(copy) is None
        (folder / "current").write_text("3")
        plain = stored.objects.create
        key = "/shop/followed/files/current/"

        def create(made):  # altered before anybody can fetch it
            system.pipe_file(key + made.files["current"].parts[0], b"4")
            plain(made)

        monkeypatch.setattr(stored.objects, "create", create)
        stored.publish(folder)
        assert becomes(lambda: "was altered in the store" in (problem(copy) or ""), 10)
        assert (copy_of(URL) / "current").read_text() == "2"
    system.store.clear()
