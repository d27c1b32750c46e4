"""Judgement files: tables, and TREC's lines in the shapes that others publish."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smar.core.errors import InputError
from smar.evaluation.metrics import Relevance, read_judgements
from smar.evaluation.qrels import question_files, read_qrels
from smar.evaluation.trec import write_trec
from smar.evaluation.trec_input import read_topics

IDS = pa.chunked_array([["7", "c d", "50%"]])


def rows(path: Path, **options: object) -> list[tuple[str, str, int]]:
    table = read_qrels(str(path), IDS, **options).table
    return list(zip(*(table[name].to_pylist() for name in ("query", "item_id", "relevance")), strict=True))


def test_qrels_come_from_parquet_or_csv_and_are_normalised(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query": ["  Red   DRESS"], "item_id": ["7"], "relevance": [2]}), tmp_path / "q.parquet")
    (tmp_path / "q.csv").write_text("query,item_id,relevance\n  Red   DRESS,7,2\n")
    (tmp_path / "q.tsv").write_text("query\titem_id\trelevance\thidden\n  Red   DRESS\t7\t2\ttrue\n")
    (tmp_path / "q.jsonl").write_text('{"query": "  Red   DRESS", "item_id": "7", "relevance": 2}\n')
    for name in ("q.parquet", "q.csv", "q.tsv", "q.jsonl"):
        assert [(query, str(item), grade) for query, item, grade in rows(tmp_path / name)] == [("red dress", "7", 2)]


def test_qrels_that_lack_a_column_or_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text("query,item_id\nred,7\n")
    with pytest.raises(InputError, match="lacks relevance; it has query, item_id"):
        read_qrels(str(tmp_path / "q.csv"), IDS)
    for name in ("absent.parquet", "absent.trec", "absent"):
        with pytest.raises(InputError, match="cannot be read"):
            read_qrels(str(tmp_path / name), IDS)


def test_grades_are_not_rounded_in_silence() -> None:
    table = pa.table({"query": ["a", "b"], "item_id": ["7", "7"], "relevance": [1.0, 2.33]})
    with pytest.raises(InputError, match="relevance' must hold whole numbers"):
        read_judgements(table, IDS)
    assert read_judgements(table.slice(0, 1), IDS).relevance.grades.tolist() == [1]


def test_our_own_judgements_come_back(tmp_path: Path) -> None:
    queries = ['24" vanity', "dress"]
    relevance = Relevance.from_pairs([0, 0, 1], [1, 2, 0], [1, 3, 2], queries=2)
    write_trec(tmp_path, queries, IDS.to_pylist(), relevance, {})
    assert rows(tmp_path / "qrels.trec") == [('24" vanity', "c d", 1), ('24" vanity', "50%", 3), ("dress", "7", 2)]
    assert question_files(tmp_path / "qrels.trec") == [tmp_path / "qrels.trec", tmp_path / "topics.tsv"]


def test_published_shapes(tmp_path: Path) -> None:
    """trec_eval's blanks with junk grades, MS MARCO's tabs under .tsv, a packed file; ids encoded or not."""
    (tmp_path / "topics").write_bytes(b"301  Red DRESS\r\n302\tblue shoes\n\n303 more\n")
    topics = read_topics(tmp_path / "topics")
    assert topics == {"301": "red dress", "302": "blue shoes", "303": "more"}
    want = [("red dress", "7", 1), ("blue shoes", "50%", -2), ("red dress", "gone", 1)]
    lines = "301 0 7 1\n302 Q0 50% -2\n301 0 gone 1\n"
    shapes = {
        "qrels.txt": lines.encode(),
        "qrels.dev.tsv": lines.replace(" ", "\t").encode(),
        "qrels": lines.replace(" ", "  ").replace("\n", "\r\n").encode(),
        "qrels.trec.gz": gzip.compress(lines.encode()),
        "other.csv": lines.encode(),
    }
    for name, data in shapes.items():
        (tmp_path / name).write_bytes(data)
        assert rows(tmp_path / name, topics=topics) == want, name
    found = read_qrels(str(tmp_path / "qrels"), IDS, {"301": "red dress"})
    assert (len(found.table), found.unknown) == (2, 1)
    judged = read_judgements(found.table, IDS)
    assert (judged.queries, judged.unknown) == (["red dress"], 1)


@pytest.mark.parametrize(
    ("lines", "topics", "parts"),
    [
        ("1 0 7 1\n", None, ("name topics by number", "--topics FILE", "topics.tsv")),
        ("1 0 7 1\n", "2 shoes\n", ("no topic of --qrels", "'1'", "'2'")),
        ("1 0 7 high\n", "1 shoes\n", ("'1 0 7 high' has no finite whole number as its grade",)),
        ("1 0 7 1\n1 0 7\n", "1 shoes\n", ("has 3 columns", "topic iteration document grade")),
        ("1 0 7 1\n", "1\n", ("topics.tsv: line 1 has no query",)),
        ("1 0 7 1\n", "1 shoes\n1 dress\n", ("topic '1' has two queries, 'shoes' and 'dress'",)),
        ("1 0 7 1\n", "", ("is empty",)),
    ],
)
def test_unusable_judgements(tmp_path: Path, lines: str, topics: str | None, parts: tuple[str, ...]) -> None:
    (tmp_path / "q.trec").write_text(lines)
    if topics is not None:
        (tmp_path / "topics.tsv").write_text(topics)
    with pytest.raises(InputError) as refused:
        read_qrels(str(tmp_path / "q.trec"), IDS)
    assert all(part in str(refused.value) for part in parts), refused.value
