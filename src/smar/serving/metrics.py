"""What a service counts, in the Prometheus text format; with PROMETHEUS_MULTIPROC_DIR the workers add up."""

import os

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

STAGES = ("tokenise", "encode", "gate", "filter", "search", "fetch")
_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

REQUESTS = Counter("smar_requests", "Requests answered", ["route", "status"])
LATENCY = Histogram(
    "smar_request_seconds", "From the request's head to the answer's last byte", ["route"], buckets=(*_FAST, 5.0)
)
STAGE = Histogram("smar_stage_seconds", "Time of a search by stage", ["stage"], buckets=_FAST)
BATCH = Histogram("smar_batch_size", "Searches encoded at once", buckets=(1, 2, 4, 8, 16, 32, 64))
WAITING = Gauge("smar_queue_depth", "Searches that wait in the workers", multiprocess_mode="livesum")
GATE = Counter("smar_gate", "What the gate said of answered searches", ["decision"])
CACHE = Counter("smar_cache", "Searches answered from the cache or not", ["result"])
REFUSED = Counter("smar_refused", "Requests refused to protect the service", ["reason"])
ITEMS = Gauge("smar_index_items", "Items that can be found", multiprocess_mode="livemax")
VERSION = Gauge("smar_index_version", "Version of the index that each worker serves", multiprocess_mode="liveall")
REFRESHED = Counter("smar_index_refreshes", "Changes of the index taken in")
UNREADABLE = Gauge("smar_index_unreadable", "1 while a changed index cannot be read", multiprocess_mode="livemax")

_STAGE = {stage: STAGE.labels(stage) for stage in STAGES}


def observe_stages(timings: dict[str, float]) -> None:
    """Count one search's milliseconds by stage."""
    for stage, spent in timings.items():
        _STAGE[stage].observe(spent / 1000)


def exposition() -> bytes:
    """All figures of all workers, as Prometheus reads them."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)
