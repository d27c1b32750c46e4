"""Items in memory against the same items through tables: several pictures an item, and an item-side gate."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from smar.core.sections.data import DataSettings
from smar.data.images import ImageOptions
from smar.embedding.update import open_for_update, update_index
from smar.model.run_folder import run_settings
from smar.search.local.live import UpdatableIndex
from smar.serving.writer.encode_item import decode_picture, decode_searched, encode, prepare_item
from smar.serving.writer.item_check import RefusedItem, check_columns
from tiny_index import vectors_of
from tiny_line import Line, smar
from tiny_writer import png, run_with

PICTURES = {"none": [], "one": [png("red")], "two": [png("green"), png("black", (20, 70))]}
COLUMNS = {
    "title": "Large kettle",
    "category": "Kettle",
    "brand": "Bosch",
    "group": "x",
    "in_stock": True,
    "price": 12.5,
}


@pytest.mark.parametrize("share", [None, {"": 0.5, "Kettle": 0.25}])
def test_the_same_as_a_bulk_update(line: Line, tmp_path: Path, share: dict[str, float] | None) -> None:
    run, folder = run_with(line, tmp_path, pictures_per_item=2), tmp_path / "index"
    config = run / "stage2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"category_share": share}))
    assert smar("embed", run, line.dataset, "--out", tmp_path / "embeddings").code == 0
    assert smar("index", tmp_path / "embeddings", "--out", folder).code == 0
    names = list(PICTURES)
    table = pa.table(
        {"item_id": names, "image": list(PICTURES.values())} | {name: [value] * 3 for name, value in COLUMNS.items()}
    )
    pq.write_table(table, tmp_path / "items.parquet")
    update_index(folder, run, [str(tmp_path / "items.parquet")], [])
    bulk = UpdatableIndex.open(folder).snapshot

    index, encoder = open_for_update(folder, run)
    options = ImageOptions.of(run_settings(run).data)
    schema = index.snapshot.schema
    prepared = [prepare_item(check_columns(f"own-{name}", COLUMNS, schema), PICTURES[name], options) for name in names]
    items = encode(encoder, schema, prepared, options.size)
    assert items.mixed is (share is not None)
    index.upsert(items)
    own = index.snapshot
    for name in names:
        np.testing.assert_allclose(vectors_of(own, f"own-{name}"), vectors_of(bulk, name), atol=1e-5)
        rows = own.catalogue.row_of(f"own-{name}"), bulk.catalogue.row_of(name)
        assert None not in rows
        assert own.catalogue.items(rows[:1])[0] == bulk.catalogue.items(rows[1:])[0] | {"item_id": f"own-{name}"}
        assert own.catalogue.picture(rows[0]) == bulk.catalogue.picture(rows[1])
    both = [vectors_of(own, f"own-{name}")[0] for name in names]
    seen = 1 if share is None else share["Kettle"]  # a mixture has this share of what a picture changes
    assert np.abs(both[0] - both[1]).max() > 1e-3 * seen, "a picture counts"
    fewer = schema.remove(schema.get_field_index("price"))
    with pytest.raises(RefusedItem, match="no column price any more"):
        encode(encoder, fewer, prepared, options.size)


OPTIONS = ImageOptions.of(DataSettings())


def picture(kind: str, size: tuple[int, int], mode: str = "L", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 60).save(buffer, kind, **options)
    return buffer.getvalue()


def test_a_picture_to_search_with_has_fewer_pixels() -> None:
    """A JPEG may have more: it is decoded at a reduced scale, as a phone's photo of 50 megapixels."""
    small, large = picture("PNG", (5000, 5000)), picture("PNG", (8000, 7000))
    assert decode_searched(small, OPTIONS).status == "ok"
    assert decode_picture(large, OPTIONS).status == "ok"
    with pytest.raises(
        RefusedItem, match=r"25,000,000.*; it has 69,\d{3} bytes; allowed: 20,000,000 bytes, 25,000,000 pixels\)"
    ) as refused:
        decode_searched(large, OPTIONS)
    assert refused.value.code == "picture_too_large"
    assert decode_searched(picture("JPEG", (8000, 7000)), OPTIONS).status == "ok"
    assert decode_searched(picture("JPEG", (8000, 7000), "RGB", progressive=True), OPTIONS).status == "ok"
    fewer = replace(OPTIONS, max_pixels=1_000_000)
    for kind in ("PNG", "JPEG"):
        with pytest.raises(RefusedItem, match="allowed: 20,000,000 bytes, 1,000,000 pixels"):
            decode_searched(picture(kind, (1001, 1000)), fewer)


def test_a_jpeg_of_many_scans_is_large() -> None:
    """Each of them costs a pass over all pixels, and may have a hundred bytes."""
    whole = picture("JPEG", (3000, 3000), progressive=True)
    last = [found.start() for found in re.finditer(b"\xff\xda", whole)][-1]
    many = whole[:-2] + whole[last:-2] * 200 + whole[-2:]
    assert len(many) < 100_000
    assert decode_searched(whole, OPTIONS).status == "ok"
    for look in (decode_searched, decode_picture):
        with pytest.raises(RefusedItem, match=r"3000x3000 pixels in 2\d\d scans are 1,\d{3},000,000, allowed"):
            look(many, OPTIONS)


def test_a_picture_to_search_with_is_of_a_format_that_browsers_show() -> None:
    for kind in ("PPM", "TIFF", "BMP"):
        assert decode_picture(picture(kind, (40, 30)), OPTIONS).status == "ok"
        with pytest.raises(RefusedItem, match="allowed: JPEG, PNG, WEBP, GIF, AVIF") as refused:
            decode_searched(picture(kind, (40, 30)), OPTIONS)
        assert refused.value.code == "picture_not_an_image"


def test_a_searched_jpeg_is_decoded_as_the_catalogue_s() -> None:
    """So that a shop's own picture finds its item."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(noise).resize((1200, 900)).save(buffer, "JPEG")
    found, own = (look(buffer.getvalue(), OPTIONS).packed for look in (decode_searched, decode_picture))
    np.testing.assert_array_equal(found, own)
