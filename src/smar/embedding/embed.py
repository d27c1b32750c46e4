"""`smar embed`: the catalogue's vectors, shard by shard; an interrupted run goes on where it stopped.

A shard is written under a temporary name and renamed, so a shard that is there is whole. ``job.json`` binds the folder
to the model's fingerprint and the dataset from the first shard on; ``manifest.json`` comes last and says "complete".
Any number of processes may write shards of one folder at once (`embed_part`, or Ray's tasks); one completes it.
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
from smar.core.files import Manifest, StrPath, atomic, create, link_or_copy
from smar.data.dataset import OWN_COLUMNS, SUGGESTIONS_FILE, Dataset
from smar.data.frequent_queries import with_filters
from smar.embedding.shards import JOB_FILE, Done, Shard, write_shards
from smar.export.onnx import export_query
from smar.model.device import CPU
from smar.model.encoder import Encoder
from smar.runners.run import Part
from smar.search.embeddings import PAYLOAD_FILE, PICTURES_FILE, QUERY_FOLDER, VALID_FILE, EmbeddingManifest

SHARD_ROWS = 4096


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


@dataclass(frozen=True)
class PartSummary:
    """What `embed_part` did: shards of the part, those that were there before, and of all parts."""

    shards: int
    reused: int
    of: int
    seconds: float


def embed(
    encoder: Encoder,
    dataset: Dataset,
    out: StrPath,
    shard_rows: int = SHARD_ROWS,
    devices: Sequence[torch.device | str] = (CPU,),
    runner: str = "local",
) -> EmbedSummary:
    """Encode the catalogue of `dataset` into `out`.

    Args:
        encoder: read from a folder, where there are several devices, or Ray.
        dataset: whose items are encoded.
        out: folder of the shards.
        shard_rows: items in a shard.
        devices: that encode: one in this process, several each in a process of its own, which takes shard after shard.
            With Ray: `auto`, `cpu` or `cuda`, which each task looks for where it runs.
        runner: `local` or `ray`.

    Raises:
        InputError: `out` holds vectors of another model or dataset, or a shard's process died again and again.
    """
    out = Path(out)
    started = time.perf_counter()
    done = _shards(encoder, dataset, out, shard_rows, devices, runner)
    total, ids = len(dataset.image_row), dataset.items["item_id"].to_pylist()
    if absent := [made.shard for made in done if not made.shard.path.is_file()]:
        raise InputError(f"{absent[0]} was made on another node and is not here: --out must be a shared folder.")
    manifest = EmbeddingManifest(
        fingerprint=encoder.fingerprint,
        kind=encoder.config.kind,
        gate="query" if encoder.config.category_share is None else "category",
        dim=encoder.config.dim,
        items=total,
        shards=tuple(made.entry for made in done),
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
    for left in out.glob("*.partial"):  # of processes that were killed
        left.unlink(missing_ok=True)
    manifest.write(out)
    return EmbedSummary(manifest, sum(not made.made for made in done), time.perf_counter() - started)


def embed_part(
    encoder: Encoder,
    dataset: Dataset,
    out: StrPath,
    part: Part,
    shard_rows: int = SHARD_ROWS,
    devices: Sequence[torch.device | str] = (CPU,),
    runner: str = "local",
) -> PartSummary:
    """Make one part's shards, in a folder that all parts share; `embed` then finds them and completes it.

    >>> from smar.model.run_folder import load_encoder
    >>> dataset, encoder = Dataset.open("dataset"), load_encoder("run")
    >>> [embed_part(encoder, dataset, "parted", Part(number, 2), 100).shards for number in (1, 2)]
    [2, 1]
    >>> embed(encoder, dataset, "parted", 100).reused
    3

    Args and Raises are those of `embed`.
    """
    started = time.perf_counter()
    done = _shards(encoder, dataset, Path(out), shard_rows, devices, runner, part)
    count = -(-len(dataset.image_row) // shard_rows)
    return PartSummary(len(done), sum(not made.made for made in done), count, time.perf_counter() - started)


def _shards(
    encoder: Encoder,
    dataset: Dataset,
    out: Path,
    shard_rows: int,
    devices: Sequence[torch.device | str],
    runner: str,
    part: Part = Part(1, 1),
) -> list[Done]:
    """The part's shards in the order of the items."""
    out = out.absolute()
    _claim(encoder, dataset, out, shard_rows)
    dataset.fields(tuple(encoder.config.text_fields))  # refused before anything is encoded
    total = len(dataset.image_row)
    starts = range(0, total, shard_rows)[part.slice]
    shards = [Shard(slice(at, min(at + shard_rows, total)), _shard_path(out, at // shard_rows)) for at in starts]
    done = write_shards(encoder, dataset, shards, devices, runner)
    return sorted(done, key=lambda made: made.shard.part.start)


def _shard_path(out: Path, number: int) -> Path:
    return out / f"shard-{number:05d}.parquet"


def _claim(encoder: Encoder, dataset: Dataset, out: Path, shard_rows: int) -> None:
    """Bind `out` to this model and dataset, or refuse when it is bound to others."""
    job = EmbedJob(fingerprint=encoder.fingerprint, dataset=dataset.digest, shard_rows=shard_rows)
    out.mkdir(parents=True, exist_ok=True)
    path = out / JOB_FILE
    foreign = any(file.suffix != ".partial" for file in out.iterdir())  # before the look at the job, which comes first
    if not path.is_file():
        if foreign:
            raise InputError(f"{out} is not empty and was not made by `smar embed`. Choose another --out.")
        create(path, job.model_dump_json(indent=2) + "\n")
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
