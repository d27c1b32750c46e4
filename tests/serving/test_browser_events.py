"""The page reports what was seen and opened to a service that takes events."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page, expect

from tiny_service import address, becomes, run_service

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("browser") / "events"


@pytest.fixture(scope="module")
def reporting(index_path: Path, events: Path) -> Iterator[str]:
    words = ("--events", str(events), "--events-sessions", "--set", "events_part_seconds=0.5")
    with run_service(index_path, *words) as process:
        yield address(process)


def rows(folder: Path, kind: str = "events") -> list[dict[str, Any]]:
    return [row for file in sorted(folder.glob(f"{kind}-*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_what_is_seen_and_opened_is_reported(browser: Browser, reporting: str, events: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{reporting}/?q=red+shirt")
    cards = page.locator(".results .card")
    expect(cards).to_have_count(48)
    on_screen = sum(box["y"] + box["height"] / 2 < 900 for card in cards.all() if (box := card.bounding_box()))
    assert 0 < on_screen < 40
    assert becomes(lambda: len(rows(events)) >= on_screen)
    cards.nth(1).click()
    assert becomes(lambda: any(row["action_name"] == "click" for row in rows(events)))
    page.get_by_role("button", name="Close").click()
    page.locator("#query").fill("blue kettle")  # typed on: gone before anything of it was seen for a second
    page.locator("#query").fill("black watch")
    expect(page.locator("#status")).to_contain_text("for “black watch”")
    page.close(run_before_unload=True)
    seen = rows(events)
    first = [row for row in seen if row["query"] == "red shirt"]
    shown = sorted(row["position"] for row in first if row["action_name"] == "impression")
    assert shown == list(range(1, len(shown) + 1)), "each once, from the top"
    assert on_screen <= len(shown) < 48
    assert [(row["action_name"], row["position"]) for row in first if row["action_name"] != "impression"] == [
        ("click", 2)
    ]
    (session,) = {row["session_id"] for row in seen}
    assert len(session) == 32
    assert {row["query_id"] for row in first} == {seen[0]["query_id"]}


def test_a_service_that_takes_none_is_told_nothing(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/?q=red+shirt")
    page.locator(".results .card").first.click()
    page.get_by_role("button", name="Close").click()
    page.wait_for_timeout(1500)
    page.goto("/?q=blue")  # what waits is sent at the latest when the page is left
    assert any("/v1/search" in url for url in asked)
    assert not any("/v1/events" in url for url in asked)
