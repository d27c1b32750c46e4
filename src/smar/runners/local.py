"""Parts in processes of this machine, one process for each task; one that dies is started again."""

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from queue import SimpleQueue
from typing import Generic

from smar.core.processes import end_with_parent
from smar.core.progress import console
from smar.runners.failures import TRIES, P, R, died, told


class _Process(Generic[P, R]):
    """A task's own process, which starts with its first part."""

    def __init__(self, task: Callable[[P], R]) -> None:
        self._task = task
        self._pool: ProcessPoolExecutor | None = None

    def call(self, part: P) -> R:
        reason = ""
        for _ in range(TRIES):
            self._pool = self._pool or ProcessPoolExecutor(1, get_context("spawn"), _begin)
            try:
                return self._pool.submit(self._task, part).result()
            except BrokenProcessPool as error:
                self.close()
                reason = str(error)
            except Exception as error:
                raise told(part, error) from error.__cause__
        raise died(part, reason)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._pool = None


def in_processes(tasks: Sequence[Callable[[P], R]], parts: Iterable[P]) -> Iterator[R]:
    """As `smar.runners.run.run`; a thread waits for each process."""
    processes = [_Process(task) for task in tasks]
    free: SimpleQueue[_Process[P, R]] = SimpleQueue()
    for process in processes:
        free.put(process)

    def work(part: P) -> R:
        process = free.get()
        try:
            return process.call(part)
        finally:
            free.put(process)

    with ThreadPoolExecutor(len(tasks)) as threads:
        try:
            for done in as_completed([threads.submit(work, part) for part in parts]):
                yield done.result()
        finally:
            threads.shutdown(cancel_futures=True)
            for process in processes:
                process.close()


def _begin() -> None:
    """The parent alone reacts to Ctrl-C and shows progress; a process ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    console.quiet = True
