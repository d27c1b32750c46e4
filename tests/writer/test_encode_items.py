"""Items in memory against the same items through tables: several pictures an item, and an item-side gate."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smar.data.images import ImageOptions
from smar.embedding.update import open_for_update, update_index
from smar.errors import InputError
from smar.index.live import UpdatableIndex
from smar.model.run import run_settings
from smar.writer.columns import check_columns
from smar.writer.encode import encode, prepare_item
from tiny_index import vectors_of
from tiny_line import Line, smar
from tiny_writer import float32_run, png

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
    run, folder = float32_run(line, tmp_path, pictures_per_item=2), tmp_path / "index"
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
    assert np.abs(both[0] - both[1]).max() > 1e-3, "a picture counts"
    fewer = schema.remove(schema.get_field_index("price"))
    with pytest.raises(InputError, match="no column price any more"):
        encode(encoder, fewer, prepared, options.size)
