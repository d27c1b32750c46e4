"""Pictures of the items that a report shows, as small files beside it: REPORT/pictures/<item row>.jpg."""

import io
import shutil
from collections.abc import Iterable
from pathlib import Path

import xxhash
from PIL import Image

from smar.data.dataset import Dataset

SIDE = 112
"""Longest side in pixels: some 3 KB a picture."""


def save_pictures(dataset: Dataset, items: Iterable[int], out: Path) -> dict[int, str]:
    """Write the pictures of the items (rows) that have one; those of an earlier report go.

    Returns:
        Item row -> path from `out`. An item without a picture is not in it.
    """
    folder = out / "pictures"
    shutil.rmtree(folder, ignore_errors=True)
    lengths = dataset.items["picture_length"].to_pylist()
    offsets = dataset.items["picture_offset"].to_pylist()
    paths: dict[int, str] = {}
    wanted = sorted({item for item in items if lengths[item]})
    if not wanted:
        return paths
    folder.mkdir(parents=True)
    with dataset.pictures.open("rb") as file:
        for item in wanted:
            file.seek(offsets[item])
            _save(file.read(lengths[item]), folder / f"{item}.jpg")
            paths[item] = f"pictures/{item}.jpg"
    return paths


def shrink(content: bytes, out: Path, name: str) -> str:
    """Write an encoded picture small below ``out/pictures``, unless it is there; returns its path from `out`."""
    path = Path("pictures") / f"{xxhash.xxh3_64_hexdigest(name.encode())}.jpg"
    if not (out / path).exists():
        (out / path).parent.mkdir(exist_ok=True)
        _save(content, out / path)
    return path.as_posix()


def _save(content: bytes, path: Path) -> None:
    with Image.open(io.BytesIO(content)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    small.save(path, quality=80)
