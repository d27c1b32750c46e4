"""The loop on a generated shop: a service, a simulated crowd, a new model of the crowd's events, a swap.

    python examples/loop.py --out loop
    python examples/loop.py --out loop --items 300 --log 3000 --searches 500 --config tiny.yaml

The crowd is simulated: it asks the generated shop's queries, looks at the items from the top, further down ever more
seldom, and clicks on what fits by the shop's truth, now and then on what does not. No person searched or clicked. Every
step is a command of `smar` that is printed; folders that are there already are kept, so that the same call goes on.
"""

import argparse
import contextlib
import random
import re
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq

from smar.cli import main as smar
from smar.demo.shop import generate_shop

K, BATCH = 24, 40
FITS, ELSE = 0.6, 0.03
"""How likely the crowd clicks on an item that it looks at, where that fits the query and where it does not."""


def run(*words: object) -> None:
    """Show a command and run it; the program ends where that fails."""
    texts = [str(word) for word in words]
    print(f"\n$ {shlex.join(['smar', *texts])}", flush=True)
    if code := smar(texts):
        sys.exit(code)


class Crowd:
    """Simulated shoppers; `truth` is query -> the items that fit."""

    def __init__(self, truth: dict[str, set[str]], seed: int) -> None:
        self.truth, self.random = truth, random.Random(seed)
        self.queries = sorted(truth)

    def search(self, client: httpx.Client, session: str) -> tuple[list[dict[str, Any]], float]:
        """One search: the events that it leads to, and the share of the first ten hits that fit."""
        query = self.random.choice(self.queries)
        answer = client.post("/v1/search", json={"query": query, "k": K}, headers={"X-Session-Id": session})
        hits = answer.raise_for_status().json()
        fits = [hit["item_id"] in self.truth[query] for hit in hits["hits"]]
        events = []
        for hit, right in zip(hits["hits"], fits, strict=True):
            if self.random.random() > hit["rank"] ** -0.4:
                continue  # did not look so far
            actions = ["impression"] + ["click"] * (self.random.random() < (FITS if right else ELSE))
            actions += ["order"] * (len(actions) > 1 and self.random.random() < 0.1)
            told = {"object": {"object_id": hit["item_id"]}, "position": {"ordinal": hit["rank"]}}
            named = {"query_id": hits["query_id"], "session_id": session, "event_attributes": told}
            events += [{"action_name": action, **named} for action in actions]
        return events, sum(fits[:10]) / 10

    def shop(self, url: str, searches: int) -> tuple[float, float]:
        """Search so often and report it; returns clicks a search, and the mean share of the first ten hits that fit."""
        waiting, clicks, fitting = list[dict[str, Any]](), 0, 0.0
        with httpx.Client(base_url=url, timeout=30) as client:
            for number in range(searches):
                events, share = self.search(client, f"simulated-{number // 3}")
                waiting, fitting = waiting + events, fitting + share
                clicks += sum(event["action_name"] == "click" for event in events)
                while len(waiting) >= BATCH or (waiting and number == searches - 1):
                    client.post("/v1/events", json=waiting[:BATCH]).raise_for_status()
                    waiting = waiting[BATCH:]
        return clicks / searches, fitting / searches


@contextlib.contextmanager
def service(index: Path, events: Path) -> Iterator[str]:
    """`smar serve` on a free port, which takes events; its address."""
    words = ["serve", str(index), "--port", "0", "--events", str(events), "--events-sessions"]
    words += ["--set", "events_rate=0", "--set", "events_part_seconds=1"]
    print(f"\n$ {shlex.join(['smar', *words])} &", flush=True)
    process = subprocess.Popen([sys.executable, "-m", "smar", *words], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://[\d.]+:\d+", line)
        if found is None:
            sys.exit(line + process.stderr.read())
        yield found.group()
    finally:
        process.terminate()
        process.wait(30)


def become(what: str, condition: Any, seconds: float = 60) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.1)


def build(out: Path, options: argparse.Namespace) -> None:
    """The shop and the first model, of a simulated log; what is there is kept."""
    shop = out / "shop"
    if not shop.exists():
        generate_shop(shop, options.items, options.log, options.seed)
    tables = ("--items", shop / "items.parquet", "--clicks", shop / "clicks.parquet")
    for made, words in {
        "dataset": ("prepare", *tables, "--out", out / "dataset", *options.further),
        "run": ("train", out / "dataset", "--out", out / "run", *options.further, *options.first),
        "embeddings": ("embed", out / "run", out / "dataset", "--out", out / "embeddings"),
        "index": ("index", out / "embeddings", "--out", out / "index"),
    }.items():
        if not (out / made).exists():
            run(*words)


def learn(out: Path, options: argparse.Namespace) -> None:
    """A new model of the crowd's events, as a new version of the index that is served."""
    run("prepare", "--items", out / "shop" / "items.parquet", "--clicks", out / "events",
        "--out", out / "dataset-events", *options.further)  # fmt: skip
    run("train", out / "dataset-events", "--from", out / "run", "--out", out / "run-events", *options.later)
    run("embed", out / "run-events", out / "dataset-events", "--out", out / "embeddings-events")
    run("index", out / "embeddings-events", "--out", out / "index")


def main() -> None:
    """Go round once."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--log", type=int, default=8000, help="searches of the log that the first model learns from")
    parser.add_argument("--searches", type=int, default=3000, help="that the crowd makes, before the swap and after it")
    parser.add_argument("--config", help="of `smar prepare` and `smar train`")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.first = options.later = ()
    if options.config is None:
        options.first = ("--set", "train.stage1.steps=150", "--set", "train.stage2.steps=50")
        options.later = ("--set", "train.stage1.steps=100", "--set", "train.stage2.steps=30")
    options.further = () if options.config is None else ("--config", options.config)
    out: Path = options.out
    build(out, options)
    truth: dict[str, set[str]] = defaultdict(set)
    for row in pq.read_table(out / "shop" / "qrels.parquet").to_pylist():
        truth[row["query"]].add(row["item_id"])
    with service(out / "index", out / "events") as url:
        before = Crowd(truth, options.seed).shop(url, options.searches)
        become("the last part of the events", lambda: not any((out / "events").glob("*.journal")))
        run("queries", out / "events", "--index", out / "index", "--out", out / "report-queries")
        version = httpx.get(f"{url}/v1/about").json()["index"]
        learn(out, options)
        become("the swap", lambda: httpx.get(f"{url}/v1/about").json()["index"] != version)
        after = Crowd(truth, options.seed).shop(url, options.searches)
    print(f"\nSimulated crowd, {options.searches:,} searches each   before    after")
    for name, old, new in zip(("clicks a search", "fitting of the first 10"), before, after, strict=True):
        print(f"{name:40} {old:8.3f} {new:8.3f}")


if __name__ == "__main__":
    main()
