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


class Requests:
    """Bodies in a file, asked in order; every run goes on where the one before it stopped."""

    def __init__(self, file: Path, bodies: Sequence[dict[str, object]]) -> None:
        file.write_text("".join(json.dumps(body) + "\n" for body in bodies))
        self.file, self.count, self.next = file, len(bodies), 0

    def run(self, service: Service, concurrency: int, seconds: float) -> Load:
        """Ask with `concurrency` connections, each as soon as its last answer is there."""
        command = [
            "wrk",
            "--latency",
            "-t1",
            f"-c{concurrency}",
            f"-d{seconds:g}s",
            "--timeout",
            "10s",
            "-s",
            str(SCRIPT),
        ]
        before = service.cpu_seconds()
        done = subprocess.run(
            [*command, service.url, "--", str(self.file), PATH, str(self.next)],
            capture_output=True, text=True, timeout=seconds + 60,
        )  # fmt: skip
        spent = service.cpu_seconds() - before
        line = next((line for line in done.stdout.splitlines() if line.startswith("SUMMARY ")), None)
        if done.returncode or line is None:
            raise RuntimeError(f"wrk ended with {done.returncode}: {done.stdout}{done.stderr}")
        seen = json.loads(line.removeprefix("SUMMARY "))
        self.next = (self.next + seen["requests"] + concurrency) % self.count
        return Load(
            concurrency=concurrency,
            requests=seen["requests"],
            p50=seen["p50"] / 1000,
            p99=seen["p99"] / 1000,
            qps=seen["requests"] / (seen["microseconds"] / 1e6),
            cpu_ms=1000 * spent / max(1, seen["requests"]),
            failed=seen["errors"] + seen["not_2xx"],
        )


def wrk_missing() -> bool:
    """Whether wrk is not installed."""
    return shutil.which("wrk") is None
