"""`smar embed`: the catalogue's vectors, shard by shard; an interrupted run goes on where it stopped.

A shard is written under a temporary name and renamed, so a shard that is there is whole. ``job.json`` binds the folder
to the model's fingerprint and the dataset from the first shard on; ``manifest.json`` comes last and says "complete".
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from pydantic import ValidationError

from smar.core.errors import InputError
from smar.core.files import Manifest, StrPath, atomic, link_or_copy, xxh3
from smar.core.progress import track
from smar.data.dataset import OWN_COLUMNS, SUGGESTIONS_FILE, Dataset
from smar.data.suggestions import with_filters
from smar.embedding.shards import Shard, write_shards
from smar.export.onnx import export_query
from smar.model.device import CPU
from smar.model.encoder import Encoder
from smar.search.embeddings import PAYLOAD_FILE, PICTURES_FILE, QUERY_FOLDER, VALID_FILE, EmbeddingManifest, ShardEntry

SHARD_ROWS = 4096
JOB_FILE = "job.json"


class EmbedJob(Manifest):
    """``EMBEDDINGS/job.json``: what the shards of this folder are made of."""

    format: str = "smar-embed-job/2"
    fingerprint: str
    dataset: str
    shard_rows: int


@dataclass(frozen=True)
class EmbedSummary:
    """What `embed` did. `reused` counts shards that an earlier, interrupted call had written."""

    manifest: EmbeddingManifest
    reused: int
    seconds: float


def embed(
    encoder: Encoder,
    dataset: Dataset,
    out: StrPath,
    shard_rows: int = SHARD_ROWS,
    devices: Sequence[torch.device] = (CPU,),
) -> EmbedSummary:
    """Encode the catalogue of `dataset` into `out`.

    Args:
        encoder: read from a folder, where there are several devices.
        dataset: whose items are encoded.
        out: folder of the shards.
        shard_rows: items in a shard.
        devices: that encode: one in this process, several each in a process of its own, which takes shard after shard.

    Raises:
        InputError: `out` holds vectors of another model or dataset, or a process died.
    """
    out = Path(out)
    started = time.perf_counter()
    _claim(encoder, dataset, out, shard_rows)
    total = len(dataset.image_row)
    dataset.fields(tuple(encoder.config.text_fields))  # refused before anything is encoded
    ids = dataset.items["item_id"].to_pylist()
    starts = range(0, total, shard_rows)
    shards = [Shard(slice(at, min(at + shard_rows, total)), _shard_path(out, at // shard_rows)) for at in starts]
    missing = [shard for shard in shards if not _is_whole(shard.path)]
    for _ in track(write_shards(encoder, dataset, missing, devices), "embed (shards)", len(missing)):
        pass
    entries = [ShardEntry(file=shard.path.name, rows=len(ids[shard.part]), xxh3=xxh3(shard.path)) for shard in shards]
    manifest = EmbeddingManifest(
        fingerprint=encoder.fingerprint,
        kind=encoder.config.kind,
        gate="query" if encoder.config.category_share is None else "category",
        dim=encoder.config.dim,
        items=total,
        shards=tuple(entries),
        image_status=dict(Counter(dataset.items["image_status"].to_pylist())),
        text_fields=tuple(encoder.config.text_fields),
        language=dataset.language,
    )
    _write_payload(dataset, out)
    _write_valid(dataset, ids, out)
    if (suggestions := with_filters(dataset)) is not None:
        with atomic(out / SUGGESTIONS_FILE) as partial:
            pq.write_table(suggestions, partial)
    encoder.model.to(CPU)  # where the graph is traced and compared
    export_query(encoder, out / QUERY_FOLDER, _probe(dataset))
    manifest.write(out)
    return EmbedSummary(manifest, len(shards) - len(missing), time.perf_counter() - started)


def _shard_path(out: Path, number: int) -> Path:
    return out / f"shard-{number:05d}.parquet"


def _is_whole(path: Path) -> bool:
    """Is the shard there and do its pages fit their checksums? One that was damaged since is made again."""
    try:
        pq.read_table(path, page_checksum_verification=True)
    except (FileNotFoundError, OSError, pa.ArrowException):
        return False
    return True


def _claim(encoder: Encoder, dataset: Dataset, out: Path, shard_rows: int) -> None:
    """Bind `out` to this model and dataset, or refuse when it is bound to others."""
    job = EmbedJob(fingerprint=encoder.fingerprint, dataset=dataset.digest, shard_rows=shard_rows)
    out.mkdir(parents=True, exist_ok=True)
    path = out / JOB_FILE
    if path.is_file():
        try:
            before = EmbedJob.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError(f"{path} is damaged: {error}. Delete {out} to embed anew.") from None
        if before != job:
            raise InputError(
                f"{out} holds vectors of model {before.fingerprint} and dataset {before.dataset[:12]} "
                f"({before.format}); this is model "
                f"{job.fingerprint} and dataset {job.dataset[:12]} ({job.format}). Choose "
                f"another --out, or delete {out}."
            )
    elif any(file.suffix != ".partial" for file in out.iterdir()):
        raise InputError(f"{out} is not empty and was not made by `smar embed`. Choose another --out.")
    else:
        with atomic(path) as partial:
            partial.write_text(job.model_dump_json(indent=2) + "\n")


def _write_payload(dataset: Dataset, out: Path) -> None:
    keep = [name for name in dataset.items.column_names if name not in OWN_COLUMNS]
    with atomic(out / PAYLOAD_FILE) as partial:
        pq.write_table(dataset.items.select(keep), partial)
    link_or_copy(dataset.pictures, out / PICTURES_FILE)


def _write_valid(dataset: Dataset, ids: list[str], out: Path) -> None:
    """Validation pairs, for what is tuned and measured on queries after training."""
    pairs = dataset.pairs("valid")
    table = pa.table(
        {
            "query": pairs["query"],
            "item_id": pa.array([ids[at] for at in pairs["item_index"].to_pylist()], pa.string()),
            "weight": pairs["weight"].cast(pa.float64()),
        }
    )
    with atomic(out / VALID_FILE) as partial:
        pq.write_table(table, partial)


def _probe(dataset: Dataset) -> list[str]:
    """A few real queries, of several lengths, to compare the exported tower on."""
    queries = sorted(set(dataset.pairs("train")["query"].to_pylist()), key=len)
    return queries[:: max(1, len(queries) // 64)]
