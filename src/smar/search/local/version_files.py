"""The files of a version: what its manifest says of each, all verified when it is opened, and how each is mapped."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Literal, Self

import faiss
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from smar.core.errors import InputError
from smar.core.files import verify, xxh3
from smar.search.local.cutoff import Cutoff
from smar.search.local.fusion import HybridFit
from smar.search.local.lists import EXACT_FILE, Lists
from smar.search.local.ready import map_npy
from smar.search.local.sealed import Sealed
from smar.search.local.vectors import Probes, VectorStore
from smar.search.local.versions import MADE_BY
from smar.search.local.word_index import WORDS_FOLDER, WordIndex
from smar.search.ranked import Vectors

FAISS_FILE = "vectors.faiss"


class IndexedFile(BaseModel):
    """Size in bytes and XXH3 of one file of an index: all of them are read at each start of a service."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(ge=0)
    xxh3: str

    @classmethod
    def of(cls, path: Path) -> Self:
        """As the file is now."""
        return cls(size=path.stat().st_size, xxh3=xxh3(path))


class IndexManifest(Sealed):
    """``INDEX/v0001/manifest.json``: what the index holds and how each of its files must look."""

    format: Literal["smar-index/7"] = "smar-index/7"
    fingerprint: str
    kind: str
    dim: int = Field(ge=1)
    items: int = Field(ge=1)
    created: str = Field(description="UTC, ISO 8601")
    index_type: str = Field(description="faiss factory string")
    probes: Probes | None = Field(None, description="what a query visits; None when the search is exact")
    recall: float | None = Field(None, description="recall@50 of the worst mode against exact search; None when exact")
    recall_target: float | None = None
    hybrid: HybridFit | None = Field(None, description="None in a version from before there was hybrid search")
    cutoff: Cutoff | None = Field(None, description="what tells relevant hits from others; None where nothing fits it")
    files: dict[str, IndexedFile]


def verify_files(path: Path, manifest: IndexManifest) -> None:
    """Sizes first, as they are cheap; then checksums, several files at a time."""
    for name, entry in manifest.files.items():
        file = path / name
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise InputError(f"{path / 'manifest.json'} names {name!r}, which lies outside the index.")
        if not file.is_file():
            raise InputError(f"{file} is missing. Run `{MADE_BY}` again.")
        if (size := file.stat().st_size) != entry.size:
            raise InputError(f"{file} has {size:,} bytes, expected {entry.size:,}. Run `{MADE_BY}` again.")

    def check(name: str) -> None:
        verify(path / name, manifest.files[name].xxh3, f"Run `{MADE_BY}` again.", xxh3)

    largest_first = sorted(manifest.files, key=lambda name: -manifest.files[name].size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(check, largest_first))


def read_vectors(path: Path, manifest: IndexManifest) -> VectorStore:
    """Exact vectors, with their lists where there are many; raises InputError naming the file that does not fit."""
    if manifest.probes is not None:
        vectors = _map_exact(path / EXACT_FILE, (manifest.items, 2 * manifest.dim))
        return VectorStore(Lists(path, manifest.items, 2 * manifest.dim, MADE_BY), vectors, manifest.probes)
    file = path / FAISS_FILE
    try:
        index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise InputError(f"{file} cannot be read by faiss: {error}. Run `{MADE_BY}` again.") from None
    if index.ntotal != manifest.items or index.d != 2 * manifest.dim:
        raise InputError(
            f"{file} holds {index.ntotal:,} vectors of {index.d} dimensions, expected {manifest.items:,} of "
            f"{2 * manifest.dim}. Run `{MADE_BY}` again."
        )
    flat: Vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    return VectorStore(index, flat, None)


def _map_exact(file: Path, shape: tuple[int, int]) -> Vectors:
    vectors: Vectors = map_npy(file, MADE_BY)
    if vectors.shape != shape or vectors.dtype != np.float32:
        raise InputError(f"{file} has shape {vectors.shape}, expected {shape}. Run `{MADE_BY}` again.")
    return vectors


def read_words(path: Path, manifest: IndexManifest) -> WordIndex | None:
    """None in a version without words."""
    if (fit := manifest.hybrid) is None:
        return None
    return WordIndex(path / WORDS_FOLDER, manifest.items, fit.fields, fit.mean_length, fit.language)
