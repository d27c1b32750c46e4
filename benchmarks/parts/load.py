"""Load on a service by wrk: many different requests, none of which a cache may have seen."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parts.service import Service

SCRIPT = Path(__file__).with_suffix(".lua")
PATH = "/v1/search"


@dataclass(frozen=True)
class Load:
    """What one run of wrk saw: latencies in milliseconds, and CPU milliseconds of the service's processes a request."""

    concurrency: int
    requests: int
    p50: float
    p99: float
    qps: float
    cpu_ms: float
    failed: int


def put_load(service: Service, file: Path, start: int, concurrency: int, seconds: int) -> Load:
    """Ask the bodies of `file`, one a line, from number `start` on and round again.

    Each of `concurrency` connections asks as soon as its last answer is there.
    """
    words = f"wrk --latency -t1 -c{concurrency} -d{seconds}s --timeout 10s".split()
    words += ["-s", str(SCRIPT), service.url, "--", str(file), PATH, str(start)]
    before = service.cpu_seconds()
    done = subprocess.run(words, capture_output=True, text=True, timeout=seconds + 60)
    spent = service.cpu_seconds() - before
    line = next((line for line in done.stdout.splitlines() if line.startswith("SUMMARY ")), None)
    if done.returncode or line is None:
        raise RuntimeError(f"wrk ended with {done.returncode}: {done.stdout}{done.stderr}")
    seen = json.loads(line.removeprefix("SUMMARY "))
    return Load(
        concurrency=concurrency,
        requests=seen["requests"],
        p50=seen["p50"] / 1000,
        p99=seen["p99"] / 1000,
        qps=seen["requests"] / (seen["microseconds"] / 1e6),
        cpu_ms=1000 * spent / max(1, seen["requests"]),
        failed=seen["errors"] + seen["not_2xx"],
    )


class Bodies:
    """Search requests in a file; every load goes on where the last one stopped, so that no query is soon repeated."""

    def __init__(self, file: Path, bodies: Sequence[dict[str, object]], start: int = 0) -> None:
        file.write_text("".join(json.dumps(body) + "\n" for body in bodies))
        self.file, self.count, self.next = file, len(bodies), start % len(bodies)

    def load(self, service: Service, concurrency: int, seconds: int) -> Load:
        """See `put_load`."""
        seen = put_load(service, self.file, self.next, concurrency, seconds)
        self.next = (self.next + seen.requests + concurrency) % self.count
        return seen


def wrk_missing() -> bool:
    """Whether wrk is not installed."""
    return shutil.which("wrk") is None
