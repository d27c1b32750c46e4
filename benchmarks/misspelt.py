"""What misspelt queries find: real queries with one edit each, beside the same queries as they were written.

    python benchmarks/misspelt.py INDEX QRELS
    python benchmarks/misspelt.py --items 1000000 --words 500000

The first prints R@50 by words, by vectors and by both. QRELS has query, item_id and relevance; what counts is the
share of a query's items of relevance 2 and more that the best 50 hold. In each query one word of at least four letters
(a to z) gets one letter more or less, another one, or two swapped; queries without such a word are left out.

The second prints what words cost in a generated index: to build and to ask, CPU ms of one thread.
"""

import argparse
import random
import re
import string
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from parts.shop import lexicon
from smar.data.text import normalise
from smar.search.local.candidates import gather
from smar.search.local.fusion import DEPTH, ask_all
from smar.search.local.open_version import EmbeddedIndex
from smar.search.protocol import Mode, weigh
from smar.search.ranked import Queries

K = 50
RELEVANT = 2
SEED = 0
_WORD = re.compile(r"(?<![^\W_])[a-z]{4,}(?![^\W_])")
Rankings = dict[str, list[set[str]]]


def edited(word: str, rng: random.Random) -> str:
    """The word with one edit of a random kind at a random place."""
    while True:
        at, letter = rng.randrange(len(word)), rng.choice(string.ascii_lowercase)
        swapped = word[at + 1 : at + 2] + word[at]
        put_in, left_out = word[:at] + letter + word[at:], word[:at] + word[at + 1 :]
        made = rng.choice([put_in, left_out, word[:at] + letter + word[at + 1 :], word[:at] + swapped + word[at + 2 :]])
        if made != word:
            return made


def misspelt(query: str, rng: random.Random) -> str | None:
    """The query with one edit in one of its words; None where it has no word to edit."""
    places = list(_WORD.finditer(query))
    if not places:
        return None
    place = rng.choice(places)
    return query[: place.start()] + edited(place[0], rng) + query[place.end() :]


def wanted_items(path: Path) -> dict[str, set[str]]:
    table, found = pq.read_table(path, columns=["query", "item_id", "relevance"]), defaultdict(set)
    for query, item, relevance in zip(*(column.to_pylist() for column in table.columns), strict=True):
        if relevance >= RELEVANT:
            found[normalise(query)].add(item)
    return dict(sorted(found.items()))


def rankings(index: EmbeddedIndex, queries: Sequence[str]) -> Rankings:
    """Ids of each query's best 50 by each way of searching."""
    vectors = index.encoder.encode(queries)
    found: Rankings = {"vectors": [], "words": [], "hybrid": []}
    for name, mode in (("vectors", Mode.ADAPTIVE), ("hybrid", Mode.HYBRID)):
        found[name] = [ids(index, ranked.rows) for ranked in index.rank(vectors, K, mode)]
    asked = Queries(vectors.embedding, weigh(vectors, Mode.ADAPTIVE))
    tops = index.segments[0].top(asked, DEPTH, None)
    for at, words in enumerate(ask_all(index.segments, vectors.texts)):
        both = gather(index.segments, asked[at], words, tops[at], DEPTH, None)
        found["words"].append(ids(index, both.found.rows[(both.words_rank > 0) & (both.words_rank <= K)]))
    return found


def ids(index: EmbeddedIndex, rows: np.ndarray) -> set[str]:
    return {index.catalogue.item_id(row) for row in rows.tolist()}


def recall(found: list[set[str]], wanted: list[set[str]]) -> np.ndarray:
    return np.array([len(hits & items) / len(items) for hits, items in zip(found, wanted, strict=True)])


def quality(folder: Path, qrels: Path) -> None:
    index, wanted, rng = EmbeddedIndex.open(folder), wanted_items(qrels), random.Random(SEED)
    pairs = {query: misspelt(query, rng) for query in wanted}
    kept = {query: other for query, other in pairs.items() if other is not None}
    items = [wanted[query] for query in kept]
    print(f"{len(kept):,} queries of {len(wanted):,}, {len(index):,} items, {index.manifest.hybrid.fusion.value}")
    right, wrong = rankings(index, list(kept)), rankings(index, list(kept.values()))
    for name in right:
        before, after = (recall(found[name], items) for found in (right, wrong))
        draws = np.random.default_rng(SEED).integers(len(items), size=(2000, len(items)))
        low, high = np.percentile(after[draws].mean(axis=1) / before[draws].mean(axis=1), [2.5, 97.5])
        shown = f"R@{K} {before.mean():.4f}, one edit {after.mean():.4f}"
        print(f"{name:<8} {shown}, kept {after.mean() / before.mean():.3f} (95 % interval {low:.3f} to {high:.3f})")


def cpu_ms(call: Callable[[str], object], queries: Sequence[str]) -> str:
    spent = []
    for query in queries:
        started = time.thread_time()
        call(query)
        spent.append(1000 * (time.thread_time() - started))
    return f"p50 {np.percentile(spent, 50):.3f}  p99 {np.percentile(spent, 99):.3f} ms"


def generated(items: int, words: np.ndarray, rng: np.random.Generator) -> Iterator[str]:
    """Titles of eight words; the n-th word is used about 1/n as often as the first."""
    places = np.exp(rng.random((items, 8)) * np.log(len(words))).astype(np.int64) - 1
    places[: len(words) // 8] = np.arange(len(words) // 8 * 8).reshape(-1, 8)
    for row in places:
        yield " ".join(words[row])


def speed(items: int, count: int, queries: int = 400) -> None:
    from smar.search.local.fallback import Part, ask
    from smar.search.local.grams import write_grams
    from smar.search.local.postings import Entries, best_rows
    from smar.search.local.word_index import write_words

    rng, drawn = np.random.default_rng(SEED), random.Random(SEED)
    words = lexicon(rng, count)
    table = pa.table({"title": list(generated(items, words, rng))})
    with tempfile.TemporaryDirectory(prefix="smar-words-") as name:
        started = time.process_time()
        index = write_words(table, ["title"], Path(name) / "words")
        total, folder = time.process_time() - started, Path(name) / "words"
        started = time.process_time()
        write_grams(sorted(sorted(words.tolist()), key=len), Path(name))
        grams = time.process_time() - started
        size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
        own = sum(file.stat().st_size for file in folder.glob("gram*")) / 1e6
        print(f"{items:,} items, {len(words):,} words: built in {total:.1f} CPU s, {grams:.1f} of them n-grams")
        print(f"{size:.0f} MB, {own:.0f} of them n-grams")
        titles = table["title"].take(rng.integers(items, size=queries)).to_pylist()
        known = [" ".join(title.split()[:3]) for title in titles]
        unknown = [other for query in known if (other := misspelt(query, drawn)) is not None]
        part = [Part(index, None)]
        for name, texts in (("known words", known), ("one edit", unknown)):
            print(f"{name:<12} asked {cpu_ms(lambda text: ask(part, text), texts)}", end="   ")
            print(f"in all {cpu_ms(lambda text: best_rows(Entries.of(index, ask(part, text)), 200, None), texts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, nargs="?")
    parser.add_argument("qrels", type=Path, nargs="?")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--words", type=int, default=500_000)
    arguments = parser.parse_args()
    if arguments.qrels is None:
        speed(arguments.items, arguments.words)
    else:
        quality(arguments.index, arguments.qrels)


if __name__ == "__main__":
    main()
