"""Pack the catalogue's pictures: the first decodable ones of each item, once, at the model's resolution.

Pictures are tried in rounds: every item's first picture, then the second of the items that have fewer than
``data.pictures_per_item``, and so on. So with one picture per item, an item with ten good ones costs one
download and one decode, and the outcome depends on nothing but the input.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from smar.core.progress import bar
from smar.core.sections.data import DataSettings
from smar.data.database import Connection, copy
from smar.data.fetch import Fetcher
from smar.data.images import STATUSES, Decoded, ImageOptions
from smar.data.listing import Listing, Tables, list_pictures, named
from smar.data.pool import DecoderPool, Picture, available_cores
from smar.data.reasons import reasons
from smar.data.references import source
from smar.data.tables import Table

IN_PROCESS = 64
"""So few pictures are decoded in this process: starting others takes longer."""
_NOT_TRIED = 255


@dataclass
class Outcomes:
    """What happened to each listed picture."""

    status: NDArray[np.uint8]
    """Index into STATUSES, 255 for pictures that were not needed."""
    size: NDArray[np.int32]
    """Width and height, [pictures, 2]."""
    display: NDArray[np.int64]
    """Offset and length in pictures.bin, [pictures, 2]."""
    errors: dict[int, str] = field(default_factory=dict)

    def record(self, index: int, outcome: Decoded, display: BinaryIO | None) -> None:
        """Note one outcome and append its display picture to the file; None: the item has one there."""
        self.status[index] = STATUSES.index(outcome.status)
        self.size[index] = outcome.width, outcome.height
        if outcome.error:
            self.errors[index] = outcome.error
        if outcome.display and display is not None:
            self.display[index] = display.tell(), len(outcome.display)
            display.write(outcome.display)

    def states(self) -> list[str]:
        """The status of each picture by its name, "" where it was not tried."""
        names: list[str] = np.array((*STATUSES, ""))[np.minimum(self.status, len(STATUSES))].tolist()
        return names

    @classmethod
    def empty(cls, pictures: int) -> "Outcomes":
        """No picture tried yet."""
        display = np.tile(np.array([-1, 0], np.int64), (pictures, 1))
        return cls(np.full(pictures, _NOT_TRIED, np.uint8), np.zeros((pictures, 2), np.int32), display)


@dataclass(frozen=True)
class PictureCounts:
    """Counts for the summary."""

    listed: int
    tried: int
    packed: int
    item_status: dict[str, int]
    several: dict[str, int]
    """Only where an item may have several: items that do, and pictures that were tried and are broken."""
    notes: tuple[str, ...]
    """Why pictures are not used: the most frequent reasons, each with its number and an example."""


def decode_here(
    listing: Listing, tables: Tables, settings: DataSettings, folder: Path, isolated: bool = False
) -> Outcomes:
    """Write images.npy and pictures.bin of the listed pictures; `isolated`: no decoder works in this process."""
    start = _starts(listing, settings.pictures_per_item)
    array = folder / "images.npy"
    _create(array, int(start[-1]), settings.image_size)
    outcomes, kept = _decode_all(listing, start, tables, settings, folder, isolated)
    _compact(array, kept, settings.image_size)
    return outcomes


Decode = Callable[[Listing, Tables, DataSettings, Path], Outcomes]


def pack(
    con: Connection,
    items: Table,
    images: Table | None,
    settings: DataSettings,
    folder: Path,
    decode: Decode = decode_here,
) -> PictureCounts:
    """Write images.npy, pictures.bin and images.parquet; create ``item_picture`` for items.parquet."""
    listing = list_pictures(con, items, images, settings)
    outcomes = decode(listing, (items, images), settings, folder)
    rows = _item_rows(con, listing, outcomes)
    con.register("item_picture", rows)
    _write_listing(con, listing, outcomes, folder / "images.parquet")
    counts: dict[str, int] = dict.fromkeys(STATUSES, 0)
    for status in rows["image_status"].to_pylist():
        counts[status] += 1
    tried = int((outcomes.status != _NOT_TRIED).sum())
    own = rows["image_rows"].to_numpy()
    packed = int(own.sum())
    several = {"items_with_several_pictures": int((own > 1).sum()), "pictures_broken": tried - packed}
    notes = reasons(con, listing, outcomes.states(), outcomes.errors, (items, images), settings)
    most = settings.pictures_per_item
    return PictureCounts(len(listing.item), tried, packed, counts, several if most > 1 else {}, notes)


def _starts(listing: Listing, most: int) -> NDArray[np.int64]:
    """First row of images.npy reserved for each item, at most `most` rows an item; int64 [items + 1]."""
    listed = np.bincount(listing.item) if len(listing.item) else np.zeros(0, np.int64)
    return np.concatenate([[0], np.cumsum(np.minimum(listed, most))]).astype(np.int64)


def _create(path: Path, rows: int, size: int) -> None:
    if rows:
        open_memmap(path, "w+", np.uint8, (rows, size, size, 3)).flush()
    else:
        np.save(path, np.zeros((0, size, size, 3), np.uint8))


def _decode_all(
    listing: Listing, start: NDArray[np.int64], tables: Tables, settings: DataSettings, folder: Path, isolated: bool
) -> tuple[Outcomes, NDArray[np.int64]]:
    """Try the pictures round by round, at most one of an item in each, until an item has all it may have.

    An item's good pictures lie one after the other from its row `start`; returns the rows that were filled, ascending.
    """
    outcomes = Outcomes.empty(len(listing.item))
    found = np.zeros(len(start) - 1, np.int64)
    if not len(listing.item):
        (folder / "pictures.bin").touch()
        return outcomes, found
    workers = 1 if start[-1] <= IN_PROCESS else settings.workers or available_cores()
    with (
        DecoderPool(folder / "images.npy", ImageOptions.of(settings), workers, isolated=isolated) as pool,
        Fetcher(settings.fetch, settings.max_image_bytes) as fetcher,
        (folder / "pictures.bin").open("wb") as display,
        bar() as progress,
    ):
        task = progress.add_task("pictures", total=0)
        for position in range(int(listing.position.max()) + 1):
            lacking = found < settings.pictures_per_item
            chosen = np.flatnonzero((listing.position == position) & lacking[listing.item])
            rows = dict(zip(chosen.tolist(), (start[:-1] + found)[listing.item[chosen]].tolist(), strict=True))
            progress.update(task, total=int(progress.tasks[0].completed) + len(chosen))
            wanted = ((index, source(value, root)) for index, value, root in named(listing, chosen, tables, settings))
            pictures: Iterator[Picture] = ((rows[index], found) for index, found in fetcher.in_order(wanted))
            for index, outcome in zip(chosen.tolist(), pool.decode(pictures), strict=True):
                item = listing.item[index]
                outcomes.record(index, outcome, None if found[item] else display)
                found[item] += outcome.status == "ok"
                progress.advance(task)
    filled = np.arange(found.max()) < found[:, None]
    return outcomes, (start[:-1, None] + np.arange(found.max()))[filled]


def _item_rows(con: Connection, listing: Listing, outcomes: Outcomes) -> pa.Table:
    """Picture columns of every item: image_row is its first row in images.npy, image_rows how many follow each other.

    The picture for the page is the first good one.
    """
    items = int(con.execute("SELECT count(*) FROM item").fetchall()[0][0])
    status = np.full(items, STATUSES.index("missing"), np.uint8)
    first = np.flatnonzero(listing.position == 0)
    status[listing.item[first]] = outcomes.status[first]
    good = np.flatnonzero(outcomes.status == STATUSES.index("ok"))
    with_picture, shown = np.unique(listing.item[good], return_index=True)  # positions rise: the first of each item
    status[with_picture] = STATUSES.index("ok")
    count = np.bincount(listing.item[good], minlength=items)
    display = np.tile(np.array([-1, 0], np.int64), (items, 1))
    display[with_picture] = outcomes.display[good[shown]]
    columns = {
        "item_index": np.arange(items, dtype=np.int32),
        "image_status": np.asarray(STATUSES)[status].tolist(),
        "image_row": np.where(count > 0, np.cumsum(count) - count, -1),
        "image_rows": count.astype(np.int32),
        "picture_offset": display[:, 0].copy(),
        "picture_length": display[:, 1].copy(),
    }
    return pa.table(columns)


def _compact(path: Path, kept: NDArray[np.int64], size: int) -> None:
    """Keep the given rows (ascending) of images.npy, in place: the file may be larger than the free disk."""
    images = np.load(path, mmap_mode="r+") if path.stat().st_size > 128 else np.load(path)
    total = len(images)
    if len(kept) == total:
        return
    for start in range(0, len(kept), 1024):
        block = kept[start : start + 1024]
        images[start : start + len(block)] = images[block]
    del images
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (len(kept), size, size, 3)}
    )
    with path.open("rb+") as file:
        if np.lib.format.read_magic(file) != (1, 0) or _header_length(file) != len(header.getvalue()):
            raise RuntimeError(f"{path}: numpy wrote a header of another length")
        file.seek(0)
        file.write(header.getvalue())
        file.truncate(len(header.getvalue()) + len(kept) * size * size * 3)


def _header_length(file: BinaryIO) -> int:
    np.lib.format.read_array_header_1_0(file)
    return file.tell()


def _write_listing(con: Connection, listing: Listing, outcomes: Outcomes, path: Path) -> None:
    """Write images.parquet: one row per tried picture."""
    tried = np.flatnonzero(outcomes.status != _NOT_TRIED)
    table = pa.table(
        {
            "item_index": listing.item[tried],
            "position": listing.position[tried].astype(np.int32),
            "status": np.asarray(STATUSES)[outcomes.status[tried]].tolist(),
            "error": pa.array([outcomes.errors.get(index) for index in tried.tolist()], pa.string()),
            "width": outcomes.size[tried, 0].copy(),
            "height": outcomes.size[tried, 1].copy(),
        }
    )
    con.register("tried_picture", table)
    copy(
        con,
        "SELECT item.item_id, position, status, error, width, height FROM tried_picture "
        "JOIN item USING (item_index) ORDER BY item_index, position",
        path,
    )
    con.unregister("tried_picture")
