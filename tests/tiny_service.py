"""The search service as a process of its own, for the tests that need a real one."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

READY = re.compile(r"http://[\d.]+:\d+")


@contextlib.contextmanager
def run_service(index_path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`smar serve` on a free port; its messages are on stderr, the first one when it accepts connections."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "smar", "serve", str(index_path), "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        assert process.stderr is not None
        process.stderr.close()


def address(process: subprocess.Popen[str]) -> str:
    """Where a service that was just started listens."""
    assert process.stderr is not None
    line = process.stderr.readline()
    found = READY.search(line)
    assert found, line
    return found.group()
