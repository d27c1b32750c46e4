"""Decode pictures in processes, results in order, packed pictures written straight into ``images.npy``.

Damaged bytes can crash a decoder, not only raise, or keep it busy for hours, which ends its process: if one dies, its
pictures are decoded again one at a time, and the one that kills its process again is `corrupt`.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from smar.core.processes import end_with_parent
from smar.data.images import Decoded, ImageOptions, Unusable, decode
from smar.data.isolated import cpu_limit

CHUNK = 32
Picture = tuple[int, bytes | Path | Unusable]
"""Row of images.npy to write, and the picture (or why there is none)."""
Decoder = Callable[[bytes | Path, ImageOptions], Decoded]


class DecoderPool:
    """Decodes pictures of one ``images.npy``; with one worker it works in this process, unless `isolated`.

    A context manager.
    """

    def __init__(
        self, images: Path, options: ImageOptions, workers: int, decoder: Decoder = decode, isolated: bool = False
    ) -> None:
        self._setup = (images, options, decoder)
        self.workers = workers
        self._pool = self._start() if workers > 1 or isolated else None

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.workers, get_context("spawn"), _begin, self._setup)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def decode(self, pictures: Iterable[Picture]) -> Iterator[Decoded]:
        """Yield one outcome (without pixels) per picture, in order; a few chunks are in memory at once."""
        stream = iter(pictures)
        if self._pool is None:
            _begin(*self._setup, in_process=True)
            for picture in stream:
                yield from _decode_chunk([picture])
            return
        waiting: deque[tuple[list[Picture], Future[list[Decoded]]]] = deque()
        while chunk := list(islice(stream, CHUNK)):
            waiting.append((chunk, self._submit(chunk)))
            if len(waiting) > 2 * self.workers:
                yield from self._finish(*waiting.popleft())
        while waiting:
            yield from self._finish(*waiting.popleft())

    def _submit(self, chunk: list[Picture]) -> Future[list[Decoded]]:
        assert self._pool is not None
        try:
            return self._pool.submit(_decode_chunk, chunk)
        except BrokenProcessPool:
            self._pool = self._start()
            return self._pool.submit(_decode_chunk, chunk)

    def _finish(self, chunk: list[Picture], future: Future[list[Decoded]]) -> list[Decoded]:
        try:
            return future.result()
        except BrokenProcessPool:
            return [self._alone(picture) for picture in chunk]

    def _alone(self, picture: Picture) -> Decoded:
        try:
            return self._submit([picture]).result()[0]
        except BrokenProcessPool:
            return Decoded("corrupt", f"the decoder process died, or worked for {self._setup[1].seconds} CPU seconds")


_state: tuple[np.ndarray, ImageOptions, Decoder, int | None] | None = None


def _begin(images: Path, options: ImageOptions, decoder: Decoder, in_process: bool = False) -> None:
    """Open the shared array once per process; the parent alone reacts to Ctrl-C."""
    global _state
    if not in_process:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        end_with_parent()
    limit = None if in_process else options.seconds
    _state = (np.load(images, mmap_mode="r+"), options, decoder, limit)


def _decode_chunk(chunk: list[Picture]) -> list[Decoded]:
    assert _state is not None
    images, options, decoder, limit = _state
    outcomes = []
    for row, source in chunk:
        if isinstance(source, Unusable):
            outcomes.append(Decoded(source.status, str(source)))
            continue
        with nullcontext() if limit is None else cpu_limit(limit):
            outcome = decoder(source, options)
        if outcome.packed is not None:
            images[row] = outcome.packed
        outcomes.append(replace(outcome, packed=None))
    return outcomes


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
