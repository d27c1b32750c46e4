"""What words cost as a third voice: one query at a time in a large generated index, in this process.

    python benchmarks/voices.py [--items 1000000] [--queries 1000]

Two vectors, three voices and hybrid take turns at each query, so that a busy machine slows all of them. The index is
the one of benchmarks/serving.py, kept in build/bench-serving; its model has no voices, so fixed shares stand in.
Answers of three voices are compared with the sum over all items: speed that is bought with wrong ones is none.
"""

import argparse
import time

import numpy as np

from parts.built import build
from serving import STORE, K
from smar.data.voices import FEATURES, Voices
from smar.search.local.fusion import ask_all, voices_of
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.postings import Entries
from smar.search.protocol import Mode
from smar.search.query import QueryVectors
from smar.search.ranked import Queries

SHARES = Voices(
    typed=("red", "dress"),
    mean=(0.0,) * len(FEATURES),
    scale=(1.0,) * len(FEATURES),
    words=(0.0, 0.0, 0.1, 0.1, 0.0, 0.1, -1.0),
    pictures=(1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
)
AT_ONCE = 25
"""Queries whose sums over all items are in memory."""


def best_of_all(index: EmbeddedIndex, vectors: QueryVectors, k: int) -> list[np.ndarray]:
    """Rows of the `k` items of highest sum among all items of an index without updates."""
    segment, asked = index.segments[0], ask_all(index.segments, vectors.texts)
    blends, share = voices_of(index.segments, vectors, asked, SHARES)
    found, wide = [], Queries(vectors.embedding, share).wide
    for start in range(0, len(wide), AT_ONCE):
        vector_scores = wide[start : start + AT_ONCE] @ segment.store.vectors.T
        for scores, query, blend in zip(vector_scores, asked[start:], blends[start:], strict=False):
            sums = blend.vectors * scores
            for word in Entries.of(segment.words, query).words:
                sums[word.rows] += blend.words / query.unit * word.scores(slice(None))
            found.append(np.argpartition(-sums, k)[:k])
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--items", type=int, default=1_000_000)
    options.add_argument("--queries", type=int, default=1000)
    chosen = options.parse_args()
    built = build(STORE, chosen.items, 2 * chosen.queries)
    index = EmbeddedIndex.open(built.index)
    ways: dict[str, tuple[Mode, Voices | None]] = {
        "two vectors": (Mode.ADAPTIVE, None),
        "three voices": (Mode.ADAPTIVE, SHARES),
        "hybrid": (Mode.HYBRID, None),
    }
    texts = built.queries["held_out"][: chosen.queries]
    spent: dict[str, list[float]] = {name: [] for name in ways}
    rows = []
    for number, text in enumerate([*texts, *texts]):
        vectors = index.encoder.encode([text])
        for name, (mode, voices) in ways.items():
            index.encoder.voices = voices
            started = time.process_time()
            (ranked,) = index.rank(vectors, K, mode)
            seconds = time.process_time() - started
            if number >= len(texts):  # the first pass reads the files into memory
                spent[name].append(1000 * seconds)
                if voices is not None:
                    rows.append(ranked.rows)
    print(f"{chosen.items:,} items, {len(texts):,} queries, {K} hits; CPU ms of the search alone")
    for name, each in spent.items():
        p50, p99 = np.percentile(each, [50, 99])
        ratio = p50 / np.percentile(spent["two vectors"], 50)
        print(f"{name:13} p50 {p50:.3f}  p99 {p99:.3f}  mean {np.mean(each):.3f}  p50 of two vectors x {ratio:.2f}")
    truth = best_of_all(index, index.encoder.encode(texts), K)
    recall = np.mean([np.isin(best, own).mean() for best, own in zip(truth, rows, strict=True)])
    print(f"three voices: recall@{K} {recall:.4f} of the best by the sum over all items")


if __name__ == "__main__":
    main()
