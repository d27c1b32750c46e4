"""Ranking and judgement files."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smar.errors import InputError
from smar.evaluation.evaluate import Catalogue, adaptive_blocks, rank, read_qrels


@given(
    scores=st.lists(st.lists(st.integers(0, 3), min_size=4, max_size=4), min_size=1, max_size=5),
    depth=st.integers(1, 6),
)
def test_rank_sorts_by_score_then_row(scores, depth):
    block = np.array(scores, np.float32)
    slow = [sorted(range(4), key=lambda item: (-row[item], item))[:depth] for row in block]
    got = rank(iter([block[:2], block[2:]] if len(block) > 2 else [block]), depth)
    values = np.take_along_axis(block, got, 1)
    assert values.tolist() == [[row[item] for item in order] for row, order in zip(block, slow, strict=True)]
    assert all(len(set(row)) == len(row) for row in got.tolist())


def test_adaptive_blocks_mix_the_two_scores_by_the_gate():
    rng = np.random.default_rng(0)
    text, multimodal, query = (rng.normal(size=(n, 4)).astype(np.float32) for n in (6, 6, 3))
    p = np.array([0.0, 0.25, 1.0], np.float32)
    blocks = np.concatenate(list(adaptive_blocks(query, p, Catalogue(text, text, multimodal), size=2)))
    for row in range(3):
        expected = p[row] * multimodal @ query[row] + (1 - p[row]) * text @ query[row]
        assert blocks[row] == pytest.approx(expected, abs=1e-5)


def test_qrels_come_from_parquet_or_csv_and_are_normalised(tmp_path):
    table = pa.table({"query": ["  Red   DRESS"], "item_id": ["7"], "relevance": [2]})
    pq.write_table(table, tmp_path / "q.parquet")
    (tmp_path / "q.csv").write_text("query,item_id,relevance\n  Red   DRESS,7,2\n")
    for name in ("q.parquet", "q.csv"):
        read = read_qrels(str(tmp_path / name))
        assert read["query"].to_pylist() == ["red dress"]
        assert read["relevance"].to_pylist() == [2]


def test_qrels_that_lack_a_column_or_a_file_are_refused(tmp_path):
    (tmp_path / "q.csv").write_text("query,item_id\nred,7\n")
    with pytest.raises(InputError, match="lacks relevance; it has query, item_id"):
        read_qrels(str(tmp_path / "q.csv"))
    with pytest.raises(InputError, match="cannot be read"):
        read_qrels(str(tmp_path / "absent.parquet"))
