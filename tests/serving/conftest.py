import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, Page, expect, sync_playwright

from smar.search.local.build import build_index
from smar.serving.app import create_app
from smar.serving.engine import Engine
from tiny_index import write_embeddings
from tiny_service import address, run_service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PATIENCE = 120_000
"""Milliseconds after which a thing counts as never seen: a busy machine is slow, not wrong."""
expect.set_options(timeout=PATIENCE)
LATENCY = 80
"""Milliseconds the browser adds to each answer, so that a test which reads the page too early fails always."""


@pytest.fixture(scope="session")
def index_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served")
    build_index(write_embeddings(root / "embeddings"), root / "index")
    return root / "index"


@pytest.fixture(scope="session")
def engine(index_path: Path) -> Engine:
    return Engine.open(index_path)


@pytest.fixture(scope="module")
def client(engine: Engine) -> Iterator[TestClient]:
    with TestClient(create_app(engine), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="session")
def service(index_path: Path) -> Iterator[str]:
    """Address of a real service on a free port; it accepts connections once it prints its address."""
    with run_service(index_path) as process:
        yield address(process)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: the page is not tested (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, service: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page that must neither complain on its console nor ask another host for anything."""
    context = browser.new_context(base_url=service, **getattr(request, "param", {}))
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    network = {"offline": False, "latency": LATENCY, "downloadThroughput": -1, "uploadThroughput": -1}
    context.new_cdp_session(page).send("Network.emulateNetworkConditions", network)
    complaints: list[str] = []
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith((service, "data:", "blob:")) else complaints.append(asked.url),
    )
    yield page
    context.close()
    assert complaints == []
