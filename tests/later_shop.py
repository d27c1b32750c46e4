"""The generated shop some weeks later: the same items and log, then items with words never seen, and clicks on them."""

from datetime import datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tiny_line import Line, Outcome, smar

NEW_WORDS = ("hoverboard", "squeejo", "ねこ", "grössenwunder")
"""Of the new items and queries, in their normal form. The shop knows neither the words nor some of their characters."""


def later_tables(line: Line, folder: Path, items: int = 40, searches: int = 400) -> None:
    """Write ``items.parquet`` and ``clicks.parquet``: those of the shop, and more at their end."""
    old, log = pq.read_table(line.shop / "items.parquet"), pq.read_table(line.shop / "clicks.parquet")
    new = old.slice(0, items).to_pylist()
    for number, row in enumerate(new):
        word = NEW_WORDS[number % len(NEW_WORDS)]
        row |= {"item_id": f"L{number:03}", "title": f"{row['brand']} {word} {row['title'].split()[1]} {number}"}
    pq.write_table(pa.concat_tables([old, pa.Table.from_pylist(new, old.schema)]), folder / "items.parquet")
    start, rows = datetime(2026, 9, 30), []
    for number in range(searches):
        item = new[(number * 7) % items]
        query = f"{NEW_WORDS[(number * 7) % items % len(NEW_WORDS)]} {item['brand']}" if number % 3 else "hoverboard"
        clicked = number % 3 or item["title"].split()[1] == "hoverboard"
        rows.append(
            {
                "user_id": number,
                "query": query.lower(),
                "item_id": item["item_id"],
                "timestamp": start + timedelta(hours=number),
                "position": 1,
                "clicked": bool(clicked),
                "ordered": False,
            }
        )
    pq.write_table(pa.concat_tables([log, pa.Table.from_pylist(rows, log.schema)]), folder / "clicks.parquet")


def prepare_later(line: Line, folder: Path, *words: object, out: str = "later") -> Outcome:
    """Prepare the tables of `later_tables` as ``folder/later``."""
    tables = ("--items", folder / "items.parquet", "--clicks", folder / "clicks.parquet")
    root = ("--set", f"data.images_root={line.shop}")
    return smar("prepare", *tables, "--config", line.config, *root, *words, "--out", folder / out)
