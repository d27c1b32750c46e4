"""Remote arguments as local folders (fsspec's memory://): published after, gone on with elsewhere, refused by name."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import pytest

from smar.api.index import Index
from smar.cli import main
from smar.core.errors import InputError
from smar.storage.copies import local_copies
from smar.storage.folders import StoredFolder
from tiny_index import write_embeddings
from tiny_service import becomes

OUT = "memory://shop/copies"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SMAR_CACHE", str(tmp_path / "one"))
    fsspec.filesystem("memory").store.clear()
    yield
    fsspec.filesystem("memory").store.clear()


def fill(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def break_off(*names: str) -> None:
    with local_copies("train", {"out": OUT}) as given:
        fill(given["out"], *names)
        raise OSError("no space")


def test_a_failed_job_goes_on_on_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = ("stage1/checkpoint-2/seal.json", "stage1/checkpoint-2/model", "config.yaml")
    with pytest.raises(OSError, match="no space"):
        break_off(*sealed, "stage1/checkpoint-4/model", "weights.partial")
    assert StoredFolder(OUT).newest() is None, "an unfinished run is read as a result"
    monkeypatch.setenv("SMAR_CACHE", str(tmp_path / "two"))
    with local_copies("train", {"out": OUT}) as given:
        there = {path.relative_to(given["out"]).as_posix() for path in given["out"].rglob("*") if path.is_file()}
        assert there == set(sealed)
        fill(given["out"], "manifest.json")
    done = StoredFolder(OUT).newest()
    assert done is not None
    assert set(done.files) == {*sealed, "manifest.json"}


def test_shards_are_published_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMAR_STORE_SECONDS", "0.05")
    with local_copies("embed", {"out": OUT}) as given:
        fill(given["out"], "shard-00000.parquet")
        assert becomes(lambda: StoredFolder(OUT).newest(complete=False) is not None, 10)


@pytest.mark.parametrize(
    ("command", "given", "said"),
    [
        ("index", {"source": OUT, "out": None}, "publishing a new version"),
        ("serve", {"indexes": [(None, OUT)], "model": [(None, "run")]}, "--model writes to an index folder"),
        ("embed", {"out": OUT, "part": "1/2"}, "a folder that their processes share"),
    ],
)
def test_what_a_store_cannot_is_refused(command: str, given: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said), local_copies(command, given):
        pass


def test_an_index_is_built_from_a_store_into_a_store_and_opened_there(tmp_path: Path) -> None:
    embeddings = "memory://shop/embeddings"
    StoredFolder(embeddings).publish(write_embeddings(tmp_path / "embeddings", 40))
    build = partial(Index.build, embeddings, OUT)
    assert len(build()) == 40
    assert [len(index.search("red shirt", k=5).hits) for index in (Index.open(OUT), build())] == [5, 5]
    newest = StoredFolder(OUT).newest()
    assert newest is not None
    assert {name.partition("/")[0] for name in newest.files} >= {"current", "v0001", "v0002"}
    with pytest.raises(InputError, match="memory://shop/nothing: nothing was published there"):
        Index.open("memory://shop/nothing")


def test_messages_name_what_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embeddings = write_embeddings(tmp_path / "embeddings", 40)
    StoredFolder("memory://shop/embeddings").publish(embeddings)
    assert main(["index", "memory://shop/embeddings", "--out", OUT]) == 0
    said = "".join(capsys.readouterr().err.split())
    assert f"next:smarserve{OUT}" in said
    assert f"indexin{OUT}" in said
    (embeddings / "payload.parquet").unlink()
    StoredFolder("memory://shop/embeddings").publish(embeddings)
    assert main(["index", "memory://shop/embeddings", "--out", OUT]) == 2
    said += "".join(capsys.readouterr().err.split())
    assert "memory://shop/embeddings/payload.parquetismissing" in said
    assert str(tmp_path / "one") not in said


def test_local_folders_are_left_alone(tmp_path: Path) -> None:
    with local_copies("train", {"dataset": tmp_path, "out": tmp_path / "run"}) as given:
        assert given == {"dataset": tmp_path, "out": tmp_path / "run"}
    assert not (tmp_path / "one").exists()
