"""How fast items change over HTTP: one after the other, many at once, as JSON lines; all of it durable when answered.

    python benchmarks/changes.py INDEX RUN [--seconds 5] [--connections 64]

Works on a copy of INDEX, whose model RUN is, and prints a table in Markdown. The load comes from this machine, too.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil

KEY = "0123456789abcdef"


def request(method: str, item_id: str, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    head = f"{method} /v1/items/{quote(item_id, safe='')} HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode() + content


async def connection(port: int, requests: Iterator[bytes], until: float) -> list[float]:
    """Send request after request; returns the seconds that each took. Every one must be answered with 200."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    spent = []
    while time.perf_counter() < until:
        started = time.perf_counter()
        writer.write(next(requests))
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        answer = await reader.readexactly(int(length.split(b":")[1]))
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"{head.decode()}{answer.decode()}")
        spent.append(time.perf_counter() - started)
    writer.close()
    return spent


async def loaded(port: int, requests: Iterator[bytes], connections: int, seconds: float) -> tuple[float, list[float]]:
    """Answers a second, and the seconds that each took."""
    started = time.perf_counter()
    tasks = [connection(port, requests, started + seconds) for _ in range(connections)]
    spent = sorted(one for found in await asyncio.gather(*tasks) for one in found)
    return len(spent) / (time.perf_counter() - started), spent


def cpu(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(sum(one.cpu_times()[:2]) for one in family)


def ready(client: httpx.Client, item: str) -> None:
    """Wait until the model worker answers."""
    while client.patch(f"/v1/items/{quote(item, safe='')}", json={}).status_code == 503:
        time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--lines", type=int, default=20_000, help="of a bulk request")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = Path(shutil.copytree(options.index, Path(folder) / "index"))
        (Path(folder) / "keys").write_text(KEY + "\n")
        words = ("serve", index, "--port", "0", "--model", options.run, "--keys", Path(folder) / "keys",
                 "--workers", options.workers)  # fmt: skip
        command = [sys.executable, "-m", "smar", *map(str, words)]
        service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"NO_COLOR": "1"})
        try:
            assert service.stderr is not None
            address = service.stderr.readline().split("http://")[1].split()[0].rstrip("/,")
            measure(address, psutil.Process(service.pid), options)
        finally:
            service.terminate()
            service.wait()


def measure(address: str, service: psutil.Process, options: argparse.Namespace) -> None:
    """Print a row for each way to change items."""
    port = int(address.rpartition(":")[2])
    client = httpx.Client(base_url=f"http://{address}", headers={"X-API-Key": KEY}, timeout=600)
    items = client.get("/v1/items", params={"limit": 1000}).json()["items"]
    titles = [item["item"]["title"] for item in items]
    names = [item["item_id"] for item in items]
    ready(client, names[0])
    total, load = client.get("/v1/about").json()["items"], os.getloadavg()[0]
    print(f"{total:,} items, {options.workers} query worker(s), {os.cpu_count()} cores, load average {load:.1f}\n")
    print("| | a second | CPU ms each | p50 ms | p99 ms |\n|---|---:|---:|---:|---:|")

    def puts() -> Iterator[bytes]:
        for at in iter(int, 1):
            yield request("PUT", f"new-{next(numbers)}", {"title": titles[at % len(titles)], "price": 9.5})

    def patches() -> Iterator[bytes]:
        for number in iter(numbers.__next__, -1):
            yield request("PATCH", names[number % len(names)], {"price": number % 1000 / 10})

    numbers = iter(range(10**9))
    rates = {}
    for name, requests, connections in (
        ("PUT without picture, one after the other", puts(), 1),
        (f"PUT without picture, {options.connections} at once", puts(), options.connections),
        ("PATCH of a price, one after the other", patches(), 1),
        (f"PATCH of a price, {options.connections} at once", patches(), options.connections),
    ):
        before = cpu(service)
        rates[name], spent = asyncio.run(loaded(port, requests, connections, options.seconds))
        each = 1000 * (cpu(service) - before) / len(spent)
        p50, p99 = (1000 * spent[int(share * (len(spent) - 1))] for share in (0.5, 0.99))
        print(f"| {name} | {rates[name]:,.0f} | {each:.2f} | {p50:.1f} | {p99:.1f} |", flush=True)
    put = [{"item_id": f"bulk-{at}", "title": titles[at % len(titles)], "price": 9.5} for at in range(options.lines)]
    patch = [{"item_id": names[at % len(names)], "price": at % 1000 / 10} for at in range(options.lines)]
    for action, rows in (("put", put), ("patch", patch)):
        content = "\n".join(map(json.dumps, rows))
        before, started = cpu(service), time.perf_counter()
        answer = client.post("/v1/items/bulk", params={"action": action}, content=content.encode())
        took, used = time.perf_counter() - started, cpu(service) - before
        results = [json.loads(line) for line in answer.text.splitlines()]
        assert [result["status"] for result in results] == [200] * len(rows), answer.text[:500]
        rates[action] = len(rows) / took
        print(f"| {len(rows):,} lines of {action} | {rates[action]:,.0f} | {1000 * used / len(rows):.2f} | | |")
    single = rates["PUT without picture, one after the other"]
    print(f"\nlines of put are {rates['put'] / single:.0f} times as fast as PUT one after the other")


if __name__ == "__main__":
    main()
