"""What a shop configures the page to offer: columns of every kind to filter and sort by, one card a product."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect
from test_browser import PHONE, SHIFTS, answered, lines, no_sideways_scroll, settled, titles

from smar.core.errors import InputError
from smar.search.local.build import build_index
from smar.serving.engine import Engine
from smar.serving.offered import offered
from smar.serving.options import service_options
from tiny_index import write_embeddings
from tiny_service import address, run_service

pytestmark = pytest.mark.browser
OFFERED = (
    *("--facets", "category,brand,price,in_stock,sizes,seller,created_at"),
    *("--sort", "price,-price,-created_at"),
    *("--collapse", "product_id:colours"),
    *("--root-path", "/search"),
)
NEWEST = date(2026, 9, 30)
SIZES = (["S"], ["M", "L"], [], ["S", "M"], ["XL"])


def row(at: int) -> dict[str, Any]:
    """Further columns of item `at`: a seller for every three items, a day for each, three items a product."""
    return {
        "sizes": SIZES[at % len(SIZES)],
        "seller": f"Seller {at // 3 % 20:02d}",
        "created_at": NEWEST - timedelta(days=at),
        "product_id": f"product {at // 9 * 3 + at % 3}",
    }


ROWS = [row(at) for at in range(180)]


@pytest.fixture(scope="module")
def shop_index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("offered")
    payload = write_embeddings(root / "embeddings") / "payload.parquet"
    table = pq.read_table(payload)
    further = pa.Table.from_pylist(ROWS)
    for name in further.column_names:
        table = table.append_column(name, further[name])
    pq.write_table(table, payload)
    build_index(root / "embeddings", root / "index")
    return root / "index"


@pytest.fixture(scope="module")
def service(shop_index: Path) -> Iterator[str]:
    with run_service(shop_index, *OFFERED) as process:
        yield address(process) + "/search/"


def test_what_cannot_be_offered_is_refused(shop_index: Path) -> None:
    command = [sys.executable, "-m", "smar", "serve", str(shop_index), "--port", "0", "--facets=category,colour"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "the page cannot offer colour: facets: unknown column 'colour'. Columns: item_id, title" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sort": "price,-colour"}, "cannot offer -colour: sort: unknown column 'colour'"),
        ({"sort": "sizes"}, "cannot offer sizes: sort: sizes holds a list"),
        ({"collapse": "sizes:colours"}, "cannot offer sizes: collapse: sizes holds a list"),
    ],
)
def test_columns_that_do_not_fit(shop_index: Path, options: dict[str, str], said: str) -> None:
    index = Engine.open(shop_index).index
    with pytest.raises(InputError, match=said):
        offered(service_options(**options), index)
    told: list[str] = []
    fields = offered(service_options(**options), index, told.append)  # as where a new version lacks a column
    assert fields["collapse"] is None
    assert fields["sorts"] == options.get("sort", "").split(",")[:-1]
    assert said.removeprefix("cannot") in told[0]


def test_what_is_offered_is_told(service: str) -> None:
    about = httpx.get(service + "v1/about").json()
    assert about["facets"] == ["category", "brand", "price", "in_stock", "sizes", "seller", "created_at"]
    assert about["sorts"] == ["price", "-price", "-created_at"]
    assert about["collapse"] == {"column": "product_id", "noun": "colours"}
    assert {kind: name for name, kind in about["kinds"].items()} == {
        "text": "seller", "number": "price", "boolean": "in_stock", "list": "sizes", "date": "created_at",
    }  # fmt: skip


def field(page: Page, column: str) -> Locator:
    return page.locator(f"[data-facet={column}]")


def prices(page: Page) -> list[float]:
    return [float(text) for text in page.locator(".results .price").all_inner_texts() if text]


def cards(column: str, *, keep: Any = lambda _: True) -> dict[str, int]:
    """How many products have each value of a column: the counts are of cards."""
    pairs = {
        (value, own["product_id"])
        for own in ROWS
        if keep(own)
        for value in (own[column] if isinstance(own[column], list) else [own[column]])
    }
    return dict(Counter(value for value, _ in pairs))


@pytest.mark.parametrize("page", [{}, {"viewport": PHONE}], ids=["wide", "phone"], indirect=True)
def test_sort(page: Page) -> None:
    page.goto("?q=red+shirt")
    with answered(page):
        page.get_by_label("Sort by").select_option("Price: low to high")
    found = prices(page)
    assert len(found) > 20
    assert found == sorted(found)
    assert page.url.endswith("/search/?q=red+shirt&sort=price")
    with answered(page):
        page.get_by_label("Sort by").select_option("Price: high to low")
    assert prices(page) == sorted(prices(page), reverse=True)
    with answered(page):
        page.go_back()
    expect(page.get_by_label("Sort by")).to_have_value("price")
    assert no_sideways_scroll(page)


def test_a_switch(page: Page) -> None:
    page.goto("?q=red+shirt")
    stocked = page.get_by_role("switch", name="In stock")
    with answered(page):
        stocked.check()
    expect(page).to_have_url(re.compile(r"/search/\?q=red\+shirt&f\.in_stock=true$"))
    page.reload()
    expect(stocked).to_be_checked()
    page.get_by_role("checkbox", name="Watch").check()
    with answered(page):
        page.get_by_role("button", name="Remove filter In stock").click()
    expect(stocked).not_to_be_checked()
    with answered(page):
        page.go_back()
    expect(stocked).to_be_checked()
    with answered(page):
        page.get_by_role("button", name="Clear all").click()
    assert page.url.endswith("/search/?q=red+shirt")


def test_a_list_of_many_values(page: Page) -> None:
    """Eight are shown, "more" shows the others and a box that finds one; what is chosen stays in sight."""
    page.goto("?q=red")
    found = lines(page, "seller")
    expect(found.filter(visible=True)).to_have_count(8)
    field(page, "seller").get_by_role("button", name="12 more").click()
    expect(found.filter(visible=True)).to_have_count(20)
    page.get_by_label("Find in seller").fill("17")
    expect(found.filter(visible=True)).to_have_text([f"Seller 17{cards('seller')['Seller 17']}"])
    with answered(page):
        found.filter(visible=True).get_by_role("checkbox").check()
    expect(found.filter(visible=True).get_by_role("checkbox")).to_be_focused()
    page.get_by_label("Find in seller").fill("no such")
    expect(field(page, "seller")).to_contain_text("None of these.")
    page.get_by_label("Find in seller").fill("")
    field(page, "seller").get_by_role("button", name="Fewer").click()
    expect(page.get_by_role("checkbox", name="Seller 17")).to_be_visible()
    expect(page.get_by_role("button", name="Remove filter Seller: Seller 17")).to_be_visible()
    expect(page.locator("#status")).to_contain_text(f"{cards('seller')['Seller 17']} products for “red”")


def test_lists_and_counts_of_cards(page: Page) -> None:
    """A facet counts as if nothing had been chosen of it, the others within what was chosen."""
    page.goto("?q=red")
    expected = cards("sizes")
    expect(lines(page, "sizes").filter(has_text="XL")).to_have_text(f"XL{expected['XL']}")
    with answered(page):
        page.get_by_role("checkbox", name=re.compile("^XL,")).check()
    counts = [f"{name}\n{count}" for name, count in sorted(expected.items(), key=lambda one: (-one[1], one[0]))]
    assert lines(page, "sizes").all_inner_texts() == counts
    of_sellers = cards("seller", keep=lambda own: "XL" in own["sizes"])
    assert {text.partition("\n")[0] for text in lines(page, "seller").all_text_contents()}
    expect(lines(page, "seller")).to_have_count(len(of_sellers))


def test_dates(page: Page) -> None:
    page.goto("?q=red")
    box = field(page, "created_at")
    newest = box.get_by_role("radio").nth(1)
    assert re.match(r"from \d+ \w+ 2026, \d+ products", newest.get_attribute("aria-label") or "")
    with answered(page):
        newest.check()
    expect(page.get_by_role("button", name=re.compile("Remove filter Created at from"))).to_be_visible()
    with answered(page):
        box.get_by_role("radio", name="any time").check()
    with answered(page):
        page.get_by_label("Earliest created at").fill("2026-09-21")
    with answered(page):
        page.get_by_label("Latest created at").fill("2026-09-23")
    expect(page.get_by_role("button", name=re.compile(r"Remove filter Created at 21\W+23 Sept 2026"))).to_be_visible()
    between = {own["product_id"] for own in ROWS if date(2026, 9, 21) <= own["created_at"] <= date(2026, 9, 23)}
    expect(page.locator(".results .card")).to_have_count(len(between))
    page.reload()
    expect(page.get_by_label("Latest created at")).to_have_value("2026-09-23")
    expect(page.locator(".results .card")).to_have_count(len(between))


def test_bars_are_as_long_as_their_counts(page: Page) -> None:
    page.goto("?q=red")
    expect(lines(page, "price").nth(1)).to_have_text(re.compile(r"\d$"))
    widths = "all => all.map((bar) => bar.getBoundingClientRect().width)"
    bars = page.locator("[data-facet=price] .bar").evaluate_all(widths)
    counts = [int(text.split("\n")[-1]) for text in lines(page, "price").all_inner_texts()[1:]]
    assert bars[0] == 0  # of "any price"
    assert bars[1:] == pytest.approx([max(bars) * count / max(counts) for count in counts], abs=0.5)


def test_one_card_for_each_product(page: Page) -> None:
    page.goto("?q=red+shirt")
    card = page.locator(".results .card").filter(has_text="2 more colours").first
    card.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="More colours")).to_be_visible()
    variants = dialog.locator(".tiny .card")
    expect(variants).to_have_count(2)
    name = variants.first.get_attribute("aria-label") or ""
    variants.first.press("Enter")
    expect(dialog.locator("#detail-title")).to_have_text(name)
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()


def test_filters_alone_browse(page: Page) -> None:
    page.goto("?category=Watch&sort=-created_at")
    expect(page.locator("#status")).to_have_text("20 products")
    expect(page.locator("#gate")).to_be_hidden()
    assert all("Watch" in text for text in page.locator(".results .facts").all_inner_texts())
    shown = titles(page)
    page.get_by_role("combobox", name="Search products").fill("red")
    expect(page.locator("#status")).to_have_text("20 products for “red”")
    page.go_back()
    expect(page.locator("#status")).to_have_text("20 products")
    assert titles(page) == shown


@pytest.mark.parametrize("page", [{"viewport": {"width": 390, "height": 844}}], indirect=True)
def test_a_sheet_on_a_phone(page: Page) -> None:
    page.goto("?q=red&f.sizes=XL&category=Watch")
    button = page.get_by_role("button", name="Filters (2)")
    button.click()
    sheet = page.get_by_role("dialog", name="Refine")
    expect(sheet.get_by_role("checkbox", name="XL")).to_be_checked()
    with answered(page):
        sheet.get_by_role("switch", name="In stock").check()
    total = sheet.get_by_role("button", name=re.compile("^Show "))
    expect(page.locator("#status")).to_have_text(re.compile("^" + total.inner_text().removeprefix("Show ")))
    page.keyboard.press("Escape")
    expect(sheet).to_be_hidden()
    expect(page.get_by_role("button", name="Filters (3)")).to_be_focused()
    page.get_by_role("button", name="Filters (3)").click()
    with answered(page):
        sheet.get_by_role("button", name="Clear all").click()
    sheet.get_by_role("button", name="Close filters").click()
    assert page.url.endswith("/search/?q=red")
    assert no_sideways_scroll(page)
    page.set_viewport_size({"width": 1280, "height": 800})
    expect(page.get_by_role("complementary", name="Filters").get_by_role("checkbox", name="XL")).to_be_visible()


def test_a_link_with_a_column_that_is_not_there(browser: Browser, service: str) -> None:
    """Without the `page` fixture, as the browser itself reports the refused request on the console."""
    with browser.new_context(base_url=service) as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto("?q=red&f.constructor=x")
        expect(page.locator(".notice")).to_contain_text("unknown column 'constructor'")
        page.get_by_role("button", name="Remove filter Constructor: x").click()
        expect(page.locator("#status")).to_have_text("Best 48 for “red”")
        assert complaints == []


@pytest.mark.parametrize("page", [{}, {"viewport": PHONE}], ids=["wide", "phone"], indirect=True)
def test_nothing_moves_while_everything_fills(page: Page) -> None:
    page.goto("?q=red&f.sizes=XL&f.in_stock=true&sort=price&r.created_at=2026-05-01..=2026-09-30")
    expect(page.locator(".card img").first).to_have_js_property("naturalWidth", 120)
    settled(page)
    assert page.evaluate(SHIFTS) == []


def test_nothing_is_good_enough(page: Page) -> None:
    """What a cut-off leaves out is offered as similar."""

    def with_cutoffs(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"cutoffs": ["adaptive"]})

    def cut(route: Route) -> None:
        asked = route.request.post_data_json
        assert asked.pop("cutoff") is True
        assert asked["facets"]["of"] == "hits"
        answer = route.fetch(post_data=asked)
        found = answer.json()
        none = {"total": {"value": 0, "relation": "exact"}, "hits": [], "near": found["hits"][:5]}
        route.fulfill(response=answer, json=found | none)

    page.route("**/v1/about", with_cutoffs)
    page.route("**/v1/search", cut)
    page.goto("?q=flying+carpet")
    expect(page.locator("#status")).to_have_text(re.compile("^No exact match for “flying carpet”. Similar:"))
    expect(page.locator(".results .card")).to_have_count(5)


@pytest.mark.parametrize(
    ("redirect", "link"), [("/service/returns", "/service/returns"), ("javascript:alert(1)", None)]
)
def test_where_a_rule_leads(page: Page, redirect: str, link: str | None) -> None:
    def ruled(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"redirect": redirect})

    page.route("**/v1/search", ruled)
    page.goto("?q=returns")
    expect(page.locator(".results .card").first).to_be_visible()
    if link is None:
        expect(page.locator("#redirect")).to_be_hidden()
    else:
        expect(page.locator("#redirect").get_by_role("link", name=link)).to_be_visible()
