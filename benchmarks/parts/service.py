"""A service under measurement: its processes, from the start to the first answer to the end."""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import httpx
import psutil

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
"""As one deploys: a thread for each worker, workers for the cores."""
_START = 300.0


@dataclass(frozen=True)
class Memory:
    """Of all processes together, in MB: `pss` counts a shared page once, `private` leaves shared pages out."""

    processes: int
    pss: float
    private: float


class Service:
    """Processes that listen on 127.0.0.1."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str) -> None:
        self.process, self.url, self.start_seconds = process, url, 0.0

    def tree(self) -> list[psutil.Process]:
        """The process that was started, and all below it."""
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_seconds(self) -> float:
        """Spent so far by all processes."""
        times = [process.cpu_times() for process in self.tree()]
        return sum(spent.user + spent.system for spent in times)

    def memory(self) -> Memory:
        """As it is now."""
        seen = [process.memory_full_info() for process in self.tree()]
        pss, private = (sum(getattr(info, name) for info in seen) / 2**20 for name in ("pss", "uss"))
        return Memory(len(seen), pss, private)


@contextlib.contextmanager
def running(command: Sequence[str], first: dict[str, object], **environment: str) -> Iterator[Service]:
    """Start `command`, in which PORT stands for a free port, wait for its first answer to the search `first`, end it.

    Only processes that were started here are ended.

    Raises:
        RuntimeError: it ends, or does not answer within five minutes; with its messages.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = [word.replace("PORT", str(port)) for word in command]
    with tempfile.TemporaryFile() as messages:
        started = time.perf_counter()
        process = subprocess.Popen(
            words, stdout=messages, stderr=subprocess.STDOUT, env=os.environ | ENVIRONMENT | environment
        )
        service = Service(process, f"http://127.0.0.1:{port}")
        below: list[psutil.Process] = []
        try:
            try:
                _wait(service, first, started + _START)
            except RuntimeError as error:
                messages.seek(0)
                raise RuntimeError(f"{' '.join(words)}: {error}\n{messages.read().decode()[-4000:]}") from None
            service.start_seconds = time.perf_counter() - started
            below = service.tree()[1:]
            yield service
        finally:
            below = list({*below, *service.tree()[1:]})
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(20)
            for left in psutil.wait_procs(below, timeout=5)[1]:  # a psutil.Process knows a reused number
                left.kill()


def _wait(service: Service, first: dict[str, object], end: float) -> None:
    with httpx.Client(base_url=service.url, timeout=60) as client:
        while time.perf_counter() < end:
            if service.process.poll() is not None:
                raise RuntimeError(f"ended with {service.process.returncode} before its first answer")
            with contextlib.suppress(httpx.TransportError):
                answer = client.post("/v1/search", json=first)
                if answer.status_code == 200:
                    return
                if answer.status_code != 503:
                    raise RuntimeError(f"answered {answer.status_code} to the first search: {answer.text[:500]}")
            time.sleep(0.02)
    raise RuntimeError("did not answer in time")
