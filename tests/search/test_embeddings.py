"""An embeddings folder is read whole and right, or refused with the file's name."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smar.core.errors import InputError
from smar.core.files import xxh3
from smar.search.embeddings import EmbeddingManifest, Embeddings
from tiny_index import DIM, rewrite_manifest


@pytest.fixture
def folder(embeddings: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(embeddings, tmp_path / "embeddings"))


def replace_shard(folder: Path, table: pa.Table) -> None:
    """Write the first shard anew and make the manifest agree with its bytes."""
    manifest = EmbeddingManifest.read(folder, "smar embed")
    path = folder / manifest.shards[0].file
    pq.write_table(table, path)
    shards = [shard.model_dump() for shard in manifest.shards]
    rewrite_manifest(folder, shards=[shards[0] | {"xxh3": xxh3(path)}, *shards[1:]])


def test_reads_every_item_in_order(folder: Path) -> None:
    source = Embeddings(folder)
    shards = list(source.shards())
    assert [name for shard in shards for name in shard.item_id] == source.payload["item_id"].to_pylist()
    for shard in shards:
        assert shard.text.shape == shard.multimodal.shape == (len(shard.item_id), DIM)
        np.testing.assert_allclose(np.linalg.norm(shard.multimodal, axis=1), 1, atol=1e-5)


def test_damaged_and_missing_shards(folder: Path) -> None:
    path = folder / "shard-00001.parquet"
    content = bytearray(path.read_bytes())
    content[-100] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"shard-00001.parquet is damaged"):
        list(Embeddings(folder).shards())
    path.unlink()
    with pytest.raises(InputError, match=r"shard-00001.parquet is missing"):
        list(Embeddings(folder).shards())


def test_payload_must_fit(folder: Path) -> None:
    payload = pq.read_table(folder / "payload.parquet")
    pq.write_table(payload.slice(1), folder / "payload.parquet")
    with pytest.raises(InputError, match=r"payload.parquet has 179 rows"):
        Embeddings(folder)
    pq.write_table(pa.concat_tables([payload.slice(1), payload.slice(0, 1)]), folder / "payload.parquet")
    with pytest.raises(InputError, match=r"shard-00000.parquet: its items are not those"):
        list(Embeddings(folder).shards())
    (folder / "payload.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"payload.parquet cannot be read as Parquet"):
        Embeddings(folder)
    (folder / "payload.parquet").unlink()
    with pytest.raises(InputError, match=r"payload.parquet is missing"):
        Embeddings(folder)


def test_manifest_must_fit(folder: Path) -> None:
    rewrite_manifest(folder, items=7)
    with pytest.raises(InputError, match="names 180 rows for 7 items"):
        Embeddings(folder)
    rewrite_manifest(folder, shards=[{"file": "../outside.parquet", "rows": 180, "xxh3": ""}])
    with pytest.raises(InputError, match="is not a manifest"):
        Embeddings(folder)


def test_vectors_must_be_unit_vectors_of_the_right_size(folder: Path) -> None:
    table = pq.read_table(folder / "shard-00000.parquet")
    vectors = table["text"].combine_chunks().flatten().to_numpy().copy()
    vectors[5 * DIM] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors), DIM)
    replace_shard(folder, table.set_column(1, "text", column))
    with pytest.raises(InputError, match="row 5 of text is not a unit vector"):
        list(Embeddings(folder).shards())
    replace_shard(folder, table.drop_columns(["text"]))
    with pytest.raises(InputError, match="column text is null, expected"):
        list(Embeddings(folder).shards())
    replace_shard(folder, table.slice(1))
    with pytest.raises(InputError, match="has 59 rows, the manifest says 60"):
        list(Embeddings(folder).shards())


def test_not_an_embeddings_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Run `smar embed`"):
        Embeddings(tmp_path)
