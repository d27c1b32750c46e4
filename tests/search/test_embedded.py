"""Searching the embedded index, against plain numpy over all vectors."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smar.core.errors import InputError
from smar.search.embeddings import INTERNAL_COLUMNS, Embeddings
from smar.search.filter_parser import parse_filter
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.ready import plain
from smar.search.protocol import Mode
from smar.search.query import QueryVectors
from tiny_index import DIM

QUERIES = ["red shirt", "steel kettle", "pink watch small", "🙂"]


@pytest.fixture(scope="module")
def index(index_path: Path) -> EmbeddedIndex:
    return EmbeddedIndex.open(index_path)


@pytest.fixture(scope="module")
def queries(index: EmbeddedIndex) -> QueryVectors:
    return index.encoder.encode(QUERIES)


@pytest.fixture(scope="module")
def matrices(embeddings: Path) -> tuple[np.ndarray, np.ndarray]:
    shards = list(Embeddings(embeddings).shards())
    return np.concatenate([s.text for s in shards]), np.concatenate([s.multimodal for s in shards])


def twin(queries: QueryVectors, matrices: tuple[np.ndarray, np.ndarray], mode: Mode) -> np.ndarray:
    """All scores [queries, items] by the definition: p f_m + (1-p) f_t."""
    text, multimodal = (queries.embedding @ matrix.T for matrix in matrices)
    p = queries.image_probability[:, None]
    p = {Mode.TEXT: 0.0, Mode.MULTIMODAL: 1.0, Mode.ROUTE: p > queries.threshold}.get(mode, p)
    return p * multimodal + (1 - p) * text


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.HYBRID])
def test_scores_and_order(index: EmbeddedIndex, queries: QueryVectors, matrices: tuple, mode: Mode) -> None:
    scores = twin(queries, matrices, mode)
    for row, hits in enumerate(index.search(queries, 20, mode)):
        expected = np.argsort(-scores[row], kind="stable")[:20]
        np.testing.assert_allclose([hit.score for hit in hits], scores[row][expected], atol=1e-5)
        assert all(scores[row][hit.row] == pytest.approx(hit.score, abs=1e-5) for hit in hits)
        for hit in hits:
            assert hit.text_score == pytest.approx(float(queries.embedding[row] @ matrices[0][hit.row]), abs=1e-5)
            assert hit.multimodal_score == pytest.approx(float(queries.embedding[row] @ matrices[1][hit.row]), abs=1e-5)
            assert hit.payload["item_id"] == hit.item_id == index.catalogue.item_id(hit.row)
            assert not INTERNAL_COLUMNS & set(hit.payload)


def test_pictures_bring_in_what_titles_omit(index: EmbeddedIndex, queries: QueryVectors) -> None:
    with_pictures = index.search(queries, 10, Mode.MULTIMODAL)[0]
    assert any("red" not in hit.payload["title"].lower() for hit in with_pictures[:5])


def test_explain_knows_the_rank_without_pictures(index: EmbeddedIndex, queries: QueryVectors) -> None:
    by_text = {hit.item_id: rank for rank, hit in enumerate(index.search(queries, 180, Mode.TEXT)[0], start=1)}
    for hit in index.search(queries, 15, Mode.ADAPTIVE, explain=True)[0]:
        assert hit.rank_text == by_text[hit.item_id]
    assert all(hit.rank_text is None for hit in index.search(queries, 15)[0])
    assert [hit.rank_text for hit in index.search(queries, 3, Mode.TEXT)[0]] == [1, 2, 3]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("explain", [False, True])
def test_rank_is_search_in_arrays(index: EmbeddedIndex, queries: QueryVectors, mode: Mode, explain: bool) -> None:
    for chosen in (None, parse_filter("category=Shirt and price<60", index.schema)):
        found = index.rank(queries, 25, mode, chosen, explain)
        for ranked, hits in zip(found, index.search(queries, 25, mode, chosen, explain), strict=True):
            assert ranked.rows.tolist() == [hit.row for hit in hits]
            assert (ranked.rows.dtype, ranked.score.dtype, len(ranked)) == (np.int64, np.float32, len(hits))
            for name in ("score", "text_score", "multimodal_score"):
                assert getattr(ranked, name).tolist() == [getattr(hit, name) for hit in hits]
            known = None if ranked.rank_text is None else ranked.rank_text.tolist()
            assert (known is None) == (not explain and mode is not Mode.TEXT)
            assert known is None or known == [-1 if hit.rank_text is None else hit.rank_text for hit in hits]


def test_ready_json_is_the_payload(index: EmbeddedIndex) -> None:
    rows = np.random.default_rng(0).permutation(len(index))[:70]
    catalogue = index.catalogue
    ready = [json.loads(item) for item in catalogue.json(rows)]
    assert [item["item"] for item in ready] == plain(catalogue.items(rows.tolist()))
    assert [item["item_id"] for item in ready] == [catalogue.item_id(row) for row in rows]
    assert [item["picture"] is not None for item in ready] == [catalogue.has_picture(row) for row in rows]
    assert catalogue.pictured(rows).tolist() == [catalogue.has_picture(row) for row in rows]
    assert catalogue.json(rows[:0]) == []


def test_filters(index: EmbeddedIndex, queries: QueryVectors, matrices: tuple) -> None:
    chosen = parse_filter("category=Shirt and price<100", index.schema)
    mask = chosen.mask(index.catalogue.table)
    scores = np.where(mask, twin(queries, matrices, Mode.ADAPTIVE), -np.inf)
    for k in (5, int(mask.sum()), 200):
        for row, hits in enumerate(index.search(queries, k, filter=chosen)):
            assert len(hits) == min(k, mask.sum())
            assert all(mask[hit.row] for hit in hits)
            best = np.sort(scores[row])[::-1][: len(hits)]
            np.testing.assert_allclose([hit.score for hit in hits], best, atol=1e-5)


def test_a_filter_that_nothing_passes(index: EmbeddedIndex, queries: QueryVectors) -> None:
    assert index.search(queries, 5, filter=parse_filter("price<0", index.schema)) == [[], [], [], []]


def test_more_hits_than_items(index: EmbeddedIndex, queries: QueryVectors) -> None:
    assert {len(hits) for hits in index.search(queries, 1000)} == {len(index)}


@pytest.mark.parametrize("k", [0, -1, 1001])
def test_k_out_of_range(index: EmbeddedIndex, queries: QueryVectors, k: int) -> None:
    with pytest.raises(InputError, match=f"k is {k}; allowed: 1 to 1000"):
        index.search(queries, k)


def test_no_queries(index: EmbeddedIndex) -> None:
    nothing = QueryVectors(np.empty((0, DIM), np.float32), np.empty(0, np.float32))
    assert index.search(nothing, 5) == []


def test_repeated_searches_agree(index: EmbeddedIndex, queries: QueryVectors) -> None:
    assert index.search(queries, 30) == index.search(queries, 30)


def test_items_and_pictures(index: EmbeddedIndex) -> None:
    payload = pa.ipc.open_file(index.path / "payload.arrow").read_all().to_pylist()
    blob = (index.path / "pictures.bin").read_bytes()
    for row, item in enumerate(payload):
        assert index.catalogue.row_of(item["item_id"]) == row
        start, length = item["picture_offset"], item["picture_length"]
        assert index.catalogue.picture(row) == (blob[start : start + length] if length else None)
    for unknown in ("", "item/", "item/99999", "zzz", "🙂", "\x00"):
        assert index.catalogue.row_of(unknown) is None


def test_internal_columns_cannot_be_filtered_on(index: EmbeddedIndex) -> None:
    with pytest.raises(InputError, match="unknown column 'picture_offset'"):
        parse_filter("picture_offset>0", index.schema)
