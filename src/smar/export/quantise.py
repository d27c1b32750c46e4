"""The query path in 8 bits: smaller and faster, and measured before anyone may make it the default.

Weights of matrix products are stored as int8, one scale a column; activations are quantised as they come (dynamic).
What that costs is measured as the click recall of validation queries over the catalogue's own vectors.
"""

import logging
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from smar.core.errors import InputError, member
from smar.core.files import StrPath, sha256
from smar.search.embeddings import Embeddings, sample_clicks
from smar.search.local import exact_top
from smar.search.protocol import Mode, widen
from smar.search.query import INT8_FILE, Int8Cost, Precision, QueryEncoder, QueryManifest
from smar.search.ranked import Vectors

MAX_COST = 0.005
"""Recall@50 that int8 may cost and still be made the default."""
K = 50
_QUERIES = 1000


def add_int8(folder: StrPath, embeddings: StrPath, default: Precision | str = Precision.FLOAT32) -> QueryManifest:
    """Add ``model.int8.onnx`` to an exported query encoder, with its measured cost in the manifest.

    Raises:
        InputError: the embeddings are of another model or hold no validation queries, or int8 shall be the default and
            costs more than `MAX_COST`. The folder then stays as it was.
    """
    folder = Path(folder)
    embeddings = Path(embeddings)
    default = member(Precision, default, "precision")
    source = Embeddings(embeddings)
    manifest = QueryManifest.read(folder, "smar export")
    if source.manifest.fingerprint != manifest.fingerprint:
        raise InputError(
            f"{embeddings} is of model {source.manifest.fingerprint}, {folder} of model {manifest.fingerprint}: int8 "
            "must be measured on the vectors that it will search. Embed the catalogue with the same run."
        )
    valid = source.valid()
    if valid is None or not valid.num_rows:
        raise InputError(f"{embeddings} holds no validation queries to measure int8 on. Run `smar embed` again.")
    with tempfile.TemporaryDirectory(prefix="int8-", dir=folder) as work:
        small = Path(work) / INT8_FILE
        _quantise(folder / manifest.model_file(Precision.FLOAT32), small)
        small.replace(folder / INT8_FILE)
    files = manifest.files | {INT8_FILE: sha256(folder / INT8_FILE)}
    manifest.model_copy(update={"files": files}).write(folder)
    cost = measure_cost(folder, source, valid)
    if default is Precision.INT8 and cost.recall_cost > MAX_COST:
        manifest.write(folder)
        (folder / INT8_FILE).unlink()
        raise InputError(
            f"int8 costs {cost.recall_cost:.2%} of recall@{K} on {cost.queries} validation queries "
            f"({cost.float32:.4f} -> {cost.int8:.4f}); "
            f"as the default at most {MAX_COST:.1%} is allowed. Export with --precision float32."
        )
    done = manifest.model_copy(update={"files": files, "int8": cost, "precision": default})
    done.write(folder)
    return done


def _quantise(model: Path, out: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().addFilter(_no_advice)
    try:
        quantize_dynamic(model, out, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.getLogger().removeFilter(_no_advice)


def _no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing before quantization" not in record.getMessage()


def measure_cost(folder: Path, source: Embeddings, valid: pa.Table) -> Int8Cost:
    """Recall@50 of the clicked items, in float32 and in int8, over at most 1,000 validation queries."""
    clicked = sample_clicks(valid, _QUERIES)
    queries = list(clicked)
    asked = {
        precision: widen(QueryEncoder.load(folder, precision=precision).encode(queries), Mode.ADAPTIVE)
        for precision in Precision
    }
    found = _top(source, asked)
    recall = {
        precision: float(
            np.mean([len(clicked[q] & best) / len(clicked[q]) for q, best in zip(queries, top, strict=True)])
        )
        for precision, top in found.items()
    }
    pairs = zip(found[Precision.FLOAT32], found[Precision.INT8], strict=True)
    return Int8Cost(
        queries=len(queries),
        float32=recall[Precision.FLOAT32],
        int8=recall[Precision.INT8],
        recall_cost=1 - recall[Precision.INT8] / max(recall[Precision.FLOAT32], 1e-9),
        overlap=float(np.mean([len(a & b) / len(a) for a, b in pairs])),
    )


def _top(source: Embeddings, asked: dict[Precision, Vectors]) -> dict[Precision, list[set[str]]]:
    """Ids of the best 50 items of each query, shard by shard, both precisions in one pass."""
    queries = np.concatenate(list(asked.values()))
    blocks = (block for shard in source.shards() for block in shard.joined())
    found = exact_top(blocks, queries, min(K, source.manifest.items))
    ids = source.payload["item_id"].to_pylist()
    best = [{ids[row] for row in rows if row >= 0} for rows in found]
    count = len(best) // len(asked)
    return {precision: best[at * count : (at + 1) * count] for at, precision in enumerate(asked)}
