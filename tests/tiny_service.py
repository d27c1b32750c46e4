"""The search service as a process of its own, for the tests that need a real one."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SERVE = (
    "import sys; from pathlib import Path; from smar.serving.supervise import serve; "
    "serve(Path(sys.argv[1]), port=int(sys.argv[2]))"
)


@contextlib.contextmanager
def run_service(index_path: Path, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    """The service as a process of its own; its messages are on stderr."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    command = [sys.executable, "-c", SERVE, str(index_path), str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)
        assert process.stderr is not None
        process.stderr.close()
