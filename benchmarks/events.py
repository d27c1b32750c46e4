"""What taking events costs the searches beside them: their latencies without and with events, in turns, in one run.

    python benchmarks/events.py [--items 20000] [--rate 10000] [--seconds 3] [--turns 5]

Needs wrk (Debian: apt-get install wrk). The index is kept in build/bench-events for the next run. Searches come from
wrk, as fast as `--connections` connections get answers; events come at a fixed rate in batches, as a page reports the
items that it showed, and all must be acknowledged, that is durable. Both loads come from this machine, too: on two
cores the sender of the events takes from the searches what would elsewhere run in browsers.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from parts.built import build
from parts.load import Bodies, Load, wrk_missing
from parts.service import running

STORE = Path(__file__).parents[1] / "build" / "bench-events"


def batch(events: int) -> bytes:
    """A request that reports so many impressions."""
    shown = [
        {
            "action_name": "impression",
            "query_id": os.urandom(16).hex(),
            "session_id": "0123456789abcdef",
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "event_attributes": {"object": {"object_id": f"item-{at}"}, "position": {"ordinal": at + 1}},
        }
        for at in range(events)
    ]
    body = json.dumps(shown).encode()
    return (
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )


async def send(port: int, rate: float, events: int, seconds: float) -> tuple[int, int]:
    """Send `rate` events a second over 16 connections; returns how many were acknowledged, and the requests refused."""
    request, done, refused = batch(events), 0, 0
    started, turn = time.perf_counter(), 0

    async def connection() -> None:
        nonlocal done, refused, turn
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (due := started + turn * events / rate) < started + seconds:
            turn += 1
            await asyncio.sleep(due - time.perf_counter())
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            if head.startswith(b"HTTP/1.1 200"):
                done += events
            else:
                refused += 1
        writer.close()

    await asyncio.gather(*(connection() for _ in range(16)))
    return done, refused


def sender(url: str, chosen: argparse.Namespace, seconds: float) -> "subprocess.Popen[str]":
    """A process that sends events."""
    words = [sys.executable, __file__, "--send", url.rpartition(":")[2]]
    words += ["--rate", str(chosen.rate), "--batch", str(chosen.batch), "--seconds", str(seconds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=10_000, help="events a second")
    parser.add_argument("--batch", type=int, default=48, help="events a request: what a page shows at first")
    parser.add_argument("--seconds", type=float, default=3, help="of each turn")
    parser.add_argument("--turns", type=int, default=5, help="without events, and as many with them")
    parser.add_argument("--connections", type=int, default=4, help="that search")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--send", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.send:
        print(*asyncio.run(send(chosen.send, chosen.rate, chosen.batch, chosen.seconds)))
        return 0
    if wrk_missing():
        parser.error("wrk is not installed; it makes the load. Debian: apt-get install wrk")
    built = build(STORE, chosen.items, 4000)
    queries = [{"query": query, "k": 50} for query in built.queries["load"]]
    loads: dict[bool, list[Load]] = {False: [], True: []}
    acknowledged = refused = 0
    with tempfile.TemporaryDirectory(prefix="smar-events-") as folder:
        events = Path(folder) / "events"
        command = [sys.executable, "-m", "smar", "serve", str(built.index), "--port", "PORT"]
        command += ["--workers", str(chosen.workers), "--events", str(events), "--set", "events_rate=0"]
        with running([*command, "--events-sessions", "--set", "cache_bytes=0"], queries[0]) as service:
            bodies = Bodies(Path(folder) / "bodies", queries)
            bodies.load(service, chosen.connections, 2)
            for turn in range(2 * chosen.turns):
                with_events = turn % 4 in (1, 2)  # neither is always the later one
                process = sender(service.url, chosen, chosen.seconds + 0.5) if with_events else None
                if process is not None:
                    time.sleep(0.4)  # its interpreter has started
                loads[with_events].append(bodies.load(service, chosen.connections, int(chosen.seconds)))
                if process is not None:
                    done, no = map(int, process.communicate(timeout=60)[0].split())
                    acknowledged, refused = acknowledged + done, refused + no
        kept = sum(pq.read_metadata(part).num_rows for part in events.glob("events-*.parquet"))
    sent = chosen.turns * (chosen.seconds + 0.5)
    print(f"load average before and after: {os.getloadavg()[0]:.1f}\n")
    print("| searches | requests/s | p50 ms | p99 ms | CPU ms a search, events included |\n|---|---:|---:|---:|---:|")
    for with_events, some in loads.items():
        figures = (statistics.median(getattr(one, name) for one in some) for name in ("qps", "p50", "p99", "cpu_ms"))
        name = f"with {chosen.rate:,.0f} events a second" if with_events else "alone"
        print(f"| {name} | " + " | ".join(f"{value:,.2f}" for value in figures) + " |")
    ratio = statistics.median(one.p99 for one in loads[True]) / statistics.median(one.p99 for one in loads[False])
    print(f"\np99 with events / alone: {ratio:.2f}. {acknowledged / sent:,.0f} events a second acknowledged in bodies"
          f" of {chosen.batch}, {refused} refused; {kept:,} of {acknowledged:,} are in the parts.")  # fmt: skip
    return 1 if kept != acknowledged or sum(one.failed for some in loads.values() for one in some) else 0


if __name__ == "__main__":
    sys.exit(main())
