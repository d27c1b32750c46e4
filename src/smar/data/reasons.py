"""Why pictures are not used, for the summary: how many for each reason, and one of them to look at."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from smar.core.sections.data import DataSettings
from smar.data.database import Connection, number
from smar.data.listing import Listing, Tables, named

MOST = 8
"""Reasons that are told; the others are counted together."""
_LONGEST = 120
_NUMBERS = re.compile(r"\d[\d,.x]*")
_SIZED = ("too_large", "not_an_image")
"""States whose reasons differ in sizes only."""


def reasons(
    con: Connection,
    listing: Listing,
    status: Sequence[str],
    errors: Mapping[int, str],
    tables: Tables,
    settings: DataSettings,
) -> tuple[str, ...]:
    """One sentence for each of the most frequent reasons, and one on items that name no picture.

    Args:
        con: the database; needs the table ``item``.
        listing: every picture of the catalogue.
        status: its status, "" where it was not tried.
        errors: index of a picture -> why it is not used, or what is wrong with its colours.
        tables: where the pictures are named.
        settings: where paths start.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, reason in sorted(errors.items()):
        groups[status[index], _NUMBERS.sub("", reason) if status[index] in _SIZED else reason].append(index)
    ranked = sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    first = np.array(sorted(members[0] for _, members in ranked[:MOST]), np.int64)
    example = {index: (value, root) for index, value, root in named(listing, first, tables, settings)}
    told = []
    for (state, _), members in ranked[:MOST]:
        value, root = example[members[0]]
        what = f"{state}, but {errors[members[0]]}" if state == "ok" else f"{state}: {errors[members[0]]}"
        item = _item_id(con, int(listing.item[members[0]]))
        told.append(f"pictures: {len(members):,} {what}; for example {_shown(value, root, state)} of item {item!r}")
    if others := [members for _, members in ranked[MOST:]]:
        told.append(
            f"pictures: {sum(map(len, others)):,} for {len(others):,} other reasons, which images.parquet lists"
        )
    tried = sum(map(bool, status))
    if tried and all(state in ("missing", "") for state in status):
        root = next(iter(example.values()))[1]
        told.insert(
            0,
            f"pictures: none of the {tried:,} files is there. Paths start at {root}: where the files lie elsewhere, "
            "set data.images_root to the folder that the paths start at",
        )
    return (*told, *_unnamed(con, listing, tables))


def _unnamed(con: Connection, listing: Listing, tables: Tables) -> list[str]:
    """How many items name no picture, in a catalogue that has a column for them."""
    if tables[0].column("image") is None and tables[1] is None:
        return []
    named_one = np.zeros(number(con, "SELECT count(*) FROM item"), np.bool_)
    named_one[listing.item] = True
    none = np.flatnonzero(~named_one)
    if not len(none):
        return []
    return [f"pictures: {len(none):,} items name none, for example {_item_id(con, int(none[0]))!r}"]


def _item_id(con: Connection, index: int) -> str:
    return str(con.execute("SELECT item_id FROM item WHERE item_index = ?", [index]).fetchall()[0][0])


def _shown(value: object, root: Path, state: str) -> str:
    """A picture as its table names it; where a file is missing, with the folder that was looked in."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, bytes):
        return f"the {len(value):,} bytes"
    text = str(value or "")
    shown = repr(text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "...")
    return f"{shown} below {root}" if state == "missing" and text else shown
