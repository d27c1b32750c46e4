"""Checksums of files."""

import errno
import os
from pathlib import Path

import pytest
import xxhash

from smar.core import files
from smar.core.errors import InputError
from smar.core.files import Manifest, describe, verify, xxh3


@pytest.mark.parametrize("size", [0, 63, 64, 65, 1000])
def test_xxh3_of_blocks_is_that_of_the_whole(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_READ", 64)
    content = os.urandom(size)
    (path := tmp_path / "file").write_bytes(content)
    assert xxh3(path) == xxhash.xxh3_128_hexdigest(content)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    def broken(_: Path) -> str:
        raise OSError(errno.EIO, "Input/output error")

    (path := tmp_path / "vectors.npy").touch()
    with pytest.raises(InputError, match=r"vectors\.npy cannot be read: .*Input/output error. Build it again\."):
        verify(path, "", "Build it again.", broken)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(InputError, match=r"manifest\.json cannot be read: .*directory"):
        Manifest.read(tmp_path, "smar embed")


def test_files_that_may_only_be_read_are_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue's shards may belong to somebody else."""
    (tmp_path / "shard").write_bytes(b"x")
    opened = Path.open
    monkeypatch.setattr(
        Path, "open", lambda path, mode="r", *rest: opened(path, mode, *rest) if mode == "rb" else 1 / 0
    )
    assert describe(tmp_path, lambda path: path.stat().st_size) == {"shard": 1}
