"""The search page in a real chromium: milliseconds from a query's request to its drawn results, and what moves.

    python benchmarks/page.py [INDEX] [--queries 40]

INDEX is what `smar index` or `make demo` made (default demo/index). Every query is a title of the index, typed as a
whole; the page's own typing pause of 120 ms comes before the request and is not counted. Budget: the first result
within 100 ms.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from parts.service import running
from smar.search.local.live import UpdatableIndex

BUDGET = 100.0
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
SEARCH = """query => new Promise(done => {
    performance.clearResourceTimings();  // the buffer holds 250, and every result has a picture
    const input = document.getElementById("query"), status = document.getElementById("status");
    new MutationObserver((_, observer) => {
        if (!document.querySelector(".results .card") || !status.textContent.includes(`“${query}”`)) return;
        observer.disconnect();
        requestAnimationFrame(() => {
            const drawn = performance.now(), asked = performance.getEntriesByType("resource")
                .filter(entry => entry.name.endsWith("/v1/search")).at(-1);
            done([drawn - asked.startTime, asked.responseEnd - asked.startTime]);
        });
    }).observe(document.body, { subtree: true, childList: true, characterData: true });
    input.value = query;
    input.dispatchEvent(new Event("input", { bubbles: true }));
})"""
SHIFT = """new Promise(done => { let moved = 0;
    const add = entry => (moved += entry.hadRecentInput ? 0 : entry.value);
    new PerformanceObserver(list => list.getEntries().forEach(add)).observe({ type: "layout-shift", buffered: true });
    setTimeout(() => done(moved), 200); })"""


def measure(page: Page, url: str, queries: list[str]) -> None:
    foreign: list[str] = []
    page.on(
        "request", lambda asked: None if asked.url.startswith((url, "data:", "blob:")) else foreign.append(asked.url)
    )
    page.goto(f"{url}/?q={queries[0]}")
    page.locator(".results .card").first.wait_for()
    page.wait_for_load_state("networkidle")
    moved = page.evaluate(SHIFT)
    spent = np.array([page.evaluate(SEARCH, query) for query in queries[1:]])
    drawn, answered = np.percentile(spent[:, 0], (50, 95)), np.percentile(spent[:, 1], (50, 95))
    verdict = "within" if drawn[1] <= BUDGET else "OVER"
    print(f"request to drawn results: p50 {drawn[0]:.1f}, p95 {drawn[1]:.1f} ms ({verdict} the budget of {BUDGET:.0f})")
    print(f"of that until the whole answer is there: p50 {answered[0]:.1f}, p95 {answered[1]:.1f} ms")
    print(f"layout shift while the page fills: {moved:.4f}; requests to other hosts: {len(foreign)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path, nargs="?", default=Path("demo/index"))
    parser.add_argument("--queries", type=int, default=40)
    arguments = parser.parse_args()
    if not arguments.index.is_dir() or not Path(CHROMIUM).exists():
        print(f"not measured: needs {CHROMIUM} and an index at {arguments.index} (make demo SERVE=0)", file=sys.stderr)
        return
    table = UpdatableIndex.open(arguments.index, check=False).snapshot.catalogue.table
    rows = np.random.default_rng(0).permutation(table.num_rows)
    titles = [" ".join(table["title"][int(row)].as_py().lower().split()) for row in rows[: 3 * arguments.queries]]
    queries = [title for title in dict.fromkeys(titles) if title.isascii()][: arguments.queries + 1]
    command = [sys.executable, "-m", "smar", "serve", str(arguments.index), "--port", "PORT"]
    with running(command, {"query": "red", "k": 1}) as service, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        measure(browser.new_page(), service.url, queries)
        browser.close()


if __name__ == "__main__":
    main()
