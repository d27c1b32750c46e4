"""A large index made as a user makes one, kept under build/ for the next run.

A model of the default configuration with random weights (as fast as trained ones) and a tokenizer fitted on the titles
is exported with `smar.export`. Item vectors lie around the query vectors of their cluster, at an offset, so that
searching for words has neighbours that mean something. `smar index` makes the index of them.
"""

import hashlib
import json
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import smar
from parts import generated, shop
from parts.generated import OFFSET, item_vectors, uneven_clusters
from smar.core.files import xxh3
from smar.search.embeddings import (
    PAYLOAD_FILE,
    PICTURES_FILE,
    QUERY_FOLDER,
    VALID_FILE,
    EmbeddingManifest,
    ShardEntry,
)

SHARD = 50_000
_TABLE, _TITLES = 1_000_000, 100_000
VALID, HELD_OUT = 1000, 500
_PER_CLUSTER = 4  # queries whose mean vector is a cluster's centre
_GATE_SPREAD = 2.0  # a trained gate is sure of many queries; a random one is near 1/2 for all


@dataclass(frozen=True)
class Built:
    """Folders, and what `smar index` took; `seconds` are wall and `cpu_seconds` those of all its threads."""

    embeddings: Path
    index: Path
    cpu_seconds: float
    seconds: float
    peak_mb: float
    reused: bool

    @property
    def queries(self) -> dict[str, list[str]]:
        """`load`: to ask in order; `held_out`: for recall, none of `load` and of the validation queries."""
        return json.loads((self.embeddings / "queries.json").read_text())

    @property
    def near(self) -> np.ndarray:
        """Inner product of the held-out queries, then those of `load`, with the mean item of each category."""
        return np.load(self.embeddings / "near.npy")

    @property
    def categories(self) -> list[str]:
        """Names of the columns of `near`."""
        return json.loads((self.embeddings / "categories.json").read_text())


def build(store: Path, items: int, queries: int) -> Built:
    """The index of `items` generated items in the folder `store`, from an earlier run where the same code made it."""
    sources = Path(smar.__file__).parent
    here = [Path(__file__), Path(shop.__file__), Path(generated.__file__)]
    made_by = _digest([*here, *sorted((sources / "model").rglob("*.py")), *sorted((sources / "export").rglob("*.py"))])
    embeddings = store / f"embeddings-{items}-{queries}-{made_by}"
    if not (embeddings / "manifest.json").exists():
        _forget(store, f"embeddings-{items}-{queries}-*")
        write_embeddings(embeddings, items, queries)
    index = store / f"index-{items}-{queries}-{made_by}-{_digest(sorted((sources / 'search' / 'local').rglob('*.py')))}"
    record = index.with_suffix(".json")
    if reused := record.exists():
        return Built(embeddings, index, **json.loads(record.read_text()), reused=reused)
    _forget(store, f"index-{items}-{queries}-*")
    took = _index(embeddings, index)
    record.write_text(json.dumps(took))
    return Built(embeddings, index, **took, reused=False)


def _digest(paths: list[Path]) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:8]


def _forget(store: Path, pattern: str) -> None:
    """Remove what earlier code made: a million items take 2 GB."""
    for path in store.glob(pattern):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _index(embeddings: Path, index: Path) -> dict[str, float]:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "smar", "index", str(embeddings), "--out", str(index)]
    subprocess.run(command, check=True, timeout=3600, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "seconds": time.perf_counter() - started,
        "peak_mb": after.ru_maxrss / 1024,
    }


def write_embeddings(folder: Path, items: int, queries: int) -> None:
    print(f"generating {items:,} items in {folder}", file=sys.stderr, flush=True)
    rng = np.random.default_rng(0)
    clusters = min(3000, max(60, items // 50))
    words, cluster = shop.draw_words(rng, clusters), uneven_clusters(rng, items, clusters)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    some_titles = _payload(folder / PAYLOAD_FILE, rng, words, cluster)
    (folder / PICTURES_FILE).touch()
    asked = shop.distinct_queries(rng, words, cluster, queries + VALID + HELD_OUT)
    load, valid, held_out = asked[: -VALID - HELD_OUT], asked[-VALID - HELD_OUT : -HELD_OUT], asked[-HELD_OUT:]
    (folder / "queries.json").write_text(json.dumps({"load": load, "held_out": held_out}))
    (folder / "categories.json").write_text(json.dumps(words.category_name.tolist()))
    # nobody clicked: validation needs the queries alone, to tune how many lists are visited
    clicked = shop.item_ids(rng.integers(items, size=len(valid)))
    pq.write_table(pa.table([valid, clicked, np.ones(len(valid))], ["query", "item_id", "weight"]), folder / VALID_FILE)
    encoder = _encoder(folder, some_titles + load[:20_000], load[:2000])
    repeated = shop.queries(rng, words, np.repeat(np.arange(clusters), _PER_CLUSTER))
    vectors, _ = encoder.encode_queries(repeated)
    centre = vectors.reshape(clusters, _PER_CLUSTER, -1).mean(axis=1)
    centre -= centre.mean(axis=0)
    spread = np.linalg.cholesky(np.cov(centre.T) + 1e-6 * np.eye(centre.shape[1])).T.astype(np.float32)
    entries = []
    sums = np.zeros((shop.CATEGORIES, 2 * centre.shape[1]))
    for start in range(0, items, SHARD):
        block = cluster[start : start + SHARD]
        joined = item_vectors(rng, centre[block], spread)
        sums += (words.category[block] == np.arange(shop.CATEGORIES)[:, None]).astype(np.float32) @ joined
        entries.append(_shard(folder, len(entries), shop.item_ids(range(start, start + len(block))), joined))
    asked, _ = encoder.encode_queries(held_out + load)
    mean = (sums / np.bincount(words.category[cluster], minlength=shop.CATEGORIES).clip(1)[:, None]).astype(np.float32)
    np.save(folder / "near.npy", np.concatenate([asked, asked], axis=1) @ mean.T)
    EmbeddingManifest(
        fingerprint=encoder.fingerprint,
        kind="smar",
        dim=centre.shape[1],
        items=items,
        shards=tuple(entries),
        text_fields=("title",),
    ).write(folder)


def _payload(path: Path, rng: np.random.Generator, words: shop.Words, cluster: np.ndarray) -> list[str]:
    """Write the items' columns, a million at a time; returns some of the titles."""
    some: list[str] = []
    writer = None
    for first in range(0, len(cluster), _TABLE):
        table = shop.payload(rng, words, cluster[first : first + _TABLE], first)
        some = some or table["title"].slice(0, _TITLES).to_pylist()
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    writer.close()
    return some


def _shard(folder: Path, number: int, item_id: list[str], joined: np.ndarray) -> ShardEntry:
    path, dim = folder / f"shard-{number:05d}.parquet", joined.shape[1] // 2
    halves = [np.ascontiguousarray(part) for part in (joined[:, dim:], joined[:, :dim])]
    lists = [pa.FixedSizeListArray.from_arrays(pa.array(half.ravel()), dim) for half in halves]
    pq.write_table(pa.table([item_id, *lists], ["item_id", "text", "multimodal"]), path)
    return ShardEntry(file=path.name, rows=len(item_id), xxh3=xxh3(path))


def _encoder(folder: Path, texts: list[str], queries: list[str]):
    """A default model with random weights, exported for the service and saved for a peer."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from smar.core.settings import Settings
    from smar.export.onnx import export_query
    from smar.model.configuration import build_config
    from smar.model.encoder import Encoder
    from smar.model.modeling import SmarModel
    from smar.model.processing import build_processor

    disable_progress_bar()
    torch.manual_seed(0)
    settings = Settings()
    processor = build_processor(settings.model, settings.data.image_size, texts)
    vocabulary = len(processor.tokenizer)
    model = SmarModel(build_config(settings.model, settings.data.image_size, vocabulary, ("title",), 1 / 30)).eval()
    with torch.inference_mode():
        tokens = processor.tokenizer(queries, padding=True, return_tensors="pt")
        _, pooled = model.query_tower(tokens["input_ids"], tokens["attention_mask"])
        projected, logit = model.query_tower.projection(pooled), model.gate(pooled)
    with torch.no_grad():
        # a random tower gives all queries one large common part; of a trained one's vectors it is the gap to the items
        gap = torch.randn(projected.shape[1]) * OFFSET * projected.std(0)
        model.query_tower.projection.bias.copy_(gap - projected.mean(0))
        head = model.gate.mlp[-1]
        scale = _GATE_SPREAD / logit.std()
        model.gate.set_head(head.weight[0] * scale, float(-logit.mean() * scale))
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    encoder = Encoder.from_pretrained(folder / "model")
    export_query(encoder, folder / QUERY_FOLDER, queries[:50])
    return encoder
