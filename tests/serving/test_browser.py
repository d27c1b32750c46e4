"""The search page in a real chromium: typed query, pictures, switch, comparison, filters, keyboard, phone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PHONE = {"width": 360, "height": 740}


def type_query(page: Page, text: str) -> None:
    page.get_by_role("combobox", name="Search products").press_sequentially(text)
    expect(page.locator("#status")).to_contain_text(f"for “{text}”")


def titles(page: Page, scope: str = "#view") -> list[str]:
    return page.locator(f"{scope} .card .title").all_inner_texts()


def settled(page: Page) -> None:
    """Wait for the answer under way; the page's policy forbids `wait_for_function`, which evaluates text."""
    expect(page.locator("#view")).not_to_have_attribute("aria-busy", "true")


@contextmanager
def answered(page: Page) -> Iterator[None]:
    """Leave once the search that the block starts is drawn: until then the page goes on showing the one before."""
    with page.expect_response("**/v1/search"):
        yield
    settled(page)


def no_sideways_scroll(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def test_typing_shows_pictures(page: Page) -> None:
    page.goto("/")
    expect(page.get_by_role("combobox", name="Search products")).to_be_focused()
    expect(page.locator(".example")).to_have_count(3)
    type_query(page, "red shirt")
    expect(page.locator(".results .card")).to_have_count(48)
    expect(page.locator(".results img").first).to_have_js_property("naturalWidth", 120)
    assert page.locator(".results img").first.evaluate("image => image.width > 0 && image.loading === 'eager'")
    assert page.locator(".results img").last.evaluate(
        "image => image.loading === 'lazy' && image.hasAttribute('width')"
    )
    expect(page.get_by_role("meter", name="Pictures help")).to_have_attribute("aria-valuenow", "82")
    expect(page.locator("#gate-why")).to_contain_text("pictures lead")
    expect(page).to_have_url(re.compile(r"\?q=red\+shirt$"))
    expect(page).to_have_title("red shirt · smar")


def test_a_query_that_is_mostly_unknown_is_told_apart(page: Page) -> None:
    page.goto("/?q=red+红色连衣裙")
    expect(page.locator("#status")).to_have_text(
        "Best 48 for “red 红色连衣裙”. 63 % of it is unknown here, so these may not fit"
    )
    page.get_by_role("combobox", name="Search products").fill("red 鞋")
    expect(page.locator("#status")).to_have_text("Best 48 for “red 鞋”")


@pytest.mark.parametrize("page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_words_that_are_read_as_others_are_told(page: Page) -> None:
    page.goto("/?q=red+shrit&mode=hybrid")
    status = page.locator("#status")
    expect(status).to_contain_text("for “red shrit”, searched for “shirt” instead of “shrit”")
    page.get_by_role("radio", name="Adaptive").check()
    expect(status).to_contain_text("for “red shrit”")
    expect(status).not_to_contain_text("searched for")


def test_an_item_without_picture_says_so(page: Page) -> None:
    page.goto("/?q=shirt&category=Shirt")
    tile = page.locator(".card").filter(has_text="No picture").first
    expect(tile).to_be_visible()
    assert tile.locator("img").count() == 0


def test_the_switch_changes_the_results(page: Page) -> None:
    page.goto("/?q=red+shirt")
    expect(page.locator(".results .card")).to_have_count(48)
    adaptive = titles(page)
    page.get_by_role("radio", name="Words only").check()
    expect(page.locator("#gate-why")).to_contain_text("by words alone")
    assert titles(page) != adaptive
    assert "mode=text" in page.url
    page.get_by_role("radio", name="Words only").press("ArrowRight")
    expect(page.get_by_role("radio", name="Adaptive")).to_be_checked()
    expect(page.locator("#gate-why")).to_contain_text("pictures lead")
    assert titles(page) == adaptive
    page.go_back()
    expect(page.get_by_role("radio", name="Words only")).to_be_checked()


def test_comparison(page: Page) -> None:
    page.goto("/?q=red+shirt")
    page.get_by_text("Compare", exact=True).click()
    expect(page.locator(".column")).to_have_count(2)
    words, pictures = titles(page, ".column:first-child"), titles(page, ".column:last-child")
    assert len(words) == len(pictures) == 24
    brought_in = page.locator(".column:last-child .mark.new").count()
    pushed_out = page.locator(".column:first-child .mark.out").count()
    assert brought_in == pushed_out == page.locator(".dropped li").count() > 0
    assert page.locator(".column:last-child .mark.up").count() > 0
    expect(page.locator("#status")).to_contain_text(f"Pictures brought in {brought_in}, moved up")
    left, right = (page.locator(".column").nth(at).bounding_box() for at in (0, 1))
    assert left is not None
    assert right is not None
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]


def test_filters(page: Page) -> None:
    page.goto("/?q=red")
    expect(page.locator(".results .card")).to_have_count(48)
    with answered(page):
        page.get_by_role("checkbox", name=re.compile("Watch")).check()
    expect(page.locator("#status")).to_contain_text("Best 48")
    assert all("Watch" in text for text in page.locator(".results .facts").all_inner_texts())
    with answered(page):
        page.get_by_role("checkbox", name=re.compile("Le Coq")).check()
    with answered(page):
        page.get_by_label("Highest price").fill("60")
    expect(page.get_by_role("button", name="Remove filter Price up to 60")).to_be_visible()
    assert all(float(text) <= 60 for text in page.locator(".results .price").all_inner_texts())
    assert all("Le Coq · Watch" in text for text in page.locator(".results .facts").all_inner_texts())
    page.reload()
    expect(page.get_by_role("checkbox", name=re.compile("Le Coq"))).to_be_checked()
    page.get_by_label("Highest price").fill("1")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator(".results .card")).to_have_count(48)
    assert page.url.endswith("?q=red")


def counts(page: Page, name: str) -> list[str]:
    return lines(page, name).all_inner_texts()


def lines(page: Page, name: str) -> Locator:
    """The values of one list of the panel."""
    return page.locator("label.value").filter(has=page.locator(f"[name={name}]"))


def test_counts_follow_the_filters(page: Page, service: str) -> None:
    """Each list counts what its values would leave under the other filters."""

    def asked(filter: str, name: str) -> dict[str, int]:
        values = httpx.get(service + "/v1/facets", params={"filter": filter}).json()[name]
        return {entry["value"]: entry["count"] for entry in values}

    everything = asked("", "brand")
    page.goto("/?q=red")
    brands = lines(page, "brand")
    expect(brands).to_have_count(len(everything))
    before = counts(page, "brand")
    assert before == [f"{value}\n{count}" for value, count in everything.items()]
    page.get_by_role("checkbox", name=re.compile("Watch")).check()
    watches = asked("category=Watch", "brand")
    assert 0 < len(watches) < len(everything)
    expect(brands.filter(has_text="Nike")).to_have_count(0)
    assert counts(page, "brand") == [f"{value}\n{count}" for value, count in watches.items()]
    assert counts(page, "category") == ["Kettle\n60", "Shirt\n60", "Watch\n60"]
    page.get_by_role("button", name="Remove filter Watch").click()
    expect(brands.filter(has_text="Nike")).to_be_visible()
    assert counts(page, "brand") == before


def test_more_like_this(page: Page) -> None:
    page.goto("/?q=red+shirt")
    page.locator(".results .card").first.click()
    title = page.locator("#detail-title").inner_text()
    page.get_by_role("button", name="More like this").click()
    expect(page.locator("#status")).to_have_text(f"Best 48 like “{title}”")
    expect(page.locator("#subject")).to_contain_text(f"like {title}")
    expect(page.locator("#subject img")).to_have_js_property("naturalWidth", 120)
    assert "like=item%2F" in page.url
    expect(page.get_by_role("combobox", name="Search products")).to_have_value("")
    expect(page.get_by_role("radio", name="Adaptive")).to_be_disabled()
    expect(page.locator("#gate")).to_be_hidden()
    page.locator(".results .card").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("Number 1 in likeness")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Search by words again").click()
    expect(page.get_by_role("heading", name="Say what it looks like.")).to_be_visible()
    page.go_back()
    expect(page.locator("#status")).to_have_text(f"Best 48 like “{title}”")
    type_query(page, "steel kettle")
    expect(page.locator("#subject")).to_be_hidden()


def test_without_a_model_worker_no_picture_is_asked_for(page: Page) -> None:
    page.goto("/?q=red")
    expect(page.locator(".results .card")).to_have_count(48)
    expect(lines(page, "category")).to_have_count(3)  # what the service can do is known by now
    expect(page.locator("#camera")).to_be_hidden()


SHIFTS = """new Promise(done => { const moved = [];
    new PerformanceObserver(list => list.getEntries().forEach(entry => entry.hadRecentInput || moved.push(
        [entry.value, ...entry.sources.map(source => source.node?.id || source.node?.nodeName)])))
        .observe({ type: "layout-shift", buffered: true });
    setTimeout(() => done(moved), 100); })"""


@pytest.mark.parametrize("page", [{}, {"viewport": PHONE}], ids=["wide", "phone"], indirect=True)
@pytest.mark.parametrize("address", ["/", "/?q=red+shirt", "/?q=red+shirt&compare=1", "/?like=item%2F00003"])
def test_nothing_moves_while_the_page_fills(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator(".card img").first).to_have_js_property("naturalWidth", 120)
    if address != "/":
        expect(lines(page, "category")).to_have_count(3)
    settled(page)
    assert page.evaluate(SHIFTS) == []


def test_brand_with_quotes_and_markup_is_only_text(page: Page) -> None:
    page.goto("/?q=shirt&brand=Levi%27s")
    expect(page.locator(".results .facts").first).to_have_text("Levi's · Shirt")
    page.goto("/?q=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E")
    expect(page.locator("#status")).to_contain_text("<img src=x")


def test_keyboard_and_detail(page: Page) -> None:
    page.goto("/?q=red+shirt")
    expect(page.locator(".results .card")).to_have_count(48)
    page.locator(".results .card").nth(1).focus()
    page.keyboard.press("/")
    expect(page.get_by_role("combobox", name="Search products")).to_be_focused()
    page.locator(".results .card").nth(1).press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", name="Why this result")).to_be_visible()
    expect(dialog).to_contain_text("by words alone")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator(".results .card").nth(1)).to_be_focused()


def test_every_control_has_a_name_and_a_visible_focus(page: Page) -> None:
    page.goto("/?q=red+shirt")
    expect(page.locator(".results .card")).to_have_count(48)
    page.get_by_role("combobox", name="Search products").focus()
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        name, ring = page.evaluate(
            """() => { const node = document.activeElement, shown = node.closest("label") ?? node;
            const parts = [shown, ...shown.querySelectorAll("*")].map(part => getComputedStyle(part).outlineStyle);
            const ring = parts.some(style => style !== "none");
            return [node.ariaLabel || node.labels?.[0]?.innerText || node.innerText, ring]; }"""
        )
        assert name.strip()
        assert ring, name
        reached.add(name.split("\n")[0])
    assert {"API", "Adaptive", "Compare"} <= reached


def test_stale_answers_are_dropped(page: Page) -> None:
    """The answer of an earlier query that comes late must not replace the later one's."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        if '"query":"red"' in (route.request.post_data or ""):
            held.append(route)
        else:
            route.continue_()

    page.route("**/v1/search", hold)
    page.goto("/")
    query = page.get_by_role("combobox", name="Search products")
    with page.expect_request("**/v1/search"):
        query.fill("red")
    query.fill("steel kettle")
    expect(page.locator("#status")).to_contain_text("for “steel kettle”")
    assert len(held) == 1
    expect(page.locator("#gate-why")).to_contain_text("Words decide")


def test_failure_and_recovery(browser: Browser, service: str) -> None:
    """Without the `page` fixture, as the browser itself reports the failed request on the console."""
    with browser.new_context(base_url=service) as context:
        page = context.new_page()
        page.goto("/?q=red")
        expect(page.locator(".results .card")).to_have_count(48)
        context.set_offline(True)
        page.get_by_role("combobox", name="Search products").fill("blue")
        expect(page.get_by_role("heading", name="That did not work")).to_be_visible()
        context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        expect(page.locator("#status")).to_contain_text("for “blue”")


@pytest.mark.parametrize(
    "page", [{"viewport": PHONE}, {"viewport": PHONE, "color_scheme": "dark"}], ids=["light", "dark"], indirect=True
)
def test_phone(page: Page) -> None:
    for address in ("/", "/?q=red+shirt", "/?q=red+shirt&compare=1", "/?q=" + "x" * 300, "/?q=red&brand=" + "y" * 200):
        page.goto(address)
        expect(page.locator("#view > *").first).to_be_visible()
        settled(page)
        assert no_sideways_scroll(page), address
    page.goto("/?q=red+shirt")
    page.get_by_role("button", name="Filters").click()
    page.get_by_role("checkbox", name=re.compile("Watch")).check()
    page.get_by_role("button", name="Show 60 products").click()
    expect(page.locator(".results .facts").first).to_contain_text("Watch")
    assert no_sideways_scroll(page)


def test_dark_and_light_differ(browser: Browser, service: str) -> None:
    colours = []
    for scheme in ("light", "dark"):
        with browser.new_context(base_url=service, color_scheme=scheme) as context:
            page = context.new_page()
            page.goto("/")
            colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]


def test_documentation_page(page: Page) -> None:
    page.goto("/docs")
    expect(page.locator("#operations-search-search")).to_be_visible()
    page.locator("#operations-search-search").click()
    expect(page.get_by_role("button", name="Try it out")).to_be_visible()
