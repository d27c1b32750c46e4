"""The module for InstantSearch, with the npm package in a real browser: the page of docs/serving.md as it stands."""

import functools
import http.server
import io
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect

from smar.serving.app import WEB
from tiny_service import address, run_service

pytestmark = pytest.mark.browser
DOCUMENTED = Path(__file__).parents[2] / "docs" / "serving.md"
SERVICE, PACKAGE = "https://search.shop.example", "instantsearch.js@4.118.1"
BUNDLE = "package/dist/instantsearch.production.min.js"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What the package gives browsers: one file, so that its dependencies need no installation."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not on the PATH: the module for InstantSearch is not tested (Debian: apt-get install npm)")
    folder = tmp_path_factory.mktemp("npm")
    command = [
        npm,
        "pack",
        PACKAGE,
        "--prefer-offline",
        "--ignore-scripts",
        "--fetch-retries=0",
        "--fetch-timeout=30000",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    if done.returncode:
        pytest.skip(f"{PACKAGE} cannot be had, so the module for InstantSearch is not tested: {done.stderr[-300:]}")
    with tarfile.open(fileobj=io.BytesIO(next(folder.glob("*.tgz")).read_bytes())) as archive:
        found = archive.extractfile(BUNDLE)
        assert found is not None
        return found.read()


@pytest.fixture(scope="module")
def service(index_path: Path) -> Iterator[str]:
    with run_service(index_path, "--cors", "*", "--root-path", "/search") as process:
        yield address(process) + "/search"


@pytest.fixture(scope="module")
def shop(service: str, bundle: bytes, browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The documented page on a server of its own; only its two addresses are others."""
    folder = tmp_path_factory.mktemp("shop")
    (html,) = re.findall(r"```html\n(.*?)```", DOCUMENTED.read_text("utf-8"), re.DOTALL)
    assert SERVICE in html
    assert PACKAGE in html
    html = html.replace(SERVICE, service).replace(f"https://cdn.jsdelivr.net/npm/{PACKAGE}", "bundle.js")
    (folder / "index.html").write_text(html)
    (folder / "bundle.js").write_bytes(bundle)
    (folder / "favicon.ico").touch()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with browser.new_context(base_url=f"http://127.0.0.1:{server.server_port}") as context:
            page = context.new_page()
            complaints: list[str] = []
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            yield page
        server.shutdown()
    assert complaints == []


def asked(service: str, **body: object) -> dict:
    answer: dict = httpx.post(service + "/v1/search", json={"k": 20} | body).json()
    return answer


def titles(page: Page) -> list[str]:
    return page.locator(".ais-Hits-item .ais-Highlight").all_inner_texts()


def brands(page: Page) -> dict[str, int]:
    items = page.locator(".ais-RefinementList-item")
    pairs = zip(
        items.locator(".ais-RefinementList-labelText").all_inner_texts(),
        items.locator(".ais-RefinementList-count").all_inner_texts(),
        strict=True,
    )
    return {name: int(count) for name, count in pairs}


def test_the_documented_page(shop: Page, service: str) -> None:
    """Words, highlights, pictures, facets, disjunctive ones, a range, a sort, pages, and the state in the address."""
    shop.goto("/")
    expect(shop.locator(".ais-Hits-item")).to_have_count(20)  # nothing typed: the catalogue
    shop.get_by_role("searchbox").first.fill("red shirt")
    found = asked(service, query="red shirt")
    expect(shop.locator(".ais-Hits-item .ais-Highlight").first).to_have_text(found["hits"][0]["item"]["title"])
    assert titles(shop) == [hit["item"]["title"] for hit in found["hits"]]
    marked = {text.lower() for text in shop.locator("mark.ais-Highlight-highlighted").all_inner_texts()}
    assert marked == {"red", "shirt"}
    image = shop.locator(".ais-Hits-item img:not([src=''])").first
    expect(image).to_have_js_property("naturalWidth", 120)
    everything = brands(shop)
    facet = asked(service, query="", facets={"columns": ["brand"], "of": "matches"})["facets"]["brand"]
    assert everything == {one["value"]: one["count"] for one in facet["values"]}

    shop.locator(".ais-RefinementList-checkbox[value='Nike']").check()
    expect(shop.locator(".ais-RefinementList-item--selected")).to_have_count(1)
    expect(shop).to_have_url(re.compile("brand"))
    assert brands(shop) == everything  # as if nothing had been chosen of it
    expect(shop.locator(".ais-Pagination-item--page")).to_have_count(-(-everything["Nike"] // 20))
    chosen = asked(service, query="red shirt", filter="brand=Nike")
    expect(shop.locator(".ais-Hits-item .ais-Highlight").first).to_have_text(chosen["hits"][0]["item"]["title"])
    assert titles(shop) == [hit["item"]["title"] for hit in chosen["hits"]]

    shop.locator(".ais-RangeInput-input--max").fill("100")
    shop.locator(".ais-RangeInput-submit").click()
    cheap = asked(service, query="red shirt", filter="brand=Nike and price<=100")
    assert 0 < cheap["total"]["value"] < everything["Nike"]
    expect(shop.locator(".ais-Hits-item")).to_have_count(cheap["total"]["value"])

    shop.locator(".ais-SortBy-select").select_option("cheapest")
    expect(shop).to_have_url(re.compile("cheapest"))
    prices = sorted(hit["item"]["price"] for hit in cheap["hits"])
    expect(shop.locator(".ais-Hits-item b")).to_have_text([f"{price:g}" for price in prices])


def test_a_value_is_found_within_a_facet_and_pages_turn(shop: Page) -> None:
    shop.goto("/?shop[query]=shirt")
    expect(shop.locator(".ais-Hits-item")).to_have_count(20)
    first = titles(shop)
    shop.locator(".ais-RefinementList-searchBox input").fill("bo")
    expect(shop.locator(".ais-RefinementList-labelText")).to_have_text(["Bosch"])
    expect(shop.locator(".ais-RefinementList-labelText mark")).to_have_text("Bosch")
    shop.get_by_role("link", name="Page 2").click()
    expect(shop).to_have_url(re.compile("page"))
    expect(shop.locator(".ais-Pagination-item--selected")).to_have_text("2")
    assert titles(shop) != first


CLIENT = """async ([module, request]) => {
    const { searchClient } = await import(module);
    return searchClient().search([{ indexName: "shop", ...request }]).catch((error) => error.message);
}"""


@pytest.mark.parametrize(
    ("params", "filter"),
    [
        ({"facetFilters": ["brand:-Nike", ["category:Shirt", "category:Watch"]]}, "brand!=Nike and category!=Kettle"),
        ({"numericFilters": ["price:50 TO 100"]}, "price>=50 and price<=100"),
        ({"numericFilters": [["price<20", "price>=150"]]}, "price<20 or price>=150"),
        ({"filters": "in_stock=true or price<9", "facetFilters": [["brand:Levi's"]]},
         '(in_stock=true or price<9) and brand="Levi\'s"'),
        ({"page": 2, "hitsPerPage": 50, "query": "red"}, None),
    ],
)  # fmt: skip
def test_parameters(shop: Page, service: str, params: dict, filter: str | None) -> None:
    shop.goto("/")
    (result,) = shop.evaluate(CLIENT, [service + "/instantsearch.js", {"params": params}])["results"]
    page = {"k": params.get("hitsPerPage", 20), "offset": params.get("page", 0) * params.get("hitsPerPage", 20)}
    wanted = asked(service, query=params.get("query", ""), filter=filter, **page)
    assert [hit["objectID"] for hit in result["hits"]] == [hit["item_id"] for hit in wanted["hits"]]
    assert result["nbHits"] == wanted["total"]["value"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"aroundLatLng": "40.71, -74.01"}, "aroundLatLng is not available"),
        ({"hitsPerPage": 500}, "hitsPerPage is 500; at most 200"),
        ({"facets": ["*"]}, "name the attributes"),
        ({"numericFilters": ["cheap"]}, "numericFilters: cheap is not read"),
        ({"facetFilters": ["size:M"]}, "unknown column 'size'"),
    ],
)
def test_what_cannot_be_had_is_an_error(shop: Page, service: str, params: dict, message: str) -> None:
    shop.goto("/")
    assert message in shop.evaluate(CLIENT, [service + "/instantsearch.js", {"params": params}])


def test_the_module_is_short_and_served(client: TestClient) -> None:
    assert len((WEB / "instantsearch.js").read_text("utf-8").splitlines()) <= 200
    answer = client.get("/instantsearch.js")
    assert answer.headers["content-type"].startswith("text/javascript")
