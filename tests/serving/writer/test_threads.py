"""A thread is alive while it finishes jobs, however many wait; one that is stuck in a job is not."""

import threading

from smar.serving.writer.one_thread import OneThread


class Job:
    """Work that begins and ends when it is told to."""

    def __init__(self, thread: OneThread) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        self.future = thread.submit(self.work)

    def work(self) -> bool:
        self.begun.set()
        return self.end.wait(60)


def test_progress_is_life() -> None:
    with OneThread("test") as thread:
        assert thread.gets_on()
        jobs = [Job(thread) for _ in range(3)]
        for job in jobs:
            assert job.begun.wait(60)
            assert thread.gets_on()
            assert thread.gets_on(), "until a sign was given"
            thread.mark()
            assert not thread.gets_on()
            job.end.set()
            assert job.future.result()
        thread.submit(int).result()
        failed = thread.submit(int, "x")
        assert isinstance(failed.exception(), ValueError)
    assert thread.gets_on()


def test_what_was_cancelled_is_no_job() -> None:
    with OneThread("test") as thread:
        first, second = Job(thread), Job(thread)
        assert second.future.cancel()
        first.end.set()
        assert first.future.result()
    assert thread.gets_on()
    assert not second.begun.is_set()
