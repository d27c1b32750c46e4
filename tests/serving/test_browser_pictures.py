"""Searching by picture in a real chromium, with a real model behind it: chosen, dropped, pasted, refused."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tiny_line import Line
from tiny_service import address, run_service
from tiny_writer import becomes, png

pytestmark = pytest.mark.browser
DROP = """([kind, text]) => {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0)), given = new DataTransfer();
    given.items.add(new File([bytes], "picture.png", { type: "image/png" }));
    const field = kind === "paste" ? "clipboardData" : "dataTransfer";
    const event = kind === "paste" ? ClipboardEvent : DragEvent;
    document.body.dispatchEvent(new event(kind, { [field]: given, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def service(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("pictures")
    with run_service(line.copy("index", folder), "--model", str(line.run)) as process:
        url = address(process)
        assert becomes(lambda: httpx.post(url + "/v1/search/picture", content=png()).status_code == 200)
        yield url


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    path.write_bytes(png())
    return path


def test_a_chosen_picture(page: Page, picture: Path) -> None:
    page.goto("/?q=red+shirt")
    expect(page.locator("#camera")).to_be_visible()
    page.set_input_files("#picture", picture)
    expect(page.locator("#status")).to_contain_text("for your picture")
    expect(page.locator("#subject")).to_contain_text("your picture")
    expect(page.locator("#subject img")).to_have_js_property("naturalWidth", 60)
    expect(page.get_by_role("combobox", name="Search products")).to_have_value("")
    page.locator(".results .card").first.click()
    expect(page.get_by_role("dialog")).to_contain_text("Number 1 for your picture")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Search by words again").click()
    expect(page.get_by_role("heading", name="Say what it looks like.")).to_be_visible()
    page.get_by_role("combobox", name="Search products").fill("shirt")
    expect(page.locator("#status")).to_contain_text("for “shirt”")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_that_is_dropped_or_pasted(page: Page, kind: str) -> None:
    page.goto("/")
    expect(page.locator("#camera")).to_be_visible()
    page.evaluate(DROP, [kind, base64.b64encode(png("blue")).decode()])
    expect(page.locator("#status")).to_contain_text("for your picture")
    assert page.locator(".results .card").count() > 0


def test_back_and_forward_to_a_picture(page: Page, picture: Path) -> None:
    """The address cannot hold a picture, yet it is a step in the browser's history."""
    page.goto("/")
    expect(page.locator("#camera")).to_be_visible()
    page.set_input_files("#picture", picture)
    expect(page.locator("#status")).to_contain_text("for your picture")
    page.go_back()
    expect(page.get_by_role("heading", name="Say what it looks like.")).to_be_visible()
    page.go_forward()
    expect(page.locator("#status")).to_contain_text("for your picture")
    expect(page.locator("#subject img")).to_have_js_property("naturalWidth", 60)
    page.get_by_role("link", name="Skip to results").press("Enter")
    expect(page.locator("#results")).to_be_focused()
    expect(page.locator("#subject")).to_contain_text("your picture")


def test_a_file_that_is_no_picture(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("red")
    page.goto("/")
    expect(page.locator("#camera")).to_be_visible()
    page.set_input_files("#picture", path)
    expect(page.get_by_role("status").first).to_have_text("“notes.txt” is not a picture")


def test_filters_hold_for_pictures_too(page: Page, picture: Path) -> None:
    page.goto("/?q=red")
    expect(page.locator("#camera")).to_be_visible()
    box = page.locator("label.value").first
    name = box.locator(".name").inner_text()
    page.set_input_files("#picture", picture)
    expect(page.locator("#status")).to_contain_text("for your picture")
    box.get_by_role("checkbox").check()
    expect(page.get_by_role("button", name=f"Remove filter {name}")).to_be_visible()
    expect(page.locator(".results .facts").filter(has_not_text=name)).to_have_count(0)
    assert page.locator(".results .card").count() > 0
