"""The search service: as a process of its own, for the tests that need a real one, and asked in this process."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fastapi.testclient import TestClient

from smar.serving.search_schemas import SearchResponse

PATIENCE = 120
"""Seconds after which something counts as never happening; a machine may be busy."""
READY = re.compile(r"http://[\d.]+:\d+")


@contextlib.contextmanager
def run_service(
    index: Path | str | tuple[str, ...], *arguments: str, verb: str = "serve"
) -> Iterator[subprocess.Popen[str]]:
    """`smar serve`, or another `verb`, on a free port; it says on stderr when it accepts connections.

    `index` is a folder or a URL, or several as NAME=FOLDER.
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    indexes = index if isinstance(index, tuple) else (str(index),)
    command = [sys.executable, "-m", "smar", verb, *indexes, "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE)
        assert process.stderr is not None
        process.stderr.close()


def becomes(condition: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Whether something comes true in time; looked at again and again, as it takes a fraction of a second."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def address(process: subprocess.Popen[str]) -> str:
    """Where a service that was just started listens."""
    assert process.stderr is not None
    line = process.stderr.readline()
    found = READY.search(line)
    assert found, line
    return found.group()


def search(client: TestClient, **body: object) -> dict:
    """The answer of a search, of the shape that the API describes, without its own id."""
    response = client.post("/v1/search", json={"query": "red shirt"} | body)
    assert response.status_code == 200, response.text
    SearchResponse.model_validate(response.json())
    return nameless(response.json())


def nameless(answer: dict) -> dict:
    """An answer without its own id, which no other has."""
    assert len(answer.pop("query_id")) == 32
    return answer
