"""Items in memory to what an index takes: the same as `smar prepare` and `smar index --update` make of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from smar.data.dataset import text_columns
from smar.data.images import SENT_FORMATS, Decoded, ImageOptions, decode
from smar.embedding.kept import as_items
from smar.model.encoder import Encoder
from smar.model.ragged import rows_of
from smar.search.items import Items
from smar.serving.writer.item_check import RefusedItem

SEARCHED_PIXELS = 25_000_000
"""Of a picture that is only searched with, which is no JPEG: time and memory of decoding grow with them."""
Decode = Callable[[bytes, ImageOptions], Decoded]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked item: its row, its pictures at the model's size (uint8 [s, s, 3]), and the one for display."""

    row: dict[str, Any]
    packed: tuple[NDArray[np.uint8], ...]
    display: bytes | None

    @property
    def item_id(self) -> str:
        """Id of the item."""
        name: str = self.row["item_id"]
        return name


@dataclass(frozen=True, slots=True)
class Kept:
    """Checked new values of some columns of an item that is there (`row`, with `item_id`); its picture stays."""

    row: dict[str, Any]


def decode_picture(data: bytes, options: ImageOptions, decode: Decode = decode) -> Decoded:
    """A picture that can be used.

    Raises:
        RefusedItem: it cannot be used; `image_status` says why in the words of `smar prepare`.
    """
    found = decode(data, options)
    if found.status == "ok":
        return found
    why = found.error
    if found.status == "too_large":
        why = f"{why}; it has {len(data):,} bytes; allowed: {options.max_bytes:,} bytes, {options.max_pixels:,} pixels"
    raise RefusedItem(f"picture_{found.status}", f"the picture cannot be used: {found.status} ({why}).", found.status)


def decode_searched(data: bytes, options: ImageOptions, decode: Decode = decode) -> Decoded:
    """As `decode_picture`, for anybody's picture: of a format that browsers show, its pixels limited by their cost.

    Raises:
        RefusedItem: it cannot be used, or is too large; the message names the limit.
    """
    options = replace(options, formats=SENT_FORMATS)
    if not data.startswith(b"\xff\xd8\xff"):  # which is decoded at a reduced scale
        # no display picture, for which other formats are read to their last frame
        options = replace(options, max_pixels=min(options.max_pixels, SEARCHED_PIXELS), thumbnail=0)
    return decode_picture(data, options, decode)


def prepare_item(
    row: dict[str, Any], pictures: Sequence[bytes], options: ImageOptions, decode: Decode = decode
) -> Prepared:
    """Decode the pictures of an item whose columns are checked; raises RefusedItem as `decode_picture` does."""
    decoded = [decode_picture(data, options, decode) for data in pictures]
    status = "ok" if decoded else "missing"
    packed = tuple(one.packed for one in decoded if one.packed is not None)
    display = decoded[0].display if decoded else b""
    return Prepared(row | {"image_status": status}, packed, display or None)


def encode(encoder: Encoder, schema: pa.Schema, items: Sequence[Prepared], size: int) -> Items:
    """Encode items as one batch.

    Args:
        encoder: the index's model.
        schema: the index's item columns.
        items: at least one, each id once.
        size: side of a packed picture.

    Raises:
        RefusedItem: the columns of the index have changed since the items were checked.
    """
    payload = pa.Table.from_pylist([item.row for item in items], schema=schema.remove_metadata())
    if strange := {name for item in items for name in item.row} - {*schema.names, "image_status"}:
        raise RefusedItem(
            "unknown_column", f"the index has no column {', '.join(sorted(strange))} any more. Send the item again."
        )
    count = [len(item.packed) for item in items]
    packed = [picture for item in items for picture in item.packed]
    images = np.stack(packed) if packed else np.zeros((0, size, size, 3), np.uint8)
    fields = text_columns(payload, encoder.config.text_fields)
    (vectors,) = encoder.encode_items(fields, images, rows_of(np.array(count, np.int64)), len(items))
    return as_items(encoder, payload, vectors, [item.display for item in items])
