"""A thread that tells whether it gets on with its work."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class OneThread(ThreadPoolExecutor):
    """One thread, and the jobs that wait for it."""

    def __init__(self, name: str) -> None:
        super().__init__(1, name)
        self._begun = self._seen = 0
        self._busy = False

    def submit(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """As every executor does."""

        def job() -> T:
            self._begun, self._busy = self._begun + 1, True
            try:
                return work(*args, **kwargs)
            finally:
                self._busy = False

        return super().submit(job)

    def gets_on(self) -> bool:
        """Whether it is idle, or at another job than at the last `mark`; how many wait does not matter."""
        return not self._busy or self._begun != self._seen

    def mark(self) -> None:
        """From here on it has to get on anew."""
        self._seen = self._begun
