"""Price ranges on the page: each choice leads to as many products as it counts, even where prices lie on borders."""

import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Locator, Page, Route, expect
from test_browser import SHIFTS, answered, lines, settled

from smar.search.local.build import build_index
from tiny_index import write_embeddings
from tiny_service import address, run_service

pytestmark = pytest.mark.browser
RANGES = {
    "below 20": [0, 10],
    "20 to 40": [20, 30],
    "40 to 50": [40],
    "50 to 80": [50, 60, 70],
    "80 to 100": [80, 90],
    "from 100": [100, 110],
}
EACH = 15


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A shop whose prices are 0, 10, ... 110: every border of a range is the price of `EACH` items."""
    root = tmp_path_factory.mktemp("prices")
    payload = write_embeddings(root / "embeddings") / "payload.parquet"
    table = pq.read_table(payload)
    prices = pa.array([10.0 * (at % 12) for at in range(table.num_rows)])
    pq.write_table(table.set_column(table.schema.get_field_index("price"), "price", prices), payload)
    build_index(root / "embeddings", root / "index")
    with run_service(root / "index") as process:
        yield address(process)


def radio(page: Page, name: str) -> Locator:
    return page.get_by_role("radio", name=re.compile(f"^{name}(,|$)"))


def shown(page: Page) -> list[float]:
    return [float(text) for text in page.locator(".results .price").all_inner_texts()]


def test_every_range_leads_to_as_many_products_as_it_counts(page: Page) -> None:
    page.goto("/?q=red")
    expect(radio(page, "any price")).to_be_checked()
    assert lines(page, "price").all_inner_texts() == [
        "Any price",
        *(f"{name.capitalize()}\n{EACH * len(prices)}" for name, prices in RANGES.items()),
    ]
    for name, prices in RANGES.items():
        with answered(page):
            page.get_by_role("radio", name=f"{name}, {EACH * len(prices)} products").check()
        expect(page.locator("#status")).to_have_text(f"{EACH * len(prices)} products for “red”")
        assert sorted(shown(page)) == sorted(EACH * prices)
        expect(page.get_by_role("button", name=f"Remove filter Price {name}")).to_have_text(f"Price {name}×")
        expect(page.locator("#filter-count")).to_have_text("(1)")


def test_a_range_is_shared_reloaded_and_gone_back_to(page: Page) -> None:
    page.goto("/?q=red")
    radio(page, "20 to 40").check()
    expect(page).to_have_url(re.compile(r"\?q=red&low=20&below=40$"))
    radio(page, "from 100").check()
    expect(page).to_have_url(re.compile(r"\?q=red&low=100$"))
    radio(page, "below 20").check()
    expect(page).to_have_url(re.compile(r"\?q=red&below=20$"))
    expect(page.get_by_label("Highest price")).to_have_value("20")
    page.go_back()
    expect(radio(page, "from 100")).to_be_checked()
    expect(page.get_by_label("Lowest price")).to_have_value("100")
    page.goto("/?q=red&low=20.0&below=40")
    expect(radio(page, "20 to 40")).to_be_checked()
    expect(page.locator("#status")).to_have_text("30 products for “red”")
    assert set(shown(page)) == {20, 30}
    with answered(page):
        radio(page, "any price").check()
    assert page.url.endswith("?q=red")
    expect(page.locator(".chip")).to_have_count(0)
    expect(page.get_by_label("Highest price")).to_have_value("")


def test_counts_follow_the_other_filters_and_those_of_the_others_follow_a_range(page: Page) -> None:
    page.goto("/?q=red")
    with answered(page):
        page.get_by_role("checkbox", name=re.compile("Watch")).check()
    # item `at` is a watch when at % 3 == 1, and costs 10 * (at % 12): 10, 40, 70, 100
    expected = {name: EACH * len({10, 40, 70, 100} & set(prices)) for name, prices in RANGES.items()}
    for name, count in expected.items():
        expect(page.get_by_role("radio", name=f"{name}, {count} products")).to_be_visible()
    with answered(page):
        radio(page, "40 to 50").check()
    expect(page.locator("#status")).to_have_text("15 products for “red”")
    expect(lines(page, "category")).to_have_text(["Watch15"])
    assert lines(page, "price").all_inner_texts()[1:] == [
        f"{name.capitalize()}\n{count}" for name, count in expected.items()
    ]


def test_prices_that_are_typed_are_no_range(page: Page) -> None:
    """A highest price that was typed is found itself; an end of a range may be changed by hand."""
    page.goto("/?q=red&low=20&below=40")
    expect(radio(page, "20 to 40")).to_be_checked()
    with answered(page):
        page.get_by_label("Lowest price").fill("30")
    expect(page.get_by_role("button", name="Remove filter Price 30 to 40")).to_be_visible()
    assert set(shown(page)) == {30}
    with answered(page):
        page.get_by_label("Highest price").fill("40")
    expect(page.get_by_role("button", name="Remove filter Price from 30 up to 40")).to_be_visible()
    assert set(shown(page)) == {30, 40}
    expect(page.locator("[name=price]:checked")).to_have_count(0)
    with answered(page):
        page.get_by_role("button", name="Remove filter Price from 30 up to 40").click()
    expect(radio(page, "any price")).to_be_checked()
    expect(page.get_by_label("Lowest price")).to_have_value("")


def test_ranges_by_keyboard(page: Page) -> None:
    page.goto("/?q=red")
    page.get_by_role("group", name="Price").get_by_role("radio").first.focus()
    with answered(page):
        page.keyboard.press("ArrowDown")
    expect(radio(page, "below 20")).to_be_focused()
    expect(radio(page, "below 20")).to_be_checked()
    expect(page.locator("#status")).to_have_text("30 products for “red”")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Lowest price")).to_be_focused()


def test_without_a_choice_there_are_no_ranges(page: Page) -> None:
    def one_price(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        found["facets"]["price"] |= {"ranges": None, "low": 10, "high": 10}
        route.fulfill(response=answer, json=found)

    page.route("**/v1/search", one_price)
    page.goto("/?q=red")
    expect(lines(page, "category")).to_have_count(3)
    expect(page.get_by_label("Lowest price")).to_be_visible()
    expect(page.locator("[name=price]")).to_have_count(0)


@pytest.mark.parametrize(
    "page", [{}, {"viewport": {"width": 320, "height": 640}}], ids=["wide", "narrow"], indirect=True
)
def test_nothing_moves_while_counts_come(page: Page) -> None:
    page.goto("/?q=red&category=Watch&low=20&below=40")
    expect(lines(page, "price").filter(has_text="50 to 80")).to_have_text(re.compile("15$"))
    settled(page)
    assert page.evaluate(SHIFTS) == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
