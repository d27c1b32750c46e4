"""Engines side by side on one machine: load rate, recall@50 and p50, without and with a filter, in one run.

    python benchmarks/engines.py --engines embedded,postgresql,lance,milvus

Vectors are drawn: items around centres, the multimodal vector near the text vector, queries near items. Each engine
is tuned by `smar index` to the same recall (0.98) in every mode; what is timed is one search after another, in this
process, with the columns of the hits.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from engine_shop import postgres
from smar.core.files import xxh3
from smar.search.embeddings import EmbeddingManifest, ShardEntry
from smar.search.engines import open_engine
from smar.search.filter_parser import parse_filter
from smar.search.loading import load
from smar.search.local import LocalIndex, build_index
from smar.search.protocol import Index, Mode, widen
from smar.search.query import QueryVectors
from tiny_index import DIM, FINGERPRINT, write_query_encoder

FILTERS = {"none": None, "half": "price<50", "1 in 20": "category=c7", "1 in 1000": "rare=r7"}
MODES = (Mode.ADAPTIVE, Mode.TEXT, Mode.MULTIMODAL)


def unit(matrix: np.ndarray) -> np.ndarray:
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def catalogue(folder: Path, items: int) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """An embeddings folder; its columns, and both vectors."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(items // 40, DIM))
    text = unit(centres[rng.integers(len(centres), size=items)] + rng.normal(0, 0.6, (items, DIM)))
    multimodal = unit(text + rng.normal(0, 0.12, (items, DIM)))
    table = pa.table(
        {
            "item_id": [f"i{at:07d}" for at in range(items)],
            "title": [f"title {at % 997}" for at in range(items)],
            "category": [f"c{at % 20}" for at in range(items)],
            "rare": [f"r{at % 1000}" for at in range(items)],
            "price": rng.uniform(0, 100, items).round(2),
        }
    )
    folder.mkdir(parents=True)
    write_query_encoder(folder / "query")
    pq.write_table(table, folder / "payload.parquet")
    entries = []
    for at, rows in enumerate(np.array_split(np.arange(items), 4)):
        path = folder / f"shard-{at:05d}.parquet"
        vectors = [pa.FixedSizeListArray.from_arrays(pa.array(own[rows].ravel()), DIM) for own in (text, multimodal)]
        pq.write_table(pa.table([table["item_id"].take(rows), *vectors], ["item_id", "text", "multimodal"]), path)
        entries.append(ShardEntry(file=path.name, rows=len(rows), xxh3=xxh3(path)))
    manifest = EmbeddingManifest(fingerprint=FINGERPRINT, kind="smar", dim=DIM, items=items, shards=tuple(entries))
    manifest.write(folder)
    return table, text, multimodal


def measure(index: Index, table: pa.Table, wide: np.ndarray, vectors: QueryVectors) -> list[tuple[str, float, float]]:
    """Of each filter: recall@50 of the worst mode, and milliseconds of the median search."""
    rows = []
    ids = np.array(table["item_id"].to_pylist())
    for name, text in FILTERS.items():
        filter = None if text is None else parse_filter(text, index.schema)
        mask = np.ones(len(ids), np.bool_) if filter is None else filter.mask(table)
        recall, spent = [], []
        for mode in MODES:
            shares = []
            for at in range(len(vectors)):
                scores = np.where(mask, wide @ widen(vectors[at : at + 1], mode)[0], -np.inf)
                best = set(ids[np.argpartition(-scores, 50)[: min(50, mask.sum())]].tolist())
                started = time.perf_counter()
                (hits,) = index.search(vectors[at : at + 1], 50, mode, filter)
                spent.append(1000 * (time.perf_counter() - started))
                shares.append(len(best & {hit.item_id for hit in hits}) / len(best))
            recall.append(float(np.mean(shares)))
        rows.append((name, min(recall), float(np.median(spent))))
    return rows


def report(name: str, index: Index, seconds: float, table: pa.Table, wide: np.ndarray, vectors: QueryVectors) -> None:
    for filter, recall, p50 in measure(index, table, wide, vectors):
        rate = f"{len(table) / seconds:,.0f}" if filter == "none" else ""
        print(f"| {name} | {filter} | {recall:.3f} | {p50:.1f} | {rate} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--engines", default="embedded,postgresql,lance,milvus")
    options = parser.parse_args()
    print(
        "| engine | filter leaves | recall@50, worst mode | p50 ms | items loaded a second |\n|---|---|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory(prefix="engines-") as work, postgres() as server:
        folder = Path(work) / "embeddings"
        table, text, multimodal = catalogue(folder, options.items)
        wide, rng = np.concatenate([multimodal, text], axis=1), np.random.default_rng(1)
        near = unit(text[rng.choice(len(text), options.queries)] + rng.normal(0, 0.1, (options.queries, DIM)))
        vectors = QueryVectors(near, rng.random(options.queries).astype(np.float32))
        urls = {
            "postgresql": server,
            "lance": f"lance://{work}/shop",
            "milvus": f"milvus://{work}/shop.db/shop",
        }
        for name in options.engines.split(","):
            started = time.perf_counter()
            if name == "embedded":
                build_index(folder, Path(work) / "index")
                local = LocalIndex.open(Path(work) / "index")
                report(name, local, time.perf_counter() - started, table, wide, vectors)
                continue
            load(folder, urls[name])
            spent = time.perf_counter() - started
            engine = open_engine(urls[name], deadline=60)
            report(name, engine.index, spent, table, wide, vectors)
            engine.close()


if __name__ == "__main__":
    main()
