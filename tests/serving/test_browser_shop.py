"""What a shop configures the page to offer: its own columns to filter by, and columns to sort by."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect
from test_browser import PHONE, answered, no_sideways_scroll

from tiny_service import address, run_service

pytestmark = pytest.mark.browser
OFFERED = ("--facets", "category,brand,price,in_stock", "--sort", "price,-price")


@pytest.fixture(scope="module")
def service(index_path: Path) -> Iterator[str]:
    with run_service(index_path, *OFFERED) as process:
        yield address(process)


def test_what_is_offered_is_told(service: str) -> None:
    """The index has no colour: it is left out."""
    about = httpx.get(service + "/v1/about").json()
    assert about["facets"] == ["category", "brand", "price", "in_stock"]
    assert about["sorts"] == ["price", "-price"]


def prices(page: Page) -> list[float]:
    return [float(text) for text in page.locator(".results .price").all_inner_texts() if text]


@pytest.mark.parametrize("page", [{}, {"viewport": PHONE}], ids=["wide", "phone"], indirect=True)
def test_sort(page: Page) -> None:
    page.goto("/?q=red+shirt")
    with answered(page):
        page.get_by_label("Sort").select_option("price, ascending")
    found = prices(page)
    assert len(found) > 20
    assert found == sorted(found)
    assert page.url.endswith("?q=red+shirt&sort=price")
    expect(page.locator("#status")).to_have_text("Best 48 of 180 for “red shirt”")
    with answered(page):
        page.get_by_label("Sort").select_option("price, descending")
    assert prices(page) == sorted(prices(page), reverse=True)
    with answered(page):
        page.go_back()
    expect(page.get_by_label("Sort")).to_have_value("price")
    assert no_sideways_scroll(page)


def test_a_column_of_the_shop(page: Page) -> None:
    page.goto("/?q=red+shirt")
    box = page.locator("[data-facet=in_stock] label")
    expect(box).to_have_text(["yes135", "no45"])
    with answered(page):
        page.get_by_role("checkbox", name="yes").check()
    expect(page.locator("#status")).to_have_text("Best 48 of 135 for “red shirt”")
    expect(page.get_by_role("button", name="Remove filter in stock: yes")).to_be_visible()
    page.get_by_role("checkbox", name="Watch").check()
    expect(box).to_have_text(["yes45", "no15"])
    page.reload()
    expect(page.get_by_role("checkbox", name="yes")).to_be_checked()
    with answered(page):
        page.get_by_role("button", name="Clear all").click()
    expect(box).to_have_text(["yes135", "no45"])
    assert page.url.endswith("?q=red+shirt")
