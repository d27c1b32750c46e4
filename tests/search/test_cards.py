"""Cards and diverse hits against doing it one by one, with a delta and deleted items."""

from collections import Counter, defaultdict
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_arrange import ids, index, items  # noqa: F401

from smar.core.errors import InputError
from smar.search.filter_parser import parse_filter
from smar.search.local.arrange import browse, search
from smar.search.local.cards import Collapse, Diversify, Variants, diverse
from smar.search.local.item_store import Catalogue
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.segment import Segment
from smar.search.local.shape import Plan, Relation, Shape
from smar.search.local.vectors import Allowed, VectorStore
from smar.search.protocol import Mode


@pytest.mark.parametrize("chosen", [None, "price<100", "category=Shirt"])
@pytest.mark.parametrize("sort", [(), ("-price",)])
@pytest.mark.parametrize("column", ["brand", "price", "in_stock"])
def test_cards(index: EmbeddedIndex, column: str, sort: tuple[str, ...], chosen: str | None) -> None:  # noqa: F811
    vectors = index.encoder.encode(["red shirt"])
    filter = None if chosen is None else parse_filter(chosen, index.schema)
    shape = Shape(sort, candidates=1000)
    (whole,) = search(index, vectors, 1000, Mode.ADAPTIVE, filter, False, 0, Plan.of(shape, index.schema))
    variants: dict[object, list[str]] = defaultdict(list)
    for item in index.catalogue.items(whole.hits.rows.tolist()):
        variants[item["item_id"] if item[column] is None else (item[column],)].append(item["item_id"])
    plan = Plan.of(Shape(sort, collapse=Collapse(column, ids=True)), index.schema)
    pages = [search(index, vectors, 3, Mode.ADAPTIVE, filter, False, offset, plan)[0] for offset in (0, 3, 6)]
    shown = [
        (name, other.count, list(other.ids))
        for page in pages
        for name, other in zip(ids(index, page.hits.rows), page.others, strict=True)
    ]
    expected = [(first, len(others), others) for first, *others in variants.values()][:9]
    assert shown == [(first, count, others[:100]) for first, count, others in expected]
    assert {(page.total.value, page.total.relation) for page in pages} == {(len(variants), Relation.EXACT)}
    browsed = browse(index, 9, filter, 0, plan)
    assert browsed.total.value == len(variants)
    assert [other.count for other in browsed.others] == [
        len(set(other.ids)) for other in browsed.others
    ] or column == "in_stock"


def test_a_page_of_cards_is_full(index: EmbeddedIndex) -> None:  # noqa: F811
    """The 5 best hits have fewer than 5 brands: further ones are searched."""
    vectors = index.encoder.encode(["red shirt"])
    plan = Plan.of(Shape(collapse=Collapse("brand"), candidates=5), index.schema)
    (page,) = search(index, vectors, 5, Mode.ADAPTIVE, None, False, 0, plan)
    assert len(page.hits) == 5
    assert page.others[0].ids is None


HALF = st.lists(st.none() | st.sampled_from(["a", "b", "c", "É"]), min_size=1, max_size=8)


@settings(max_examples=40)
@given(halves=st.tuples(HALF, HALF), data=st.data())
def test_others_are_those_that_match(halves: tuple[list, list], data: st.DataObject) -> None:
    segments, masks, alive, first = [], [], [], 0
    for half in halves:
        table = pa.table(
            {"item_id": [str(first + at) for at in range(len(half))], "product": pa.array(half, pa.string())}
        )
        segments.append(
            Segment(VectorStore(None, np.zeros((len(half), 2), np.float32), None), Catalogue(table, None), first)
        )
        mask = data.draw(st.none() | st.lists(st.booleans(), min_size=len(half), max_size=len(half)))
        masks.append(None if mask is None else Allowed.of(np.array(mask)))
        alive += [first + at for at in range(len(half)) if mask is None or mask[at]]
        first += len(half)
    both = [*halves[0], *halves[1]]
    variants = Variants(segments, "product", masks)
    with mock.patch(
        "smar.search.local.vectors._FEW_OTHERS", data.draw(st.sampled_from((-1, 64)))
    ):  # counted in two ways
        for row in alive:
            expected = [str(at) for at in alive if at != row and both[row] is not None and both[at] == both[row]]
            ((with_ids),) = variants.others(np.array([row]), np.array(alive))
            assert (with_ids.count, list(with_ids.ids)) == (len(expected), expected)
    assert variants.count() == len({both[at] or at for at in alive})


@given(values=st.lists(st.integers(0, 3), max_size=12), most=st.integers(1, 3), among=st.integers(1, 8))
def test_diverse(values: list[int], most: int, among: int) -> None:
    places = diverse(values, most, among).tolist()
    assert sorted(places) == list(range(len(values)))
    among = min(among, sum(min(count, most) for count in Counter(values).values()))
    assert all(count <= most for count in Counter(values[at] for at in places[:among]).values())
    for one in set(values):
        assert [at for at in places if values[at] == one] == [at for at, value in enumerate(values) if value == one]
    assert places[among:] == sorted(places[among:])


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Shape(collapse=Collapse("colour")), "collapse: unknown column 'colour'"),
        (Shape(diversify=Diversify("colour", 2)), "diversify: unknown column"),
        (Shape(diversify=Diversify("brand", 0)), "most is 0"),
        (Shape(candidates=0, sort=("price",)), "candidates is 0; allowed: 1 to 1000"),
    ],
)
def test_impossible_cards(index: EmbeddedIndex, shape: Shape, message: str) -> None:  # noqa: F811
    with pytest.raises(InputError, match=message):
        Plan.of(shape, index.schema)
