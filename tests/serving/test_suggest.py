"""Suggestions: from a log to the service, and the prefix search against going through all texts."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Page, expect
from rapidfuzz.distance import OSA

from smar.core.sections.data import DataSettings
from smar.data.dataset import SUGGESTIONS_FILE, Dataset
from smar.data.frequent_queries import with_filters
from smar.data.prepare import prepare
from smar.search.local import Prefixes, UpdatableIndex, build_index
from smar.serving.app import create_app
from smar.serving.engine import Engine
from tiny_index import write_embeddings
from tiny_service import address, run_service

ITEMS = pa.table(
    {
        "item_id": ["a", "b", "c", "d"],
        "title": ["Red shirt", "Blue shirt", "Steel watch", "Crème brûlée set"],
        "category": ["Shirt", "Shirt", "Watch", "Kitchen"],
        "brand": ["Nike", "Levi's", "Casio", None],
    }
)


def clicked(query: str, item_id: str, users: int, start: int = 0) -> list[dict[str, object]]:
    return [
        {
            "query": query,
            "item_id": item_id,
            "timestamp": f"2026-08-{1 + at:02d} 10:00:00",
            "clicked": True,
            "user_id": at,
        }
        for at in range(start, start + users)
    ]


LOG = [
    *clicked("Shirt", "a", 4),
    *clicked("shirt", "b", 6),
    *clicked("steel  watch", "c", 5),
    *clicked("Crème brûlée", "d", 9),
    *clicked("紅色連衣裙", "a", 5),
    *clicked("jane doe birthday", "a", 2),
    *clicked("only one shopper", "b", 1) * 9,
    *[row | {"clicked": False} for row in clicked("never clicked", "b", 9)],
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("log") / "dataset"
    settings = DataSettings(workers=1, slice_columns=(), language=None)
    prepare(settings, ITEMS, pa.Table.from_pylist(LOG), out=out)
    return Dataset.open(out)


def test_the_log_gives_queries_of_enough_shoppers_and_what_they_clicked(dataset: Dataset) -> None:
    found = with_filters(dataset)
    assert found is not None
    rows = {row.pop("query"): row for row in found.to_pylist()}
    assert {query: row["asked"] for query, row in rows.items()} == {
        "crème brûlée": 9,
        "shirt": 6,
        "steel watch": 5,
        "紅色連衣裙": 5,
    }
    assert {(each["column"], each["value"]): each["share"] for each in rows["shirt"]["filters"]} == {
        ("category", "Shirt"): pytest.approx(1.0),
        ("brand", "Levi's"): pytest.approx(0.6),
    }


def test_rare_queries_and_all_of_them_can_be_left_out(tmp_path: Path) -> None:
    for least, kept in ((0, None), (7, ["crème brûlée"])):
        settings = DataSettings(workers=1, slice_columns=(), suggest_from=least)
        prepare(settings, ITEMS, pa.Table.from_pylist(LOG), out=tmp_path / str(least))
        found = Dataset.open(tmp_path / str(least)).suggestions()
        assert (None if found is None else found["query"].to_pylist()) == kept


def test_without_users_moments_are_counted_and_of_pairs_rows(tmp_path: Path) -> None:
    log = pa.Table.from_pylist(LOG)
    for name, table in (("log", log.drop_columns(["user_id"])), ("pairs", log.select(["query", "item_id"]))):
        prepare(DataSettings(workers=1, slice_columns=()), ITEMS, table, out=tmp_path / name)
        found = Dataset.open(tmp_path / name).suggestions()
        assert found is not None
        asked = dict(zip(found["query"].to_pylist(), found["asked"].to_pylist(), strict=True))
        assert asked["shirt"] == (6 if name == "log" else 10)
        assert "jane doe birthday" not in asked


@pytest.fixture(scope="module")
def index(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("suggested")
    write_embeddings(root / "embeddings", items=60)
    pq.write_table(with_filters(dataset), root / "embeddings" / SUGGESTIONS_FILE)
    build_index(root / "embeddings", root / "index")
    return root / "index"


def ask(client: TestClient, q: str, **more: object) -> dict[str, list[str]]:
    answer = client.get("/v1/suggest", params={"q": q} | more)
    assert answer.status_code == 200, answer.text
    return {name: [each["text"] for each in answer.json()[name]] for name in ("queries", "values")}


def test_the_service_suggests_queries_and_values(index: Path) -> None:
    with TestClient(create_app(Engine.open(index))) as client:
        answer = client.get("/v1/suggest", params={"q": " SHI"}).json()
        assert answer["query"] == "shi"
        (query,) = answer["queries"]
        assert (query["text"], query["count"]) == ("shirt", 6)
        assert {"column": "category", "value": "Shirt", "share": 1.0} in query["filters"]
        assert answer["values"] == [{"text": "Shirt", "count": 20, "column": "category"}]
        assert ask(client, "crem")["queries"] == ["crème brûlée"]
        assert ask(client, "CRÈM")["queries"] == ["crème brûlée"]
        assert ask(client, "红色")["queries"] == ["紅色連衣裙"]
        assert ask(client, "shrit") == {"queries": ["shirt"], "values": ["Shirt"]}
        assert ask(client, "le cq")["values"] == ["Le Coq"]
        assert ask(client, "zzz") == {"queries": [], "values": []}
        assert ask(client, "", k=2)["queries"] == ["crème brûlée", "shirt"]
        assert client.get("/v1/suggest", params={"q": "x" * 1001}).status_code == 422
        assert client.get("/v1/suggest", params={"q": "x", "k": 21}).status_code == 422
        assert client.get("/v1/suggest?query=x").json()["error"]["code"] == "invalid_request"


def test_a_compaction_carries_suggestions_along_and_counts_new_values(index: Path, tmp_path: Path) -> None:
    index = Path(shutil.copytree(index, tmp_path / "index"))
    live = UpdatableIndex.open(index)
    live.delete([f"item/{at:05d}" for at in range(0, 60, 3)])  # all shirts
    with TestClient(create_app(Engine.open(index))) as client:
        assert ask(client, "shirt") == {"queries": ["shirt"], "values": []}
    live.compact()
    with TestClient(create_app(Engine.open(index))) as client:
        assert ask(client, "shirt") == {"queries": ["shirt"], "values": []}
        assert ask(client, "wat") == {"queries": [], "values": ["Watch"]}


@pytest.fixture(scope="module")
def service(index: Path) -> Iterator[str]:
    with run_service(index) as process:
        yield address(process)


def test_the_search_box_offers_them(page: Page) -> None:
    page.goto("/")
    box, options = page.get_by_role("combobox", name="Search products"), page.get_by_role("option")
    expect(box).to_have_attribute("aria-expanded", "false")
    box.press_sequentially("shrt")
    expect(options).to_have_text(["shirt", "shirt in Shirt", "Shirt category, 20"])
    expect(box).to_have_attribute("aria-expanded", "true")
    box.press("ArrowDown")
    box.press("ArrowDown")
    marked = page.get_by_role("option", selected=True)
    expect(marked).to_have_text("shirt in Shirt")
    expect(box).to_have_attribute("aria-activedescendant", marked.get_attribute("id") or "")
    box.press("Enter")
    expect(page.get_by_role("listbox", name="Suggestions")).to_be_hidden()
    expect(box).to_have_value("shirt")
    expect(box).to_be_focused()
    assert "q=shirt" in page.url
    assert "category=Shirt" in page.url
    box.fill("stee")
    page.get_by_role("option", name="steel watch", exact=True).click()
    expect(box).to_have_value("steel watch")
    box.fill("shi")
    expect(options.first).to_be_visible()
    box.press("Escape")
    expect(options.first).to_be_hidden()
    expect(box).to_have_value("shi")
    box.fill("zzz")
    expect(page.locator("#view")).not_to_have_attribute("aria-busy", "true")
    expect(options).to_have_count(0)


LETTERS = st.text("abc ", min_size=1, max_size=6).map(lambda text: " ".join(text.split())).filter(bool)


@given(st.lists(LETTERS, min_size=1, max_size=40, unique=True), LETTERS)
def test_one_typo_after_the_first_letter_is_forgiven(texts: list[str], typed: str) -> None:
    counts = np.random.default_rng(0).permutation(len(texts)).tolist()
    found = [texts[at] for at in Prefixes(texts, counts).find(typed, len(texts))]
    exact = {text for text in texts if text.startswith(typed)}
    near = {
        text
        for text in texts
        if len(typed) >= 3 and text[0] == typed[0] and min(OSA.distance(typed, text[:n]) for n in range(1, 9)) <= 1
    }
    assert set(found) == exact | near
    ranks = [(text not in exact, -counts[texts.index(text)]) for text in found]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize("most", [1, 4, 900])
def test_of_a_wide_range_the_most_frequent_come_first(most: int) -> None:
    random = np.random.default_rng(most)
    counts = random.integers(0, most, 5000)
    texts = Prefixes([f"{at // 1700}-{at:04d}" for at in range(len(counts))], counts.tolist())
    for typed, within in (("", slice(None)), ("0", slice(1700)), ("1-", slice(1700, 3400)), ("2-4", slice(4000, None))):
        order = np.argsort(-counts[within], kind="stable") + (within.start or 0)
        for k in (1, 8, 20):
            assert texts.find(typed, k) == order[:k].tolist()
