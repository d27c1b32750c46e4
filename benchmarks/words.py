"""The words of a catalogue: our postings beside tantivy and bm25s, on the same words, in one run.

    python benchmarks/words.py DATA [--items 200000] [--queries 500]

DATA is a folder with `items.parquet` (item_id, title) and `qrels-train.parquet` (query, item_id, relevance of 0 to 3),
as `../shared/data/homedepot`. Up to `--items`, titles are added that are made of halves of two real ones. All engines
get the words that `smar.data.words` makes. `pip install tantivy` first. Times are CPU milliseconds of one thread;
"overlap" is the share of the exact best 50 that is found, ties counted as found; "judged" that of the judged items.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tantivy

from smar.data.bm25 import Bm25
from smar.data.words import words
from smar.search.local.postings import Entries, best_rows
from smar.search.local.word_index import WORDS_FOLDER, WordIndex, write_words

K = 50
Search = Callable[[str], np.ndarray]


def catalogue(data: Path, items: int) -> pa.Table:
    """Real titles first, then made ones; and a price."""
    table, rng = pq.read_table(data / "items.parquet", columns=["item_id", "title"]), np.random.default_rng(0)
    titles = table["title"].to_pylist()
    pairs = rng.integers(len(titles), size=(max(0, items - len(titles)), 2))
    split = [title.split() for title in titles]
    made = [" ".join(split[a][: len(split[a]) // 2] + split[b][len(split[b]) // 2 :]) for a, b in pairs]
    ids = [*table["item_id"].to_pylist(), *(f"made-{at}" for at in range(len(made)))]
    titles = [*titles, *made]
    return pa.table({"item_id": list(map(str, ids)), "title": titles, "price": rng.integers(1000, size=len(titles))})


class Tantivy:
    """tantivy in one folder, words as they are; its scores are BM25 with lengths kept in one byte."""

    def __init__(self, folder: Path) -> None:
        schema = tantivy.SchemaBuilder()
        schema.add_text_field("title", tokenizer_name="whitespace", index_option="freq")
        schema.add_integer_field("row", indexed=True, fast=True)
        schema.add_integer_field("price", indexed=True, fast=True)
        self.schema = schema.build()
        folder.mkdir()
        self.index = tantivy.Index(self.schema, str(folder))

    def add(self, titles: list[str], prices: list[int], first: int) -> None:
        writer = self.index.writer(200_000_000, 1)
        for at, (title, price) in enumerate(zip(titles, prices, strict=True), start=first):
            writer.delete_documents_by_term("row", at)
            writer.add_document(tantivy.Document(title=" ".join(words(title)), row=at, price=price))
        writer.commit()
        writer.wait_merging_threads()
        self.index.reload()
        self.searcher = self.index.searcher()

    def search(self, text: str, most: int | None = None) -> np.ndarray:
        terms = [tantivy.Query.term_query(self.schema, "title", word) for word in words(text)]
        query = tantivy.Query.boolean_query([(tantivy.Occur.Should, term) for term in terms])
        if most is not None:
            cheap = tantivy.Query.range_query(self.schema, "price", tantivy.FieldType.Integer, 0, most - 1)
            cheap = tantivy.Query.const_score_query(cheap, 0.0)
            query = tantivy.Query.boolean_query([(tantivy.Occur.Must, query), (tantivy.Occur.Must, cheap)])
        addresses = [address for _, address in self.searcher.search(query, K, count=False).hits]
        return np.array(self.searcher.fast_field_values("row", addresses), np.int64)


def measured(name: str, search: Search, texts: list[str], scores: list[np.ndarray], judged: list[set[int]]) -> None:
    search(texts[0])
    spent, overlap, found_judged, wanted = [], [], 0, 0
    for text, exact, good in zip(texts, scores, judged, strict=True):
        started = time.thread_time()
        rows = search(text)
        spent.append(1000 * (time.thread_time() - started))
        best = min(K, int((exact > 0).sum()))
        if best:
            least = np.partition(exact, -best)[-best]
            overlap.append((exact[rows] >= 0.9999 * least).sum() / best)
        found_judged, wanted = found_judged + len(good & set(rows.tolist())), wanted + len(good)
    print(
        f"{name:<22} p50 {np.percentile(spent, 50):7.3f}  mean {np.mean(spent):7.3f}"
        f"  p99 {np.percentile(spent, 99):7.3f} ms  overlap {np.mean(overlap):.3f}  judged {found_judged / wanted:.3f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=500)
    arguments = parser.parse_args()
    table = catalogue(arguments.data, arguments.items)
    place = {item_id: at for at, item_id in enumerate(table["item_id"].to_pylist())}
    qrels = pq.read_table(arguments.data / "qrels-train.parquet")
    qrels = qrels.filter(pc.greater_equal(qrels["relevance"], 2))
    relevant: dict[str, set[int]] = {}
    for query, item_id in zip(qrels["query"].to_pylist(), qrels["item_id"].to_pylist(), strict=True):
        relevant.setdefault(query, set()).add(place[str(item_id)])
    texts = sorted(relevant)[:: max(1, len(relevant) // arguments.queries)][: arguments.queries]
    with tempfile.TemporaryDirectory(prefix="smar-words-") as folder:
        run(Path(folder), table, texts, [relevant[text] for text in texts])


def built(name: str, make: Callable[[], object], folder: Path | None = None) -> None:
    started = time.process_time()
    make()
    size = sum(file.stat().st_size for file in folder.rglob("*")) / 1e6 if folder else 0
    print(f"{name:<22} built in {time.process_time() - started:.1f} CPU s; {size:.0f} MB", flush=True)


def run(folder: Path, table: pa.Table, texts: list[str], judged: list[set[int]]) -> None:
    titles, prices = table["title"].to_pylist(), table["price"].to_pylist()
    print(f"{len(titles):,} titles, {len(texts)} queries; words alone: ", end="")
    started = time.process_time()
    for title in titles:
        words(title)
    print(f"{time.process_time() - started:.1f} CPU s")
    built("ours, with n-grams", lambda: write_words(table, ["title"], folder / WORDS_FOLDER), folder / WORDS_FOLDER)
    mean = float(np.mean([len(words(title)) for title in titles]))
    own, peer = WordIndex(folder / WORDS_FOLDER, len(titles), ["title"], mean), Tantivy(folder / "tantivy")
    built("tantivy", lambda: peer.add(titles, prices, 0), folder / "tantivy")
    kept: list[Bm25] = []
    built("bm25s, our builder", lambda: kept.append(Bm25(titles)))
    library = kept[0]
    exact, cheap = [library.scores(text) for text in texts], np.array(prices)

    def ours(mask: np.ndarray | None) -> Search:
        return lambda text: best_rows(Entries.of(own, own.query(text)), K, mask)[0]

    def bm25s(text: str) -> np.ndarray:
        scores = library.scores(text)
        best = np.argpartition(scores, -K)[-K:]
        return best[np.argsort(-scores[best])]

    for most in (None, 100, 10):
        mask = None if most is None else cheap < most
        scores = exact if mask is None else [own_scores * mask for own_scores in exact]
        told = "" if most is None else f", {most / 1000:.0%} match"
        measured(f"ours{told}", ours(mask), texts, scores, judged)
        measured(f"tantivy{told}", lambda text, m=most: peer.search(text, m), texts, scores, judged)
        if most is None:  # it scores all items either way
            measured("bm25s", bm25s, texts, scores, judged)
    for changed in (1, 1000):
        built(f"tantivy, {changed:,} updates", lambda n=changed: peer.add(titles[:n], prices[:n], 0))
    measured("tantivy after updates", peer.search, texts, exact, judged)


if __name__ == "__main__":
    main()
