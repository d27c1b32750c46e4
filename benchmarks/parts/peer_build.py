"""The peer's folder: the same query tower for sentence-transformers, the same vectors in usearch, the same items.

The peer has no gate: a query scores an item by the mean of its two inner products. Its search is widened until it
reaches the recall that is asked of smar, too.
"""

import importlib.util
import json
import os
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from parts.generated import exact, recall
from smar.search.embeddings import PAYLOAD_FILE, Embeddings

PACKAGES = ("sentence_transformers", "usearch")
RECALL = 0.95
K = 50
_COLUMNS = ("item_id", "title", "category", "brand", "price", "in_stock")
_TUNED_ON = 200


def missing() -> list[str]:
    """Packages that the peer needs and that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def build_peer(embeddings: Path, queries: list[str]) -> dict[str, float]:
    """Make ``embeddings/peer`` where an earlier run has not; what it took, and its recall on half of `queries`."""
    folder, record = embeddings / "peer", embeddings / "peer" / "built.json"
    if not record.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        pq.write_table(pq.read_table(embeddings / PAYLOAD_FILE, columns=list(_COLUMNS)), folder / "items.parquet")
        _save_encoder(embeddings / "model", folder / "encoder")
        took = _index(embeddings, folder)
        record.write_text(json.dumps(took | _tune(embeddings, folder, queries[:_TUNED_ON])))
    return json.loads(record.read_text())


def _save_encoder(model: Path, out: Path) -> None:
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    from smar.model.encoder import Encoder

    transformers.utils.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()  # it misses the pooler, which the mean of the states replaces
    encoder = Encoder.from_pretrained(model)
    tower, bert = encoder.model.query_tower, out.with_name("bert")
    tower.encoder.save_pretrained(bert)
    encoder.processor.tokenizer.save_pretrained(bert)
    words = Transformer(str(bert), max_seq_length=encoder.config.query_length)
    dense = Dense(tower.projection.in_features, tower.projection.out_features, activation_function=torch.nn.Identity())
    dense.linear.load_state_dict(tower.projection.state_dict())
    SentenceTransformer(modules=[words, Pooling(tower.projection.in_features), dense, Normalize()]).save(str(out))


def _index(embeddings: Path, folder: Path) -> dict[str, float]:
    from usearch.index import Index

    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    index, start = None, 0
    for block in _blocks(embeddings):
        index = index or Index(ndim=block.shape[1], metric="ip")
        index.add(np.arange(start, start + len(block)), block, threads=os.cpu_count() or 1)
        start += len(block)
    index.save(str(folder / "vectors.usearch"))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"cpu_seconds": cpu, "seconds": time.perf_counter() - started}


def _blocks(embeddings: Path) -> Iterator[np.ndarray]:
    for shard in Embeddings(embeddings).shards():
        yield np.concatenate([shard.multimodal, shard.text], axis=1)


def _tune(embeddings: Path, folder: Path, queries: list[str]) -> dict[str, float]:
    from sentence_transformers import SentenceTransformer
    from usearch.index import Index

    vectors = SentenceTransformer(str(folder / "encoder"), device="cpu").encode(queries, normalize_embeddings=True)
    wide = np.concatenate([vectors, vectors], axis=1) / 2
    truth = exact(_blocks(embeddings), [(wide, None)], K)[0]
    index, width = Index.restore(str(folder / "vectors.usearch"), view=True), 32
    reached = 0.0
    while reached < RECALL and width < 4096:
        width *= 2
        index.expansion_search = width
        reached = recall((index.search(query, K).keys.tolist() for query in wide), truth)
    (folder / "expansion_search").write_text(str(width))
    return {"expansion_search": width, "recall": reached}
