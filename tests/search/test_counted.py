"""Facets of a search against counting one by one: of texts, lists, numbers, dates; over two segments; of cards."""

import datetime as dt
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
from test_arrange import index, items  # noqa: F401

from smar.core.errors import InputError
from smar.search.filter_parser import parse_filter
from smar.search.filters import without
from smar.search.local import counted
from smar.search.local.arrange import browse, search
from smar.search.local.cards import Collapse, card_ids
from smar.search.local.counted import Facets, count_column, matches_counter
from smar.search.local.item_store import Catalogue
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.segment import Segment
from smar.search.local.shape import Plan, Shape
from smar.search.local.vectors import VectorStore
from smar.search.protocol import Mode

KINDS = {
    "item_id": pa.string(),
    "product": pa.string(),
    "sizes": pa.list_(pa.string()),
    "widths": pa.list_(pa.int32()),
    "price": pa.float64(),
    "stars": pa.int8(),
    "cost": pa.decimal128(9, 2),
    "since": pa.date32(),
    "seen": pa.timestamp("ms"),
    "new": pa.bool_(),
}


@pytest.fixture(scope="module")
def segments() -> list[Segment]:
    """300 and 40 items, in which anything may be missing; every tenth is deleted."""
    rng, first, made = np.random.default_rng(0), 0, []

    def some(value: object) -> object:
        return None if rng.random() < 0.15 else value

    for size in (300, 40):
        rows = [
            {
                "item_id": str(first + at),
                "product": some(f"p{rng.integers(20)}"),
                "sizes": some([some(str(name)) for name in rng.choice(["S", "M", "L", "É"], rng.integers(4))]),
                "widths": some(rng.integers(3, size=2).tolist()),
                "price": some(float(rng.choice([np.nan, 5.5, *rng.uniform(0, 90, 5)]))),
                "stars": some(int(rng.integers(1, 6))),
                "cost": some(round(float(rng.uniform(0, 1000)), 2)),
                "since": some(dt.date(2020, 1, 1) + dt.timedelta(days=int(rng.integers(2000)))),
                "seen": some(dt.datetime(2026, 1, 1, 12) + dt.timedelta(seconds=int(rng.integers(10**6)))),
                "new": some(bool(rng.integers(2))),
            }
            for at in range(size)
        ]
        columns = {name: [row[name] for row in rows] for name in KINDS}
        arrays = [
            pa.array(columns[name]).cast(kind, safe=False) if name == "cost" else pa.array(columns[name], kind)
            for name, kind in KINDS.items()
        ]
        table = pa.table(arrays, names=list(KINDS))
        store = VectorStore(None, np.zeros((size, 2), np.float32), None)
        made.append(Segment(store, Catalogue(table, None), first, np.arange(size) % 10 == 9))
        first += size
    return made


def entries(value: object) -> set[str]:
    """The values of an item as a filter names them."""
    if value is None or value != value:
        return set()
    if isinstance(value, list):
        return {str(one) for one in value if one is not None}
    return {str(value).lower() if isinstance(value, bool) else str(value)}


@pytest.mark.parametrize("read", [counted._READ, 10], ids=["one by one", "by codes"])
@pytest.mark.parametrize("name", list(KINDS)[1:])
@pytest.mark.parametrize("collapse", [None, "product"])
def test_counts(
    segments: list[Segment], name: str, collapse: str | None, read: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counted, "_READ", read)
    filter = parse_filter("sizes in (S, M, É) or stars>2", segments[0].catalogue.table.schema)
    kept = [
        item for segment in segments for item in segment.catalogue.items(np.flatnonzero(segment.allowed(filter).mask))
    ]
    found = matches_counter(segments)(name, filter, 100, collapse)
    cards: dict[str, set[object]] = defaultdict(set)
    ranked: dict[object, set[object]] = defaultdict(set)
    for item in kept:
        card = item["item_id"] if collapse is None or item[collapse] is None else (item[collapse],)
        for value in entries(item[name]):
            cards[value].add(card)
            ranked[item[name] if not isinstance(item[name], list) else value].add(card)
    every = {item["item_id"] if collapse is None or item[collapse] is None else (item[collapse],) for item in kept}
    assert found.missing == len(every - set().union(*cards.values()))
    if found.values is not None:
        assert {entry.value: entry.count for entry in found.values} == {value: len(own) for value, own in cards.items()}
        assert [entry.count for entry in found.values] == sorted((len(own) for own in cards.values()), reverse=True)
    else:
        assert name in ("price", "cost", "since", "seen", "stars")
    if name not in ("price", "stars", "cost", "since", "seen"):
        return
    assert found.ranges[0].low is None
    assert found.ranges[-1].high is None

    def number(end: object) -> object:
        return end if not isinstance(end, str) else dt.datetime.fromisoformat(end).replace(tzinfo=None)

    def plain(value: object) -> object:
        value = float(value) if name == "cost" else value
        return dt.datetime.combine(value, dt.time()) if type(value) is dt.date else value

    for entry in found.ranges:
        own = [
            cards_
            for value, cards_ in ranked.items()
            if (entry.low is None or number(entry.low) <= plain(value))
            and (entry.high is None or plain(value) < number(entry.high))
        ]
        assert entry.count == len(set().union(*own))
    assert (
        number(found.low) == pytest.approx(min(map(plain, ranked)))
        if name == "cost"
        else number(found.low) == min(map(plain, ranked))
    )


def test_facets_of_hits_and_of_matches(index: EmbeddedIndex) -> None:  # noqa: F811
    vectors = index.encoder.encode(["red shirt"])
    filter = parse_filter("category=Shirt and price<100", index.schema)

    def values(shape: Shape, name: str) -> dict[str, int]:
        (page,) = search(index, vectors, 5, Mode.ADAPTIVE, filter, False, 0, Plan.of(shape, index.schema))
        return {entry.value: entry.count for entry in page.facets[name].values}

    def counts(some: list[dict], name: str) -> dict[str, int]:
        return {value: sum(item[name] == value for item in some) for value in {item[name] for item in some} - {None}}

    columns = ("category", "brand")
    (best,) = index.search(vectors, 40, Mode.ADAPTIVE, parse_filter("price<100", index.schema))
    within = index.search(vectors, 40, Mode.ADAPTIVE, filter)[0]
    shape = Shape(facets=Facets(columns), candidates=40)
    assert values(shape, "category") == counts([dict(hit.payload) for hit in best], "category")
    assert values(shape, "brand") == counts([dict(hit.payload) for hit in within], "brand")
    shape = Shape(facets=Facets(columns, within=True), candidates=40)
    assert values(shape, "category") == {"Shirt": min(40, len(within))}
    shape = Shape(facets=Facets(columns, "matches"))
    assert values(shape, "category") == counts(items(index, "price<100"), "category")
    assert values(shape, "brand") == counts(items(index, "category=Shirt and price<100"), "brand")
    browsed = browse(index, 5, filter, 0, Plan.of(shape, index.schema))
    assert {entry.value: entry.count for entry in browsed.facets["category"].values} == values(shape, "category")
    cards = Shape(facets=Facets(columns, "matches"), collapse=Collapse("brand"))
    assert set(values(cards, "brand").values()) == {1}


@pytest.mark.parametrize("of", ["hits", "matches"])
def test_a_value_is_found_however_rare_it_is(index: EmbeddedIndex, of: str) -> None:  # noqa: F811
    """What is typed into a facet's box is looked for among all values, not among the most frequent ones."""

    vectors = index.encoder.encode(["red shirt"])

    def listed(contains: str, top: int) -> list[tuple[str, int]]:
        shape = Shape(facets=Facets(("brand",), of, top, contains=contains))
        (page,) = search(index, vectors, 5, Mode.ADAPTIVE, None, False, 0, Plan.of(shape, index.schema))
        return [(entry.value, entry.count) for entry in page.facets["brand"].values]

    everything = listed("", 200)
    rarest, count = everything[-1]
    assert rarest not in dict(listed("", 1))
    assert listed(f" {rarest[:3].upper()} ", 200) == [each for each in everything if rarest[:3] in each[0]]
    assert (rarest, count) in listed(rarest, 1)
    assert listed("no such letters", 200) == []


def test_what_was_chosen_of_a_column(index: EmbeddedIndex) -> None:  # noqa: F811
    def bare(text: str, column: str) -> object:
        return without(parse_filter(text, index.schema), column)

    assert bare("category=Shirt", "category") is None
    assert bare("price>=5 and price<9 and brand=Nike", "price") == parse_filter("brand=Nike", index.schema)
    assert bare("not brand=Nike and price<9 and in_stock=true", "brand") == parse_filter(
        "price<9 and in_stock=true", index.schema
    )
    for text in ("category=Shirt or price<5", "(category=Shirt or price<5) and brand=Nike"):
        assert bare(text, "category") == parse_filter(text, index.schema)
    assert without(None, "category") is None


@pytest.mark.parametrize(
    ("facets", "message"),
    [
        (Facets(("colour",)), "facets: unknown column 'colour'"),
        (Facets(("brand",) * 21), "21 columns and top 30; allowed: up to 20"),
        (Facets(("brand",), top=0), "top 1 to 200"),
    ],
)
def test_impossible_facets(index: EmbeddedIndex, facets: Facets, message: str) -> None:  # noqa: F811
    with pytest.raises(InputError, match=message):
        Plan.of(Shape(facets=facets), index.schema)


def test_too_many_texts_and_items(segments: list[Segment], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "_READ", 10)
    monkeypatch.setattr("smar.search.column_values._MAX_CODES", 10)
    monkeypatch.setattr(counted, "COUNTED", 100)
    table = segments[0].catalogue.table
    fresh = [Segment(segments[0].store, Catalogue(table, None))]
    with pytest.raises(InputError, match="too many different texts to count among matches; count them among hits"):
        matches_counter(fresh)("item_id", None, 10, None)
    with pytest.raises(InputError, match="300 items match, and cards are counted among at most 100"):
        matches_counter(fresh)("new", None, 10, "product")
    rows = np.arange(300)
    assert len(count_column(fresh, rows, "item_id", 1000, card_ids(fresh, "product", rows)).values) == 300
