"""Searches that arrive together are encoded together; nobody waits for company.

A drain-style batcher: whatever waits when the loop comes round is one batch. At concurrency 1 that is one query at
once; under load batches grow by themselves. Everything runs on the event loop, in turns of some milliseconds, so that
answers leave and new requests are read in between; a thread a request was slower in every respect
(docs/decisions/0004-runtime.md).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

from smar.serving.prometheus import BATCH, WAITING, observe, show

Q = TypeVar("Q")
A = TypeVar("A")
_TURN = 0.004


class Busy(Exception):
    """More searches wait than the service wants to answer late."""


class Batcher(Generic[Q, A]):
    """Collects questions; `answer` is given some at once and yields each one's answer, or its error, in order."""

    def __init__(self, answer: Callable[[Sequence[Q]], Iterator[A | Exception]], most: int, bound: int) -> None:
        self._answer, self._most, self._bound = answer, most, bound
        self._waiting: deque[tuple[Q, asyncio.Future[A]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """The answer; raises Busy at once when `bound` questions wait already."""
        if len(self._waiting) >= self._bound:
            raise Busy
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._task is None:
            self._task = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        try:
            while self._waiting:
                count = min(len(self._waiting), self._most)
                batch = [self._waiting.popleft() for _ in range(count)]
                batch = [(question, future) for question, future in batch if not future.done()]  # gone meanwhile
                show(WAITING, len(self._waiting))
                if batch:
                    observe(BATCH, len(batch))
                    await self._turns(batch)
                await asyncio.sleep(0)  # answers leave, new requests come in
        finally:
            self._task = None

    async def _turns(self, batch: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        answers, started = self._answer([question for question, _ in batch]), time.perf_counter()
        for at, (_, future) in enumerate(batch):
            try:
                answer = next(answers)
            except Exception as error:  # the whole batch failed: everyone is told
                for _, waiting in batch[at:]:
                    if not waiting.done():
                        waiting.set_exception(error)
                return
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
            if time.perf_counter() - started > _TURN:
                await asyncio.sleep(0)
                started = time.perf_counter()
