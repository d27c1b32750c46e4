"""The compactor's loop, without an index."""

import asyncio

import pytest

from smar.serving.writer.compaction import Compactor


def test_it_ends_when_it_is_told_to_even_as_something_is_written() -> None:
    looks: list[int] = []

    async def needed() -> bool:
        looks.append(1)
        return False

    async def end() -> None:
        compactor = Compactor("nowhere", needed)
        task = asyncio.create_task(compactor.run())
        while not looks:
            await asyncio.sleep(0)
        compactor.wake()
        task.cancel()
        await asyncio.wait([task], timeout=60)
        assert task.cancelled()

    asyncio.run(end())


@pytest.mark.parametrize("error", [OSError("too many open files"), RuntimeError("no thread")])
def test_it_goes_on_when_the_index_cannot_be_looked_at(error: Exception) -> None:
    looks: list[int] = []

    async def needed() -> bool:
        looks.append(1)
        if len(looks) == 1:
            raise error
        return False

    async def again() -> None:
        compactor = Compactor("nowhere", needed)
        task = asyncio.create_task(compactor.run())
        async with asyncio.timeout(60):
            while len(looks) < 2:
                compactor.wake()
                await asyncio.sleep(0)
        task.cancel()
        assert (compactor.state.failed, compactor.state.error) == (1, f"{type(error).__name__}: {error}")

    asyncio.run(again())
