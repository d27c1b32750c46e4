"""Vectors that a program holds in memory, written as an embeddings folder."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from smar.core.errors import InputError
from smar.core.files import xxh3
from smar.embedding.shards import fixed
from smar.export.onnx import PROBE, export_query
from smar.model.encoder import Encoder, Floats
from smar.search.embeddings import PAYLOAD_FILE, QUERY_FOLDER, EmbeddingManifest, ShardEntry

SHARD = "shard-00000.parquet"


def write_arrays(encoder: Encoder, items: pa.Table, text: Floats, served: Floats, out: Path) -> None:
    """Write vectors and the query encoder of their model into the empty folder `out`.

    Args:
        encoder: the model of the vectors.
        items: one row an item: `item_id`, and the columns that an index shows and filters.
        text, served: float32 [items, k], in the items' order.
        out: an embeddings folder without pictures and validation queries.

    Raises:
        InputError: the vectors do not belong to the model or the items, or an `item_id` is missing or there twice.
    """
    ids = _checked_ids(items)
    for name, matrix in (("text", text), ("multimodal", served)):
        if matrix.shape != (len(ids), encoder.config.dim):
            raise InputError(
                f"the {name} vectors are {list(matrix.shape)}; {len(ids)} items of this model have "
                f"[{len(ids)}, {encoder.config.dim}]."
            )
    columns = {"item_id": ids, "text": fixed(text), "multimodal": fixed(served)}
    pq.write_table(pa.table(columns), out / SHARD, compression="none")
    pq.write_table(items.set_column(items.column_names.index("item_id"), "item_id", ids), out / PAYLOAD_FILE)
    export_query(encoder, out / QUERY_FOLDER, PROBE)
    EmbeddingManifest(
        fingerprint=encoder.fingerprint,
        kind=encoder.config.kind,
        gate="query" if encoder.config.category_share is None else "category",
        dim=encoder.config.dim,
        items=len(ids),
        shards=(ShardEntry(file=SHARD, rows=len(ids), xxh3=xxh3(out / SHARD)),),
        text_fields=tuple(name for name in encoder.config.text_fields if name in items.column_names),
    ).write(out)


def _checked_ids(items: pa.Table) -> pa.ChunkedArray:
    if "item_id" not in items.column_names:
        raise InputError(f"the items have no item_id; their columns: {', '.join(items.column_names)}.")
    ids = items["item_id"].cast(pa.string())
    if ids.null_count or len(ids.unique()) != len(ids):
        raise InputError("an item_id of the items is missing, or there twice: each item needs one of its own.")
    return ids
