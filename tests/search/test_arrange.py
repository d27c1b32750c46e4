"""Pages, sorting and browsing against doing the same to plain lists."""

import shutil
from decimal import Decimal
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smar.core.errors import InputError
from smar.data.text import normalise
from smar.search.filter_parser import parse_filter
from smar.search.items import Items
from smar.search.local.arrange import browse, search
from smar.search.local.item_store import Catalogue
from smar.search.local.live import UpdatableIndex
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.segment import Segment
from smar.search.local.shape import Plan, Relation, Shape
from smar.search.local.sorting import parse_sort, sorted_places
from smar.search.local.vectors import Allowed, VectorStore
from smar.search.protocol import Mode
from smar.search.ranked import Queries
from tiny_index import vectors_of

FILTER = "category in (Shirt, Watch)"


@pytest.fixture(scope="module")
def index(index_path: Path, tmp_path_factory: pytest.TempPathFactory) -> EmbeddedIndex:
    """With an item replaced, one deleted, and two that are new."""
    live = UpdatableIndex.open(Path(shutil.copytree(index_path, tmp_path_factory.mktemp("arranged") / "index")))
    names = ["item/00004", "new/1", "new/2"]
    payload = pa.table(
        {
            "item_id": names,
            "title": ["Red shirt", "red Shirt", "Red kettle"],
            "category": ["Shirt", "Shirt", "Kettle"],
            "brand": ["Nike", "Adidas", None],
            "price": [1.5, 1e6, None],
        }
    )
    text, multimodal = (np.stack([half] * 3) for half in vectors_of(live.snapshot, "item/00001"))
    live.upsert(Items(live.snapshot.fingerprint, payload, multimodal, text, [None] * 3))
    live.delete(["item/00007"])
    return live.snapshot


def ids(index: EmbeddedIndex, rows: np.ndarray) -> list[str]:
    return [index.catalogue.item_id(row) for row in rows.tolist()]


def items(index: EmbeddedIndex, chosen: str | None = None) -> list[dict]:
    """All items that are alive and match, in the order of their rows."""
    filter = None if chosen is None else parse_filter(chosen, index.schema)
    found = []
    for segment in index.segments:
        allowed = segment.allowed(filter)
        rows = range(len(segment.store)) if allowed is None else np.flatnonzero(allowed.mask).tolist()
        found += segment.catalogue.items(list(rows))
    return found


def by(name: str, downwards: bool, values: list[dict]) -> list[dict]:
    """The obvious way: stable, missing values last."""

    def key(item: dict) -> object:
        return normalise(item[name]) if isinstance(item[name], str) else item[name]

    there = [item for item in values if item[name] is not None]
    return sorted(there, key=key, reverse=downwards) + [item for item in values if item[name] is None]


@pytest.mark.parametrize("chosen", [None, FILTER])
@pytest.mark.parametrize("mode", [Mode.ADAPTIVE, Mode.TEXT, Mode.HYBRID])
def test_pages_make_up_the_ranking(index: EmbeddedIndex, chosen: str | None, mode: Mode) -> None:
    vectors = index.encoder.encode(["red shirt", "steel kettle"])
    filter = None if chosen is None else parse_filter(chosen, index.schema)
    whole = index.rank(vectors, 1000, mode, filter)
    for at in range(2):
        pages = [search(index, vectors, 50, mode, filter, False, offset)[at] for offset in range(0, 200, 50)]
        rows = np.concatenate([page.hits.rows for page in pages])
        assert rows.tolist() == whole[at].rows[:200].tolist()
        assert {(page.total.value, page.total.relation) for page in pages} == {
            (len(items(index, chosen)), Relation.EXACT)
        }
        assert [page.first for page in pages] == [0, 50, 100, 150]


def test_a_longer_answer_begins_with_the_shorter_one_though_many_score_alike() -> None:
    random = np.random.default_rng(0)
    alike = np.repeat(random.standard_normal((60, 16)), random.integers(1, 60, 60), axis=0).astype(np.float32)
    vectors = random.permutation(alike)  # as variants of a title have them
    flat = faiss.IndexFlatIP(16)
    flat.add(vectors)
    store = VectorStore(flat, vectors, None)
    queries = Queries(random.standard_normal((3, 8)), np.array([0, 0.5, 1]))
    alive = Allowed.of(random.random(len(vectors)) < 0.7)
    for these in ({}, {"allowed": alive}, {"alive": alive}):
        whole = store.top(queries, 1000, **these)
        for k in range(1, 1000, 7):
            for some, every in zip(store.top(queries, k, **these), whole, strict=True):
                assert some.rows.tolist() == every.rows[:k].tolist()


@pytest.mark.parametrize(("offset", "k"), [(-1, 10), (951, 50), (1000, 1)])
def test_a_page_beyond_the_last(index: EmbeddedIndex, offset: int, k: int) -> None:
    with pytest.raises(InputError, match="together at most 1000"):
        search(index, index.encoder.encode(["red"]), k, Mode.ADAPTIVE, None, False, offset)


def test_sorted_are_the_best(index: EmbeddedIndex) -> None:
    """The same ones on every page; equal ones by relevance."""
    vectors = index.encoder.encode(["red shirt"])
    (best,) = index.search(vectors, 60)
    plan = Plan.of(Shape(("-in_stock", "price"), candidates=60), index.schema)
    expected = by("in_stock", True, by("price", False, [dict(hit.payload) for hit in best]))
    found = [search(index, vectors, 20, Mode.ADAPTIVE, None, False, offset, plan)[0] for offset in (0, 20, 40, 60)]
    rows = np.concatenate([page.hits.rows for page in found])
    assert ids(index, rows) == [item["item_id"] for item in expected]
    assert found[0].total.value == 60
    assert (found[0].sorted.by, found[0].sorted.items, found[0].sorted.all) == (("-in_stock", "price"), 60, False)
    filter = parse_filter("category=Shirt and price<60", index.schema)
    (page,) = search(index, vectors, 20, Mode.ADAPTIVE, filter, False, 0, plan)
    assert page.sorted.all
    assert page.sorted.items == len(items(index, "category=Shirt and price<60"))


@pytest.mark.parametrize("sort", [(), ("price",), ("-price",), ("title",), ("-brand", "price"), ("in_stock", "-title")])
@pytest.mark.parametrize("chosen", [None, FILTER, "price<0"])
def test_browsing_shows_all_that_matches(index: EmbeddedIndex, sort: tuple[str, ...], chosen: str | None) -> None:
    expected = items(index, chosen)
    for name in reversed(sort):
        expected = by(name.removeprefix("-"), name.startswith("-"), expected)
    filter = None if chosen is None else parse_filter(chosen, index.schema)
    plan = Plan.of(Shape(sort), index.schema)
    for offset in (0, 30, 150):
        page = browse(index, 30, filter, offset, plan)
        assert ids(index, page.hits.rows) == [item["item_id"] for item in expected[offset : offset + 30]]
        assert page.total.value == len(expected)


VALUES = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint8(): st.integers(0, 255),
    pa.float64(): st.floats(allow_infinity=False),
    pa.decimal128(20, 2): st.decimals(-(10**15), 10**15, places=2),
    pa.bool_(): st.booleans(),
    pa.string(): st.sampled_from(["a", "B", "c", "É", "é", "ß", ""]),
    pa.dictionary(pa.int32(), pa.string()): st.sampled_from(["x", "Y"]),
    pa.date32(): st.dates(),
}


@pytest.mark.parametrize("kind", VALUES, ids=str)
@settings(max_examples=25)
@given(data=st.data())
def test_any_column_sorts(kind: pa.DataType, data: st.DataObject) -> None:
    """Over two segments, both ways, and the first few as the first of all."""
    halves = [data.draw(st.lists(st.none() | VALUES[kind], min_size=1, max_size=9)) for _ in range(2)]
    segments, first = [], 0
    for half in halves:
        table = pa.table({"item_id": [str(at) for at in range(len(half))], "value": pa.array(half, kind)})
        store = VectorStore(None, np.zeros((len(half), 2), np.float32), None)
        segments.append(Segment(store, Catalogue(table, None), first))
        first += len(half)
    both = [*halves[0], *halves[1]]
    held = [at for at, value in enumerate(both) if value is not None and value == value]
    missing = [at for at in range(len(both)) if at not in held]

    def key(at: int) -> object:
        return normalise(both[at]) if isinstance(both[at], str) else both[at]

    for down in (False, True):
        keys = parse_sort(["-value" if down else "value"], segments[0].catalogue.table.schema)
        expected = sorted(held, key=key, reverse=down) + missing
        for most in (len(both), 3, 0):
            found = sorted_places(segments, keys, np.arange(len(both)), most).tolist()
            assert found == expected[:most]


def test_decimals_of_two_segments_sort_by_what_they_are(index: EmbeddedIndex) -> None:
    """Where one segment holds them as whole numbers and the other has too many digits for that."""
    kind, segments = pa.decimal128(30, 2), []
    for at, value in enumerate(["9.50", "1" * 25 + ".00"]):
        table = pa.table({"item_id": [str(at)], "price": pa.array([Decimal(value)], kind)})
        segments.append(Segment(VectorStore(None, np.zeros((1, 2), np.float32), None), Catalogue(table, None), at))
    assert sorted_places(segments, parse_sort(["-price"], table.schema), np.arange(2), 2).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("sort", "message"),
    [
        (("colour",), "unknown column 'colour'. Columns: item_id, title"),
        (("price", "-price"), "names a column twice"),
        (("price", "brand", "title", "category", "in_stock"), "names 5 columns; at most 4"),
    ],
)
def test_impossible_sorts(index: EmbeddedIndex, sort: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Plan.of(Shape(sort), index.schema)
