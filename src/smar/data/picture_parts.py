"""The catalogue's pictures in parts, each a range of items, decoded by other calls or on a cluster's nodes.

A part is a folder beside the dataset, ``DATASET.pictures/part-00003``, which is whole or absent; it may be made
anywhere where that folder and the tables are seen. `pack` of `smar.data.pictures` then joins the parts to the bytes
that one call would have written. ``job.json`` binds them to the tables, the settings and the number of parts.
"""

import mmap
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Literal
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray
from pydantic import ValidationError

from smar.core.errors import InputError
from smar.core.files import Manifest, create, describe, xxh3
from smar.core.sections.data import DataSettings
from smar.data.images import ImageOptions
from smar.data.listing import Listing, Tables, images_root
from smar.data.pictures import Decode, Outcomes, decode_here
from smar.data.tables import Table
from smar.runners.run import Part, run

PART_ITEMS = 4096
"""Items in a part, where no number of parts is asked for."""
JOB_FILE = "job.json"
OUTCOMES_FILE = "outcomes.parquet"
FORMAT: Final = "smar-pictures/1"


class PictureJob(Manifest):
    """``DATASET.pictures/job.json``: what the parts of this folder are made of."""

    format: Literal["smar-pictures/1"] = FORMAT
    digest: str
    """Of the listing, the tables with the pictures and the settings for them."""
    parts: int


class PicturePart(Manifest):
    """``manifest.json`` of a part: file -> XXH3."""

    files: dict[str, str]


@dataclass(frozen=True)
class Range:
    """Items of a part and their pictures."""

    number: int
    first: int
    last: int
    index: NDArray[np.int64]
    """Of the pictures, in the whole listing, ascending."""
    listing: Listing
    """These pictures, whose items count from `first`."""

    def __str__(self) -> str:
        return f"pictures of items {self.first:,} to {self.last - 1:,}"


@dataclass(frozen=True)
class PictureTask:
    """Makes a part, where it is not there; returns whether it was made now."""

    store: Path
    job: PictureJob
    tables: Tables
    settings: DataSettings
    isolated: bool

    def __call__(self, part: Range) -> bool:
        """Decode the pictures of some items."""
        _check(self.store, self.job)
        folder = part_folder(self.store, part.number)
        if _is_whole(folder):
            return False
        made = folder.with_name(f"{folder.name}.{uuid4().hex}.partial")
        made.mkdir()
        try:
            outcomes = decode_here(part.listing, self.tables, self.settings, made, self.isolated)
            pq.write_table(_table(outcomes), made / OUTCOMES_FILE)
            PicturePart(files=describe(made, xxh3)).write(made)
            shutil.rmtree(folder, ignore_errors=True)  # damaged
            made.rename(folder)
        except OSError:
            if not _is_whole(folder):  # else another process was faster
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return True


def part_folder(store: Path, number: int) -> Path:
    """Where a part lies, numbered from 0."""
    return store / f"part-{number:05d}"


def decode_part(
    listing: Listing, tables: Tables, settings: DataSettings, work: Path, store: Path, part: Part, runner: str = "local"
) -> bool:
    """Make one of several parts in `store`; returns whether it was made now, and not before.

    Raises:
        InputError: `store` holds parts of other tables, settings or of another number.
    """
    job = _claim(store, listing, tables, settings, work, part.of)
    if job.parts != part.of:
        raise InputError(f"{store} holds parts of {job.parts}; this is part {part}. Go on with those, or delete it.")
    ranges = _ranges(listing, job.parts, slice(part.number - 1, part.number))
    return all(_run(ranges, 1, store, job, tables, settings, runner))


def decode_parts(
    listing: Listing, tables: Tables, settings: DataSettings, folder: Path, store: Path, runner: str = "local"
) -> Outcomes:
    """As `decode_here`, from the parts of `store`; those that are absent or damaged are made by the runner."""
    if not len(listing.item):
        return decode_here(listing, tables, settings, folder)
    count = -(-int(listing.item.max() + 1) // PART_ITEMS)
    job = _claim(store, listing, tables, settings, folder / "work", count)
    for _ in _run(_ranges(listing, job.parts), job.parts, store, job, tables, settings, runner):
        pass
    return _join(listing, job.parts, store, settings.image_size, folder)


def _run(
    ranges: Iterator[Range],
    total: int,
    store: Path,
    job: PictureJob,
    tables: Tables,
    settings: DataSettings,
    runner: str,
) -> Iterator[bool]:
    """On a cluster each task has one process that decodes; here one part after the other has all of them."""
    remote = runner != "local"
    items, images = (None if table is None else _portable(table) for table in tables)
    assert items is not None
    root = None if settings.images_root is None else settings.images_root.absolute()
    settings = settings.model_copy(update={"images_root": root} | ({"workers": 1} if remote else {}))
    task = PictureTask(store.absolute(), job, (items, images), settings, remote)
    return run([task], ranges, total, "pictures (parts)" if remote else "", runner)


def _portable(table: Table) -> Table:
    files, parquet = (tuple(path.absolute() for path in paths) for paths in (table.files, table.parquet))
    return replace(table, files=files, parquet=parquet, readings={}, rules=None, notes=[], bad_lines=())


def _ranges(listing: Listing, parts: int, chosen: slice = slice(None)) -> Iterator[Range]:
    """Items divided into `parts` ranges of equal length, and the chosen of these."""
    items = int(listing.item.max()) + 1 if len(listing.item) else 0
    bounds = [items * number // parts for number in range(parts + 1)]
    order = np.argsort(listing.item, kind="stable")
    starts = np.searchsorted(listing.item[order], bounds)
    for number in range(parts)[chosen]:
        index = np.sort(order[starts[number] : starts[number + 1]])
        first, last = bounds[number], bounds[number + 1]
        own = (listing.position[index], listing.source[index], listing.row[index], listing.sub[index])
        yield Range(number, first, last, index, Listing(listing.item[index] - first, *own))


def _claim(store: Path, listing: Listing, tables: Tables, settings: DataSettings, work: Path, parts: int) -> PictureJob:
    """Bind `store` to these pictures; the number of parts is that of whoever came first."""
    store.mkdir(parents=True, exist_ok=True)
    foreign = any(file.suffix != ".partial" for file in store.iterdir())  # seen first: the job comes first
    if foreign and not (store / JOB_FILE).is_file():
        raise InputError(f"{store} is not empty and was not made by `smar prepare`. Choose another --out.")
    digest = _digest(listing, tables, settings, work)
    create(store / JOB_FILE, PictureJob(digest=digest, parts=parts).model_dump_json(indent=2) + "\n")
    job = _job(store)
    if job.digest != digest:
        raise InputError(
            f"{store} holds pictures of other tables or of other settings (data.image_size and the like). "
            "Delete it, or give another --out."
        )
    return job


def _job(store: Path) -> PictureJob:
    try:
        return PictureJob.model_validate_json((store / JOB_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(
            f"{store / JOB_FILE} cannot be read: {error}. --out must lie in a folder that all nodes share."
        ) from None


def _check(store: Path, job: PictureJob) -> None:
    if _job(store) != job:
        raise InputError(f"{store} is not the folder that `smar prepare` began: --out must be shared by all nodes.")


def _digest(listing: Listing, tables: Tables, settings: DataSettings, work: Path) -> str:
    """Of what the parts depend on. A user's file counts by size and time, as its pictures may be terabytes."""
    digest = xxhash.xxh3_128()
    roots = [] if settings.images_root is None else [str(images_root(settings, work))]
    digest.update(repr((ImageOptions.of(settings), settings.pictures_per_item, roots)).encode())
    for numbers in (listing.item, listing.position, listing.source, listing.row, listing.sub):
        digest.update(numbers.tobytes())
    for table in tables:
        column = None if table is None else table.column("image")
        for file, parquet, first, last in table.spans() if table is not None and column is not None else ():
            seen = file.stat() if file.is_file() and not _below(file, work) else None
            known = (str(file.absolute()), seen.st_size, seen.st_mtime_ns) if seen else (first, last)
            digest.update(repr((column, known)).encode())
            if seen is None:  # staged, made by a SELECT or downloaded for this call
                with pq.ParquetFile(parquet) as opened:
                    for batch in opened.iter_batches(columns=[column]):
                        digest.update("".join(map(repr, batch.column(0).to_pylist())).encode())
    return digest.hexdigest()


def _below(file: Path, work: Path) -> bool:
    return file.absolute().is_relative_to(work.absolute())


def _is_whole(folder: Path) -> bool:
    """Is the part there, with the bytes that were written? One that was damaged since is made again."""
    try:
        files = PicturePart.read(folder, "smar prepare").files
        return all(xxh3(folder / name) == expected for name, expected in files.items())
    except (InputError, OSError):
        return False


def _table(outcomes: Outcomes) -> pa.Table:
    columns = {
        "status": outcomes.status,
        "width": outcomes.size[:, 0].copy(),
        "height": outcomes.size[:, 1].copy(),
        "offset": outcomes.display[:, 0].copy(),
        "length": outcomes.display[:, 1].copy(),
    }
    errors = pa.array([outcomes.errors.get(index) for index in range(len(outcomes.status))], pa.string())
    return pa.table({**columns, "error": errors})


def _join(listing: Listing, parts: int, store: Path, size: int, folder: Path) -> Outcomes:
    """The parts as one: images.npy in the order of the items, pictures.bin in that of the listing."""
    outcomes = Outcomes.empty(len(listing.item))
    place = np.zeros(len(listing.item), np.int64)  # in the pictures.bin of its part
    for part in _ranges(listing, parts):
        table = pq.read_table(part_folder(store, part.number) / OUTCOMES_FILE)
        outcomes.status[part.index] = table["status"]
        outcomes.size[part.index] = np.stack([table["width"], table["height"]], axis=1)
        place[part.index], outcomes.display[part.index, 1] = table["offset"], table["length"]
        reasons = zip(part.index.tolist(), table["error"].to_pylist(), strict=True)
        outcomes.errors.update({index: reason for index, reason in reasons if reason is not None})
    length = outcomes.display[:, 1]
    shown = length > 0
    outcomes.display[shown, 0] = (np.cumsum(length) - length)[shown]
    _join_displays(_ranges(listing, parts), store, place, outcomes.display, folder)
    _join_images([part_folder(store, number) / "images.npy" for number in range(parts)], size, folder / "images.npy")
    return outcomes


def _join_displays(
    ranges: Iterator[Range], store: Path, place: NDArray[np.int64], display: NDArray[np.int64], folder: Path
) -> None:
    with (folder / "pictures.bin").open("wb") as joined:
        for part in ranges:
            file = part_folder(store, part.number) / "pictures.bin"
            shown = part.index[display[part.index, 1] > 0]
            if not len(shown):
                continue
            with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for source, (target, length) in zip(place[shown].tolist(), display[shown].tolist(), strict=True):
                    joined.seek(target)
                    joined.write(data[source : source + length])


def _join_images(files: list[Path], size: int, path: Path) -> None:
    rows = sum(len(np.load(file, mmap_mode="r" if file.stat().st_size > 128 else None)) for file in files)
    with path.open("wb") as joined:
        shape = (rows, size, size, 3)
        np.lib.format.write_array_header_1_0(joined, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for file in files:
            with file.open("rb") as part:
                np.lib.format.read_magic(part)
                np.lib.format.read_array_header_1_0(part)
                shutil.copyfileobj(part, joined, 1 << 23)


def decoder_of(store: Path, runner: str) -> Decode:
    """What `pack` decodes with: in one go, unless there are parts, or a cluster makes them."""
    if runner == "local" and not (store / JOB_FILE).is_file():
        return decode_here
    return partial(decode_parts, store=store, runner=runner)
