"""Other systems' TREC runs: ir_measures finds the same figures, hostile files are counted or refused."""

import gzip
from pathlib import Path

import bm25s
import ir_measures
import numpy as np
import pyarrow as pa
import pytest

from smar.core.errors import InputError
from smar.evaluation.foreign import ForeignRun, check_names, read_run
from smar.evaluation.metrics import Relevance, per_query
from smar.evaluation.scores import Task, places
from smar.evaluation.trec import write_trec

K = 5
QUERIES = ["red dress", "501", '24" vanity', "blue shoes"]
ITEMS = ["a", "b", "b-2", "c d", "50%", "é", "x1", "x2", "x3", "x4"]
RELEVANCE = Relevance.from_pairs([0, 0, 0, 1, 2, 2, 3], [0, 3, 9, 1, 4, 5, 2], [1, 2, 1, 1, 3, 1, 1], len(QUERIES))
TOPICS = {str(n): query for n, query in enumerate(QUERIES)}


def task(depth: int = 100, pairs: np.ndarray | None = None) -> Task:
    return Task(RELEVANCE, K, depth, np.zeros(0, np.int64) if pairs is None else pairs)


def read(path: Path, asked: Task | None = None, topics: dict[str, str] | None = TOPICS) -> ForeignRun:
    return read_run("theirs", path, QUERIES, topics, pa.chunked_array([ITEMS]), asked or task())


def agree(found: ForeignRun, run: Path, judged: Path) -> None:
    """Every query's figures are those of ir_measures, which asks trec_eval."""
    ours = per_query(found.ranked.ranking, RELEVANCE, K)
    measures = {
        ir_measures.R @ K: ours.recall,
        ir_measures.P @ K: ours.precision,
        ir_measures.nDCG(cutoff=K, gains={0: 0, 1: 1, 2: 3, 3: 7}): ours.ndcg,
        ir_measures.RR: ours.rr,
    }
    qrels = list(ir_measures.read_trec_qrels(str(judged)))
    theirs = ir_measures.iter_calc([*measures], qrels, ir_measures.read_trec_run(str(run)))
    each = {(found.measure, found.query_id): found.value for found in theirs}
    for measure, values in measures.items():
        for row, value in zip(ours.rows, values, strict=True):
            assert each.get((measure, str(row)), 0) == pytest.approx(value), (measure, row)


@pytest.fixture
def judged(tmp_path: Path) -> Path:
    write_trec(tmp_path, QUERIES, ITEMS, RELEVANCE, {})
    return tmp_path / "qrels.trec"


@pytest.mark.parametrize("seed", range(5))
def test_ties_unknown_items_and_missing_queries_are_as_in_trec_eval(tmp_path: Path, judged: Path, seed: int) -> None:
    """Scores tie often, some only in single precision; a query is missing, lines are in no order, ranks lie."""
    rng = np.random.default_rng(seed)
    documents = ["a", "b", "b-2", "c%20d", "50%25", "é", "x1", "x2", "x3", "x4", "gone", "Zz", "ß"]
    lines = [
        f"{query} Q0 {document} {rng.integers(9)} {rng.integers(3) + rng.choice([0, 1e-9])} them"
        for query in rng.permutation(4)[:3]
        for document in rng.permutation(documents)[: rng.integers(4, 13)]
    ]
    run = tmp_path / "run.trec"
    run.write_text("\n".join(rng.permutation(lines)) + "\n", encoding="utf-8")
    agree(read(run), run, judged)


def test_a_run_that_bm25s_ranked(tmp_path: Path, judged: Path) -> None:
    texts = [
        "red dress",
        "jeans 501",
        "shoes",
        "dress red long",
        'vanity 24"',
        "vanity",
        "red",
        "blue",
        "blue dress",
        "x",
    ]
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(texts, show_progress=False), show_progress=False)
    found, scores = retriever.retrieve(bm25s.tokenize(QUERIES, show_progress=False), k=7, show_progress=False)
    run = tmp_path / "bm25s.run"
    ids = ["a", "b", "b-2", "c%20d", "50%25", "é", "x1", "x2", "x3", "x4"]
    with run.open("w", encoding="utf-8") as file:  # as ranx writes it
        for query, (hits, values) in enumerate(zip(found, scores, strict=True)):
            for place, (hit, value) in enumerate(zip(hits, values, strict=True), start=1):
                file.write(f"{query} Q0 {ids[hit]} {place} {value} None\n")
    agree(read(run), run, judged)


def test_line_ends_packing_tabs_and_the_querys_own_text(tmp_path: Path) -> None:
    rows = [("0", "c%20d", 3.5), ("0", "a", 2), ("2", "50%25", 1e1)]
    plain = "".join(f"{topic} Q0 {item} 1 {score} t\n" for topic, item, score in rows)
    own = "".join(f"{QUERIES[int(topic)].upper()}\tQ0\t{item}\t1\t{score}\tmy tag\n" for topic, item, score in rows)
    raw = own.replace("%20", " ").replace("%25", "%")
    shapes = {
        "plain": plain.encode(),
        "crlf": plain.replace("\n", "\r\n").encode(),
        "bom, blanks": b"\xef\xbb\xbf" + plain.replace(" ", "   ").replace("\n", "  \n\n").encode(),
        "gz": gzip.compress(plain.encode()),
        "no last line end": plain.rstrip().encode(),
        "tabs": plain.replace(" ", "\t").encode(),
        "query text": own.encode(),
        "raw ids": raw.replace("\n", "\r\n").encode(),
    }
    for name, data in shapes.items():
        (tmp_path / name).write_bytes(data)
        found = read(tmp_path / name).ranked.ranking
        assert found[:, :2].tolist() == [[3, 0], [-1, -1], [4, -1], [-1, -1]], name


def test_topics_name_the_queries_and_a_second_topic_of_one_query_is_left_out(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.write_text("q9 Q0 a 1 1 t\nq7 Q0 b 1 1 t\nq9b Q0 b 1 9 t\nq8 Q0 a 1 1 t\n")
    found = read(run, topics={"q7": "blue shoes", "q9": "red dress", "q9b": "red dress", "q8": "not asked"})
    assert found.ranked.ranking.tolist() == [[0], [-1], [-1], [1]]
    assert "2 hits of other topics are left out" in found.note
    assert "2 queries have none" in found.note


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.write_text("0 Q0 a 1 1 t\n0 Q0 gone 2 3 t\n0 Q0 a 3 2 t\n0 Q0 c%20d 4 0 t\n77 Q0 a 1 1 t\n")
    found = read(run)
    assert found.ranked.ranking[0].tolist() == [-1, 0, 3]  # the unknown item keeps its place
    for part in (
        "3 hits of run",
        "3 queries have none",
        "1 hits of unknown items (gone, ...) keep their places",
        "1 repeated hits",
        "1 hits of other topics",
        "1 queries have ranks in another order",
    ):
        assert part in found.note


def test_deep_rankings_are_cut_where_ours_are_but_hidden_places_see_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    block = rng.random((len(QUERIES), len(ITEMS))).astype(np.float32)
    names = [item.replace("%", "%25").replace(" ", "%20") for item in ITEMS]
    run = tmp_path / "run"
    run.write_text(
        "".join(f"{q} Q0 {names[i]} 0 {block[q, i]:.9f} t\n" for q in range(4) for i in range(10) if (q, i) != (2, 5))
    )
    pairs = np.arange(len(RELEVANCE.items))
    block[2, 5] = -np.inf
    found = read(run, task(depth=6, pairs=pairs)).ranked
    assert found.ranking.shape == (4, 6)
    assert found.places.tolist() == places(block, 0, RELEVANCE, pairs).tolist()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0 Q0 a 1 nan t\n", ("'0 Q0 a 1 nan t' has no finite number as its score",)),
        ("0 Q0 a 1 2 t\n0 Q0 b 2 1,5 t\n", ("'0 Q0 b 2 1,5 t' has no finite number",)),
        ("0 Q0 a 1 inf t\n", ("no finite number",)),
        ("0 Q0 a 1 2 t\n0 Q0 b 2 1\n", ("has 5 columns", "topic Q0 document rank score tag")),
        ("0 Q0 red dress 1 2 t\n", ("has 7 columns",)),
        ("", ("is empty",)),
        ("\n \n", ("is empty",)),
        ("9 Q0 a 1 2 t\n", ("no topic is a query of this report; seen '9', asked 'red dress'", "--topics")),
        ("0 Q0 gone 1 2 t\n", ("no document is an item of the catalogue; seen gone",)),
        (b"PAR1\x00\x15\x04\xff\xfe\n\x00PAR1", ("cannot be read",)),
        (b"PAR1\x00\x15\n\x00PAR1", ("columns",)),
        (b"\x1f\x8b\x08\x00broken", ("cannot be read",)),
        (b"0 Q0 \xff\xfe 1 2 t\n", ("cannot be read", "utf-8")),
        (None, ("cannot be read", "No such file")),
    ],
)
def test_unusable_runs(tmp_path: Path, text: str | bytes | None, parts: tuple[str, ...]) -> None:
    if text is not None:
        (tmp_path / "run").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError) as refused:
        read(tmp_path / "run")
    assert all(part in str(refused.value) for part in ("--trec-run", *parts)), refused.value


def test_topics_that_count_from_1_are_refused_where_ours_count_from_0(tmp_path: Path) -> None:
    """As tools write them whose topics are line numbers."""
    (tmp_path / "run").write_text("".join(f"{n} Q0 a 1 1 t\n" for n in range(1, 5)))
    with pytest.raises(InputError, match="counts its topics from 1"):
        read(tmp_path / "run", topics=None)
    lines = {str(n): query for n, query in enumerate(QUERIES, start=1)}
    assert read(tmp_path / "run", topics=lines).ranked.ranking.tolist() == [[0]] * 4
    (tmp_path / "run").write_text("0 Q0 a 1 1 t\n4 Q0 a 1 1 t\n")
    assert "1 hits of other topics" in read(tmp_path / "run", topics=None).note


@pytest.mark.parametrize("name", ["bm25", "dpsr", "shuffled", "mine", "a b", "../a", "twice"])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InputError, match="--trec-run"):
        check_names(["twice", name], ["mine"])
    check_names(["twice", "solr-9"], ["mine"])
