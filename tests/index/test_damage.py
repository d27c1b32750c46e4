"""An index folder that is not exactly what was built is refused, and the message names the file."""

import shutil
from pathlib import Path

import pytest

from smar.errors import InputError
from smar.index.build import build_index
from smar.index.embedded import EmbeddedIndex
from smar.index.versions import current_version
from tiny_index import reseal_manifest, write_query_encoder

FILES = [
    "vectors.faiss",
    "payload.arrow",
    "order.npy",
    "items.json",
    "items.npy",
    "pictures.bin",
    "query/model.onnx",
    "query/tokenizer.json",
    "query/manifest.json",
]


@pytest.fixture
def folder(index_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(current_version(index_path), tmp_path / "index"))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_one_flipped_byte(folder: Path, name: str, share: float) -> None:
    content = bytearray((folder / name).read_bytes())
    content[int(share * len(content))] ^= 0x10
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        EmbeddedIndex.open(folder)


@pytest.mark.parametrize("name", FILES)
def test_truncated_and_missing(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for length in (len(content) - 1, len(content) // 2, 0):
        (folder / name).write_bytes(content[:length])
        with pytest.raises(InputError, match=name):
            EmbeddedIndex.open(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing"):
        EmbeddedIndex.open(folder)


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
            r"is of format smar-index/2; this smar reads smar-index/6. Build it again with `smar index`",
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


def test_damaged_exact_vectors(embeddings: Path, tmp_path: Path) -> None:
    build_index(embeddings, tmp_path / "index", exact_limit=50)
    path = tmp_path / "index" / "v0001" / "vectors.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"vectors.npy has"):
        EmbeddedIndex.open(tmp_path / "index")
