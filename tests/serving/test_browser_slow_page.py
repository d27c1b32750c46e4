"""The page arrives in pieces, as over a slow network or on a busy machine: nothing that was drawn may move."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from playwright.sync_api import Browser, expect
from test_browser import SHIFTS

pytestmark = pytest.mark.browser
PAUSE = 0.4


@pytest.fixture(scope="module")
def slow(service: str) -> Iterator[str]:
    """Address of a forwarder that pauses in the midst of the page's own text: behind the lens of the search field."""

    class Forward(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            answer = httpx.request(self.command, service + self.path, content=self.rfile.read(length))
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers["content-type"])
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            cut = answer.content.index(b"</svg>") + len(b"</svg>") if self.path == "/" else len(answer.content)
            self.wfile.write(answer.content[:cut])
            if answer.content[cut:]:
                time.sleep(PAUSE)
                self.wfile.write(answer.content[cut:])

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Forward)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_nothing_moves_when_the_page_comes_in_pieces(browser: Browser, slow: str) -> None:
    """Without its `rel="expect"` the header is drawn half, and moves."""
    page = browser.new_page(base_url=slow)
    page.goto("/")
    expect(page.locator(".card img").first).to_have_js_property("naturalWidth", 120)
    assert page.evaluate("performance.getEntriesByType('paint')[0].startTime") > 1000 * PAUSE
    assert page.evaluate(SHIFTS) == []
    page.close()
