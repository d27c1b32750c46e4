"""Questions that wait together are answered together, and nobody else's trouble is one's own."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

import pytest

from smar.serving.batcher import Batcher, Busy


class Doubler:
    """Answers n with 2n, 13 with an error, and fails as a whole on a batch that holds -1."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def __call__(self, questions: Sequence[int]) -> Iterator[int | Exception]:
        self.batches.append(list(questions))
        if -1 in questions:
            raise RuntimeError("the whole batch")
        for question in questions:
            yield ValueError("unlucky") if question == 13 else 2 * question


async def ask_all(batcher: Batcher[int, int], *questions: int) -> list[object]:
    return await asyncio.gather(*map(batcher.ask, questions), return_exceptions=True)


def test_together_in_order() -> None:
    answer = Doubler()
    assert asyncio.run(ask_all(Batcher(answer, most=4, bound=100), *range(10))) == [2 * n for n in range(10)]
    assert answer.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_alone_at_once() -> None:
    async def one_after_the_other() -> list[int]:
        batcher = Batcher(Doubler(), most=4, bound=1)
        return [await batcher.ask(number) for number in range(5)]

    assert asyncio.run(one_after_the_other()) == [0, 2, 4, 6, 8]


def test_one_error_is_one_askers() -> None:
    first, unlucky, last = asyncio.run(ask_all(Batcher(Doubler(), most=4, bound=100), 1, 13, 2))
    assert (first, last) == (2, 4)
    assert isinstance(unlucky, ValueError)


def test_a_failed_batch_tells_everyone_and_the_next_is_answered() -> None:
    *failed, answered = asyncio.run(ask_all(Batcher(Doubler(), most=2, bound=100), 1, -1, 5))
    assert [str(error) for error in failed] == ["the whole batch"] * 2
    assert answered == 10


def test_a_full_queue_refuses_at_once() -> None:
    answers = asyncio.run(ask_all(Batcher(Doubler(), most=2, bound=3), *range(5)))
    assert answers[:3] == [0, 2, 4]
    assert all(isinstance(answer, Busy) for answer in answers[3:])


def test_who_has_left_is_not_searched_for() -> None:
    answer = Doubler()

    async def leave() -> int:
        batcher = Batcher(answer, most=4, bound=100)
        left, stayed = (asyncio.create_task(batcher.ask(number)) for number in (1, 2))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        return await stayed

    assert asyncio.run(leave()) == 4
    assert answer.batches == [[2]]


def test_others_run_between_long_answers() -> None:
    """A batch of slow answers lets the event loop in, so that a health check is answered meanwhile."""
    turns: list[str] = []

    def slow(questions: Sequence[int]) -> Iterator[int]:
        for question in questions:
            end = time.perf_counter() + 0.006
            while time.perf_counter() < end:
                pass
            turns.append("answer")
            yield question

    async def run() -> None:
        batcher = Batcher(slow, most=8, bound=8)

        async def tick() -> None:
            while turns.count("answer") < 8:
                turns.append("tick")
                await asyncio.sleep(0)

        await asyncio.gather(tick(), *map(batcher.ask, range(8)))

    asyncio.run(run())
    between = turns[turns.index("answer") : -1]
    assert all(pair != ("answer", "answer") for pair in pairwise(between))
