"""The shopper's place is kept: back and forward, the keyboard when what it was on goes away, a start that fails."""

import re

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from test_browser import PHONE, SHIFTS, answered, lines, settled, type_query

pytestmark = [pytest.mark.browser, pytest.mark.slow]
START = "Say what it looks like."
CONTRAST = """() => {
    const style = getComputedStyle(document.documentElement), pen = document.createElement("canvas").getContext("2d",
        { willReadFrequently: true });
    const channel = value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    const light = name => {
        pen.fillStyle = style.getPropertyValue(name);
        pen.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map(value => channel(value / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    return Object.fromEntries([["--ink", "--page"], ["--soft", "--page"], ["--soft", "--sheet"], ["--ink", "--raised"],
        ["--accent", "--page"], ["--accent", "--sheet"], ["--accent-ink", "--accent"], ["--accent", "--accent-soft"],
        ["--warm", "--warm-soft"]].map(pair => {
            const [dark, bright] = pair.map(light).sort((a, b) => a - b);
            return [pair.join(" on "), (bright + 0.05) / (dark + 0.05)];
        }));
}"""


def test_back_from_what_was_typed(page: Page) -> None:
    """What is typed in one go is one step; Enter ends it."""
    page.goto("/")
    type_query(page, "red shirt")
    page.keyboard.press("Enter")
    page.get_by_role("combobox", name="Search products").fill("steel kettle")
    expect(page.locator("#status")).to_contain_text("for “steel kettle”")
    page.go_back()
    expect(page.locator("#status")).to_contain_text("for “red shirt”")
    page.go_back()
    expect(page.get_by_role("heading", name=START)).to_be_visible()
    page.go_forward()
    expect(page.locator("#status")).to_contain_text("for “red shirt”")


def test_going_back_closes_the_dialog(page: Page) -> None:
    page.goto("/?q=red")
    with answered(page):
        page.get_by_role("radio", name="Words only").check()
    page.locator(".results .card").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("radio", name="Adaptive")).to_be_checked()
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_typing_leads_to_the_best_results(page: Page) -> None:
    page.goto("/?q=red")
    expect(page.locator(".results .card")).to_have_count(48)
    page.mouse.wheel(0, 3000)
    expect(page.locator(".results .card").first).not_to_be_in_viewport()
    page.get_by_role("combobox", name="Search products").press_sequentially(" shirt")
    expect(page.locator("#status")).to_contain_text("for “red shirt”")
    expect(page.locator(".results .card").first).to_be_in_viewport()


def test_the_keyboard_goes_on_with_the_next_card(page: Page) -> None:
    page.goto("/?q=red")
    page.get_by_role("button", name="Show more").press("Enter")
    expect(page.locator(".results .card")).to_have_count(96)
    expect(page.locator(".results .card").nth(48)).to_be_focused()


def test_the_keyboard_is_not_lost_with_what_it_was_on(page: Page) -> None:
    results = page.locator("#results")
    page.goto("/?q=red&category=Watch&brand=Nobody")
    page.get_by_role("button", name="Remove filter Watch").press("Enter")
    expect(results).to_be_focused()
    with answered(page):
        page.get_by_role("button", name="Clear filters").press("Enter")
    expect(results).to_be_focused()
    page.locator(".results .card").first.press("Enter")
    page.get_by_role("button", name="More like this").press("Enter")
    expect(page.locator("#status")).to_contain_text("Best 48 like")
    expect(results).to_be_focused()


def test_skip_to_the_results(page: Page) -> None:
    page.goto("/?q=red")
    expect(page.locator(".results .card")).to_have_count(48)
    page.get_by_role("link", name="Skip to results").press("Enter")
    expect(page.locator("#results")).to_be_focused()
    assert page.url.endswith("/?q=red")


@pytest.mark.parametrize("address", ["/?q=red+shirt", "/?q=red+shirt&compare=1"])
def test_nothing_moves_when_there_is_nothing_to_filter_by(page: Page, address: str) -> None:
    def bare(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, json=answer.json() | {"facets": []})

    page.route("**/v1/about", bare)
    page.goto(address)
    expect(page.locator("#filters")).to_contain_text("Nothing to filter by.")
    expect(page.locator(".card img").first).to_have_js_property("naturalWidth", 120)
    settled(page)
    assert page.evaluate(SHIFTS) == []
    page.get_by_role("combobox", name="Search products").fill("steel kettle")
    expect(page.locator("#status")).to_contain_text("for “steel kettle”")
    expect(page.locator("#filters")).to_be_hidden()


def busy(route: Route) -> None:
    route.fulfill(status=429, headers={"Retry-After": "1"}, json={"error": {"code": "busy", "message": "too many"}})


def test_searching_works_without_the_panel(browser: Browser, service: str) -> None:
    """Without the `page` fixture, as the browser itself reports the failed request on the console."""
    with browser.new_context(base_url=service) as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.route("**/v1/about", busy)
        page.goto("/?q=red&category=Watch")
        expect(page.locator("#filters")).to_contain_text("No filters: too many")
        page.get_by_role("combobox", name="Search products").fill("blue")
        expect(page.locator("#status")).to_contain_text("for “blue”")
        page.get_by_role("button", name="Remove filter Watch").click()
        expect(page.locator("#status")).to_have_text("Best 48 for “blue”")
        page.route("**/v1/search", busy)
        page.get_by_role("combobox", name="Search products").fill("green")
        expect(page.get_by_role("heading", name="That did not work")).to_be_visible()
        page.unroute("**/v1/search")
        page.unroute("**/v1/about")
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#status")).to_contain_text("for “green”")
        expect(lines(page, "category")).to_have_count(3)
        expect(page.locator("#filters")).not_to_contain_text("No filters")
        assert complaints == []


def test_a_count_that_cannot_be_had_is_none(browser: Browser, service: str) -> None:
    """The counts of other filters than the chosen ones would be wrong."""
    with browser.new_context(base_url=service) as context:
        page = context.new_page()
        page.goto("/?like=item%2F00003")
        expect(lines(page, "brand").first).to_have_text(re.compile(r"\d$"))
        page.route("**/v1/search", busy)
        page.get_by_role("checkbox", name=re.compile("Watch")).check()
        expect(lines(page, "brand").first).not_to_have_text(re.compile(r"\d$"))
        expect(page.locator("#status")).to_contain_text("Best 48 of 60 like")


def test_a_picture_that_does_not_load(browser: Browser, service: str) -> None:
    """It is told from one that the item does not have; its place stays as large."""
    with browser.new_context(base_url=service) as context:
        page = context.new_page()
        page.route("**/picture", busy)
        page.goto("/?q=red")
        tile = page.locator(".results .tile").filter(has_text="Picture did not load").first
        expect(tile).to_be_visible()
        assert tile.evaluate("tile => Math.abs(tile.clientWidth - tile.clientHeight)") <= 1
        page.unroute("**/picture")


def test_a_shop_without_pictures_says_so_from_the_start(page: Page) -> None:
    def blind(route: Route) -> None:
        answer = route.fetch()
        category = [value | {"picture": None} for value in answer.json()["category"]]
        route.fulfill(response=answer, json=answer.json() | {"category": category})

    page.route("**/v1/facets*", blind)
    page.goto("/")
    expect(page.locator(".example").filter(has_text="No picture")).to_have_count(3)


def test_an_answer_that_broke_off(page: Page) -> None:
    page.route("**/v1/search", lambda route: route.fulfill(status=200, body='{"hits": ['))
    page.goto("/?q=red")
    expect(page.get_by_role("heading", name="That did not work")).to_be_visible()
    expect(page.locator(".notice")).to_contain_text("broke off")


def test_compare_says_how_pictures_were_used(page: Page) -> None:
    page.goto("/?q=red&compare=1&mode=hybrid")
    expect(page.locator(".column h2").last).to_have_text("With pictures hybrid")
    page.get_by_role("radio", name="Always pictures").check()
    expect(page.locator(".column h2").last).to_have_text("With pictures always")


def test_right_to_left_titles(page: Page) -> None:
    def arabic(route: Route) -> None:
        answer = route.fetch()
        found = answer.json()
        found["hits"][0]["item"]["title"] = "قميص قطني (جديد)!"
        route.fulfill(response=answer, json=found)

    page.route("**/v1/search", arabic)
    page.goto("/?q=red")
    first = page.locator(".results .title").first
    expect(first).to_have_css("direction", "rtl")
    expect(page.locator(".results .title").nth(1)).to_have_css("direction", "ltr")
    page.locator(".results .card").first.click()
    expect(page.locator("#detail-title")).to_have_css("direction", "rtl")


@pytest.mark.parametrize("page", [{}, {"color_scheme": "dark"}], ids=["light", "dark"], indirect=True)
def test_text_stands_out(page: Page) -> None:
    """WCAG AA: 4.5 to 1 for text, in both themes; nothing that is read is faded."""
    page.goto("/?q=red+shirt&compare=1")
    expect(page.locator(".dropped li").first).to_be_visible()
    assert {pair: ratio for pair, ratio in page.evaluate(CONTRAST).items() if ratio < 4.5} == {}
    faded = "all => all.filter(one => one.textContent.trim() && getComputedStyle(one).opacity < 1).length"
    assert page.locator("body *:not(svg, svg *)").evaluate_all(faded) == 0


@pytest.mark.parametrize("page", [{}, {"viewport": PHONE}], ids=["wide", "phone"], indirect=True)
def test_more_comes_while_scrolling(page: Page) -> None:
    page.goto("/?q=red&category=Watch&category=Shirt")
    cards = page.locator(".results .card")
    expect(page.locator("#status")).to_have_text("Best 48 of 120 for “red”")
    cards.last.scroll_into_view_if_needed()
    expect(page.locator("#status")).to_have_text("Best 96 of 120 for “red”")
    cards.last.scroll_into_view_if_needed()
    expect(page.locator("#status")).to_have_text("120 products for “red”")
    expect(cards).to_have_count(120)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_more_comes_by_the_keyboard_alone(page: Page) -> None:
    page.goto("/?q=red")
    cards = page.locator(".results .card")
    expect(cards).to_have_count(48)
    cards.nth(46).focus()
    expect(cards).to_have_count(96)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(cards.nth(48)).to_be_focused()


def test_more_that_cannot_be_had_may_be_asked_for_again(browser: Browser, service: str) -> None:
    with browser.new_context(base_url=service) as context:
        page = context.new_page()
        page.goto("/?q=red")
        cards = page.locator(".results .card")
        expect(cards).to_have_count(48)
        page.route("**/v1/search", busy)
        cards.last.scroll_into_view_if_needed()
        expect(page.get_by_role("button", name="Show more (too many)")).to_be_visible()
        page.unroute("**/v1/search")
        page.get_by_role("button", name="Show more").click()
        expect(cards).to_have_count(96)
