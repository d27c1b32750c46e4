"""The generated shop: drawn pictures, titles that omit what the pictures show, a simulated search log.

Nothing is downloaded and nothing is real: every table and page that uses it calls it generated and simulated.
The truth (which items fit a query, which queries need the picture) is known, because items and queries are
made from attributes; it lies in tables of its own (`truth`, `qrels`, `queries`) that never reach a model.
The same seed gives the same bytes (with the same versions of numpy, Pillow and pyarrow).
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smar.core.errors import InputError
from smar.core.files import StrPath, publish
from smar.core.progress import track
from smar.demo.appliances import NOT_FASHION
from smar.demo.draw import Canvas, blend
from smar.demo.fashion import FASHION
from smar.demo.shop_items import COLOURS, VISIBLE, Item, draw_items
from smar.demo.simulated_log import Log, Query, draw_queries, simulate

MISSING, BROKEN = 0.02, 0.005
"""Shares of items without a picture and with a broken picture file: real catalogues have holes."""
_MARK = "A generated shop with a simulated log"
_README = f"""{_MARK}, made by smar (`smar demo`).

Nothing here is real: the products, brands and titles are invented, the pictures are drawn by a program,
and no person typed a query or clicked an item.

items.parquet    the catalogue; `image` is the picture's path from this folder (null: the item has none)
images/          drawn pictures; a few files are cut off on purpose
clicks.parquet   the simulated search log, one row per item shown
queries.parquet  truth: needs_image = share of a query's fitting items whose title lacks an asked attribute
                 that the picture shows
qrels.parquet    truth: the items that fit each query; hidden = the title lacks an asked attribute that the
                 picture shows
truth.parquet    truth: every item's attributes, which of them its title names, when it became available
"""


@dataclass(frozen=True)
class ShopSummary:
    """What was generated: counts, and the seconds it took."""

    items: int
    pictures: int
    without_picture: int
    broken_pictures: int
    queries: int
    searches: int
    impressions: int
    clicks: int
    orders: int
    seconds: float


def draw_picture(item: Item, rng: np.random.Generator) -> bytes:
    """Draw one item's picture: JPEG bytes, `demo_draw.SIDE` pixels square."""
    name = item.category.name
    if item.category.group == "Fashion":
        canvas = Canvas(rng, blend(COLOURS[item.attributes["colour"]], (60, 60, 66), 0.3))
        FASHION[name](canvas, item.attributes)
    else:
        draw, tone = NOT_FASHION[name]
        tone = blend(tone, (255, 255, 255) if rng.random() < 0.5 else (90, 92, 98), float(rng.uniform(0, 0.12)))
        canvas = Canvas(rng, blend(tone, (60, 60, 66), 0.3))
        draw(canvas, tone)
    return canvas.jpeg()


def generate_shop(out: StrPath, items: int = 4000, searches: int = 60000, seed: int = 0) -> ShopSummary:
    """Write a generated shop into the folder `out`; README.txt there says what each file is.

    Args:
        out: a new folder, or one that an earlier call made, which is then replaced.
        items: number of items, at least 64 (four of each category).
        searches: number of simulated searches, ten items shown in each; at least 100.
        seed: the same seed gives the same bytes.

    Raises:
        InputError: `out` holds something else, or a number is too small.
    """
    out = Path(out)
    if items < 64 or searches < 100:
        raise InputError(f"a generated shop needs 64 items and 100 searches or more; got {items} and {searches}.")
    _refuse_foreign(out)
    start = time.perf_counter()
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "images").mkdir(parents=True)
    shelf = draw_items(items, np.random.default_rng([seed, 1]))
    images, broken = _write_pictures(partial, shelf, seed)
    queries = draw_queries(shelf, max(searches // 8, 40), np.random.default_rng([seed, 3]))
    log = simulate(shelf, queries, searches, np.random.default_rng([seed, 4]))
    _write_tables(partial, shelf, images, queries, log)
    publish(partial, out)
    pictures = sum(image is not None for image in images)
    return ShopSummary(
        items=items,
        pictures=pictures,
        without_picture=items - pictures,
        broken_pictures=broken,
        queries=len(queries),
        searches=searches,
        impressions=log.table.num_rows,
        clicks=log.clicks,
        orders=log.orders,
        seconds=time.perf_counter() - start,
    )


def _refuse_foreign(out: Path) -> None:
    """Only an empty folder or an earlier generated shop may be replaced."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    readme = out / "README.txt"
    if not (readme.is_file() and readme.read_text(encoding="utf-8", errors="replace").startswith(_MARK)):
        raise InputError(f"{out} exists and is not a generated shop; name a new folder, or remove it first.")


def _write_pictures(folder: Path, items: list[Item], seed: int) -> tuple[list[str | None], int]:
    """Write images/*.jpg. Returns the path per item (None: no picture) and the number of files cut off."""
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(len(items))
    missing = round(MISSING * len(items))
    without = set(order[:missing].tolist())
    broken = set(order[missing : missing + max(round(BROKEN * len(items)), 1)].tolist())
    paths: list[str | None] = []
    for row, item in enumerate(track(items, "drawing pictures")):
        if row in without:
            paths.append(None)
            continue
        data = draw_picture(item, np.random.default_rng([seed, 2, row]))
        if row in broken:
            data = data[: len(data) // 3]
        paths.append(f"images/{item.item_id}.jpg")
        (folder / "images" / f"{item.item_id}.jpg").write_bytes(data)
    return paths, len(broken)


def _write_tables(folder: Path, items: list[Item], images: list[str | None], queries: list[Query], log: Log) -> None:
    ids = [item.item_id for item in items]
    catalogue = {
        "item_id": ids,
        "title": [item.title for item in items],
        "category": [item.category.name for item in items],
        "brand": [item.brand for item in items],
        "price": [item.price for item in items],
        "in_stock": [item.in_stock for item in items],
        "group": [item.category.group for item in items],
        "image": pa.array(images, pa.string()),
    }
    names = sorted({name for item in items for name in item.attributes})
    truth = {
        "item_id": ids,
        **{name: [item.attributes.get(name) for item in items] for name in names},
        "hidden": [[name for name in VISIBLE if item.lacks(name)] for item in items],
        "available_after_seconds": log.launched,
    }
    asked = {
        "query": [query.text for query in queries],
        "needs_image": [query.needs_image for query in queries],
        "group": [query.group for query in queries],
    }
    lengths = [len(query.relevant) for query in queries]
    fitting = np.concatenate([query.relevant for query in queries])
    qrels = {
        "query": pa.array(asked["query"]).take(pa.array(np.repeat(np.arange(len(queries)), lengths))),
        "item_id": pa.array(ids).take(pa.array(fitting)),
        "relevance": pa.array(np.ones(len(fitting), dtype=np.int32)),
        "hidden": pa.array(np.concatenate([query.hidden for query in queries])),
    }
    pq.write_table(log.table, folder / "clicks.parquet", compression="zstd")
    for name, columns in (("items", catalogue), ("truth", truth), ("queries", asked), ("qrels", qrels)):
        pq.write_table(pa.table(columns), folder / f"{name}.parquet", compression="zstd")
    (folder / "README.txt").write_text(_README, encoding="utf-8")
