"""Figures that are written together are those that one by one would have been."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from smar.serving.prometheus import count, flush, observe

BUCKETS = (0.1, 0.5, 1.0, 2.5)
values = st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0, 2.0, 2.5, 7.0]), max_size=30)


def family(registry: CollectorRegistry) -> Histogram:
    return Histogram("time", "Seconds", ["route"], buckets=BUCKETS, registry=registry)


@given(first=values, second=values)
def test_a_histogram_equals_one_observed_value_by_value(first: list[float], second: list[float]) -> None:
    ours, twin = CollectorRegistry(), CollectorRegistry()
    histogram, slow = family(ours), family(twin)

    async def work() -> None:
        for route, seen in (("a", first), ("b", second), ("a", second)):
            for value in seen:
                observe(histogram, value, route)
                slow.labels(route).observe(value)
            flush()

    asyncio.run(work())

    def told(registry: CollectorRegistry) -> list[tuple[str, float]]:
        lines = [line.rsplit(" ", 1) for line in generate_latest(registry).decode().splitlines()]
        return sorted((name, float(value)) for name, value in lines if "#" not in name and "_created" not in name)

    assert [name for name, _ in told(ours)] == [name for name, _ in told(twin)]
    assert [value for _, value in told(ours)] == pytest.approx([value for _, value in told(twin)])


def test_what_is_counted_is_written_by_itself() -> None:
    counter = Counter("asked", "Requests", registry=CollectorRegistry())

    async def work() -> float:
        for _ in range(5):
            count(counter)
        await asyncio.sleep(0.4)
        return counter._value.get()

    assert asyncio.run(work()) == 5
