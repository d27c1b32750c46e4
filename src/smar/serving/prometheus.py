"""What a service counts, in the Prometheus text format; with PROMETHEUS_MULTIPROC_DIR the workers add up."""

import asyncio
import os
import struct
import time
from bisect import bisect_left
from collections import Counter as PlainCounter
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST as CONTENT_TYPE_LATEST,
)
from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

_STARTING = 20  # looks at files of which one is empty

REQUESTS = Counter("smar_requests", "Requests answered", ["method", "route", "status"])
LATENCY = Histogram(
    "smar_request_seconds",
    "From the request's head to the answer's last byte",
    ["method", "route"],
    buckets=(*_FAST, 5.0),
)
STAGE = Histogram("smar_stage_seconds", "Time of a search by stage", ["stage"], buckets=_FAST)
BATCH = Histogram("smar_batch_size", "Searches encoded at once", buckets=(1, 2, 4, 8, 16, 32, 64))
WAITING = Gauge("smar_queue_depth", "Searches that wait in the workers", multiprocess_mode="livesum")
GATE = Counter("smar_gate", "What the gate said of answered searches", ["decision"])
CACHE = Counter("smar_cache", "Searches answered from the cache or not", ["result"])
EVENTS = Counter("smar_events", "Events of shoppers: accepted, rejected, lost", ["result"])
REFUSED = Counter("smar_refused", "Requests refused to protect the service", ["reason"])
ITEMS = Gauge("smar_index_items", "Items that can be found", ["index"], multiprocess_mode="livemax")
VERSION = Gauge(
    "smar_index_version", "Version of the index that each worker serves", ["index"], multiprocess_mode="liveall"
)
REFRESHED = Counter("smar_index_refreshes", "Changes of the index taken in")
RULES_UNREADABLE = Gauge(
    "smar_rules_unreadable",
    "1 while the file of rules is wrong and earlier rules hold",
    ["index"],
    multiprocess_mode="livemax",
)
UNREADABLE = Gauge(
    "smar_index_unreadable", "1 while a changed index cannot be read", ["index"], multiprocess_mode="livemax"
)
STORE_PROBLEM = Gauge(
    "smar_store_problem",
    "1 while new versions in the store of the index are not taken in",
    ["index"],
    multiprocess_mode="livemax",
)
SEARCHES = Counter("smar_searches", "Searches by the index that answers", ["index"])

_EVERY_SECONDS = 0.2
_counted: PlainCounter[tuple[Any, ...]] = PlainCounter()
_seen: dict[tuple[Any, ...], list[float]] = defaultdict(list)
_shown: dict[Gauge, float] = {}
_flushing: asyncio.TimerHandle | None = None


def count(counter: Counter, *labels: str, by: int = 1) -> None:
    """One more, or some; written with others some times a second, as each alone costs a search too much."""
    _counted[counter, *labels] += by
    _flush_soon()


def observe(histogram: Histogram, value: float, *labels: str) -> None:
    """One more value; written with others as by `count`."""
    _seen[histogram, *labels].append(value)
    _flush_soon()


def show(gauge: Gauge, value: float) -> None:
    """Set it; the last value is written with others as by `count`."""
    _shown[gauge] = value
    _flush_soon()


def observe_stages(timings: dict[str, float]) -> None:
    """Observe one search's milliseconds by stage."""
    for stage, spent in timings.items():
        observe(STAGE, spent / 1000, stage)


def _flush_soon() -> None:
    global _flushing
    if _flushing is None:
        _flushing = asyncio.get_running_loop().call_later(_EVERY_SECONDS, flush)


def flush() -> None:
    """Write what was counted."""
    global _flushing
    if _flushing is not None:
        _flushing.cancel()
        _flushing = None
    for (counter, *labels), number in _counted.items():
        (counter.labels(*labels) if labels else counter).inc(number)
    for (histogram, *labels), values in _seen.items():
        _observe_all(histogram.labels(*labels) if labels else histogram, values)
    for gauge, value in _shown.items():
        gauge.set(value)
    for written in (_counted, _seen, _shown):
        written.clear()


def _observe_all(histogram: Histogram, values: Sequence[float]) -> None:
    """`Histogram.observe` for many values; the library has nothing for that, hence its inner parts."""
    bounds: list[float] = histogram._upper_bounds
    for at, number in PlainCounter(bisect_left(bounds, value) for value in values).items():
        histogram._buckets[at].inc(number)
    histogram._sum.inc(sum(values))


def exposition() -> bytes:
    """All figures of all workers, as Prometheus reads them; those of the others some tenths of a second old."""
    flush()
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    for _ in range(_STARTING):
        try:
            return generate_latest(registry)
        except struct.error:  # a worker that starts has made its file and written nothing yet
            time.sleep(0.002)
    return generate_latest(registry)
