"""One contract for all engines, the embedded one included: 3,000 items against exact search."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from engine_shop import FILTERS, QUERIES, Exact, other_model, postgres, write_shop
from smar.core.errors import InputError
from smar.search.engines import open_engine
from smar.search.filter_parser import parse_filter
from smar.search.items import Items, OtherModel
from smar.search.loading import load
from smar.search.local import LocalIndex, build_index
from smar.search.protocol import Index, Mode
from tiny_service import becomes

pytestmark = pytest.mark.cluster
ENGINES = ("embedded", "postgresql", "milvus", "lance")
MODES = (Mode.ADAPTIVE, Mode.ROUTE, Mode.TEXT, Mode.MULTIMODAL)


@dataclass
class Held:
    """An engine that holds the shop; `url` is None of the embedded one."""

    name: str
    index: Index
    url: str | None
    embeddings: Path


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop") / "embeddings")


@pytest.fixture(scope="module")
def exact(shop: Path) -> Exact:
    return Exact(shop)


@pytest.fixture(scope="module")
def held(request: pytest.FixtureRequest, shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    """The shop in one engine after the other."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    if name == "embedded":
        build_index(shop, folder / "index")
        yield Held(name, LocalIndex.open(folder / "index"), None, shop)
        return
    if name == "postgresql":
        with postgres() as server:
            yield from loaded(name, f"{server}&table=shop", shop)
        return
    yield from loaded(name, f"{name}://{folder / 'shop'}" + (".db/shop" if name == "milvus" else ""), shop)


def loaded(name: str, url: str, shop: Path) -> Iterator[Held]:
    done = load(shop, url)
    assert done.recall >= 0.95
    engine = open_engine(url)
    yield Held(name, engine.index, url, shop)
    engine.close()


@pytest.fixture(scope="module", autouse=True)
def _of_each_engine(held: Held) -> None:
    """All tests of one engine, then those of the next."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("held", ENGINES, indirect=True, scope="module")


def test_each_mode_finds_what_exact_search_finds(held: Held, exact: Exact) -> None:
    vectors = held.index.encoder.encode(QUERIES)
    everything = np.ones(len(exact.ids), np.bool_)
    assert len(held.index) == len(exact.ids)
    assert held.index.schema.equals(exact.table.schema)
    for mode in MODES:
        scores = exact.scores(vectors, mode)
        found = held.index.search(vectors, 50, mode)
        shares = []
        for hits, own in zip(found, scores, strict=True):
            by_id = dict(zip(exact.ids, own.tolist(), strict=True))
            assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
            assert all(by_id[hit.item_id] == pytest.approx(hit.score, abs=1e-5) for hit in hits)
            shares.append(len(exact.best(own, everything) & {hit.item_id for hit in hits}) / 50)
        assert np.mean(shares) >= 0.95, mode
    by_words = exact.scores(vectors, Mode.TEXT)[0]
    best = held.index.search(vectors[:1], 3, Mode.MULTIMODAL, explain=True)[0][0]
    rank = 1 + int(np.sum(by_words > by_words[exact.ids.index(best.item_id)]))
    assert best.rank_text is None or abs(best.rank_text - rank) <= 0.05 * rank + 1
    assert held.index.item(best.item_id) == exact.table.slice(exact.ids.index(best.item_id), 1).to_pylist()[0]


def test_hybrid_is_answered_or_refused_by_name(held: Held) -> None:
    vectors = held.index.encoder.encode(QUERIES)
    if held.url is None:
        assert held.index.search(vectors, 5, Mode.HYBRID)[0][0].words_score is not None
    else:
        with pytest.raises(InputError, match=f"{held.name} does not answer mode hybrid"):
            held.index.search(vectors, 5, Mode.HYBRID)


@pytest.mark.parametrize("text", FILTERS)
def test_filters_leave_what_they_say_and_lose_nothing(held: Held, exact: Exact, text: str) -> None:
    filter = parse_filter(text, held.index.schema)
    mask = filter.mask(exact.table)
    assert 0 < mask.sum() < len(mask)
    assert held.index.count(filter) == mask.sum()
    vectors = held.index.encoder.encode(QUERIES)
    allowed = {exact.ids[at] for at in np.flatnonzero(mask)}
    for mode in (Mode.ADAPTIVE, Mode.TEXT, Mode.MULTIMODAL):
        shares = []
        for hits, own in zip(held.index.search(vectors, 50, mode, filter), exact.scores(vectors, mode), strict=True):
            found, best = {hit.item_id for hit in hits}, exact.best(own, mask)
            assert found <= allowed
            assert len(hits) == len(best)
            shares.append(len(found & best) / len(best))
        assert np.mean(shares) >= 0.95, mode


@pytest.mark.parametrize("text", [None, FILTERS[1]])
def test_facets_count_what_matches(held: Held, exact: Exact, text: str | None) -> None:
    filter = None if text is None else parse_filter(text, held.index.schema)
    table = exact.table if filter is None else exact.table.filter(pa.array(filter.mask(exact.table)))
    brands = held.index.facet("brand", filter, 3)
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(table["brand"]).to_pylist()}
    assert brands.missing == counts.pop(None)
    best = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:3]
    assert [(entry.value, entry.count) for entry in brands.values or ()] == best
    tags = held.index.facet("tags", filter)
    lists = table["tags"].to_pylist()
    assert tags.missing == sum(not own for own in lists)
    assert {entry.value: entry.count for entry in tags.values or ()} == {
        name: sum(name in (own or ()) for own in lists) for name in ("sale", "new")
    }
    for name in ("price", "cost", "since"):
        own, values = held.index.facet(name, filter), table[name].drop_null().to_pylist()
        assert own.missing == table.num_rows - len(values)
        assert own.ranges is not None
        assert sum(part.count for part in own.ranges) == len(values)
        low, high = (min(values), max(values)) if name != "since" else (f"{min(values)}", f"{max(values)}")
        assert (own.low, own.high) == (low if name == "since" else float(low), high if name == "since" else float(high))
        for part in own.ranges:
            inside = [one for one in values if _within(one, part.low, part.high)]
            assert part.count == len(inside)
    assert {entry.value for entry in held.index.facet("in_stock", filter).values or ()} == {"true", "false"}


def _within(value: object, low: object, high: object) -> bool:
    own = str(value) if isinstance(low or high, str) else float(value)  # type: ignore[arg-type]
    return (low is None or low <= own) and (high is None or own < high)  # type: ignore[operator]


def test_similar_items(held: Held, exact: Exact) -> None:
    own = exact.wide[7]
    scores = exact.wide @ own / 2
    mask = np.arange(len(exact.ids)) != 7
    hits = held.index.similar(exact.ids[7], 50)
    assert len({hit.item_id for hit in hits} & exact.best(scores, mask)) >= 47
    assert exact.ids[7] not in {hit.item_id for hit in hits}
    assert hits[0].score == pytest.approx(max(scores[mask]), abs=1e-5)
    with pytest.raises(InputError, match="there is no item 'nobody'"):
        held.index.similar("nobody")


def test_upsert_and_delete_are_found_at_once(held: Held, exact: Exact) -> None:
    index, dim = held.index, held.index.dim
    new = exact.table.slice(0, 2).drop_columns(["item_id"]).append_column("item_id", pa.array(["new/ü", exact.ids[3]]))
    new = new.set_column(new.column_names.index("price"), "price", pa.array([12345.5, 12346.5]))
    own = -exact.wide[:2]
    items = Items(index.fingerprint, new, own[:, dim:], own[:, :dim], [b"\x89PNG picture", None])
    with pytest.raises(OtherModel):
        index.upsert(replace(items, fingerprint="beef" * 16))
    before = index.item(exact.ids[3])
    assert index.upsert(items) == 2
    filter = parse_filter("price>=12345", index.schema)
    assert index.count(filter) == 2
    assert len(index) == len(exact.ids) + 1
    found = index.similar("new/ü", 5, filter)
    assert [hit.item_id for hit in found] == [exact.ids[3]]
    assert (index.picture("new/ü"), index.picture(exact.ids[3])) == (b"\x89PNG picture", None)
    assert index.item("new/ü") == new.select(index.schema.names).to_pylist()[0]
    assert index.delete(["new/ü", "nobody"]) == 1
    assert index.item("new/ü") is None
    assert index.count(filter) == 1
    back = exact.table.slice(3, 1)
    index.upsert(Items(index.fingerprint, back, exact.wide[3:4, dim:], exact.wide[3:4, :dim], [None]))
    assert index.item(exact.ids[3]) == before
    assert len(index) == len(exact.ids)


def test_an_encoder_of_another_model_is_refused(held: Held, tmp_path: Path) -> None:
    if held.url is None:
        pytest.skip("tests/search/test_embedded.py holds this of the embedded index, whose encoder lies inside it")
    engine = open_engine(held.url, other_model(tmp_path, held.embeddings))
    with pytest.raises(InputError, match="their scores would mean nothing"):
        engine.index.encoder
    engine.close()


def test_a_version_takes_the_place_of_the_one_before(held: Held) -> None:
    if held.url is None:
        pytest.skip("tests/search/test_updates.py holds this of the embedded index")
    engine, before = open_engine(held.url), held.index
    assert engine.index.version == before.version
    load(held.embeddings, held.url)
    after = open_engine(held.url)
    assert after.index.version != before.version
    assert becomes(lambda: engine.index.version == after.index.version), "noticed within a second"
    vectors = before.encoder.encode(QUERIES[:1])
    assert [hit.item_id for hit in before.search(vectors, 5)[0]] == [
        hit.item_id for hit in after.index.search(vectors, 5)[0]
    ]
    assert after.store.rollback() == before.version
    assert becomes(lambda: engine.index.version == before.version)
    before.check()
    for one in (engine, after):
        one.close()
