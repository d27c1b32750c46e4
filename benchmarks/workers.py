"""Our workers and their supervision beside uvicorn's own and granian.

    python benchmarks/workers.py [--seconds 5] [--turns 2]

`pip install granian` and Debian's wrk first. Each serves one application with two workers: a request burns some .2 ms
of CPU and answers 10 kB with the worker's process id. "busiest" is the share of the workers' CPU time that one of them
had. A worker is then killed, or stopped as if it hung, while a client asks over a new connection each time.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx

WATCHED = 60.0
"""Seconds that a hanging worker is given to be noticed."""


def supervise(port: int) -> None:
    """Our supervision, as `smar serve` has it, of two such workers."""
    from smar.serving.child import Child, SignOfLife
    from smar.serving.options import ServiceOptions
    from smar.serving.supervise import listen
    from smar.serving.worker import WorkerTask, life_file

    with tempfile.TemporaryDirectory() as folder:
        shared, listener = Path(folder), listen("127.0.0.1", port)
        options, children = ServiceOptions(shared=shared, workers=2), []
        for number in range(2):
            task = WorkerTask(indexes={}, descriptor=listener.fileno(), number=number, options=options)
            life = SignOfLife(life_file(shared, number), options.hang)
            children.append(Child("parts.burning", task, inherited=[listener.fileno()], life=life))
            children[-1].start()
        while True:
            time.sleep(0.1)
            for child in children:
                child.look()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def commands(port: int) -> dict[str, list[str]]:
    python, common = sys.executable, ["--workers", "2", "--host", "127.0.0.1", "--port", str(port), "parts.burning:app"]
    granian = [python, "-m", "granian", "--interface", "asgi", "--respawn-failed-workers", "--no-ws", "--no-log"]
    return {
        "ours": [python, __file__, "--ours", str(port)],
        "uvicorn": [python, "-m", "uvicorn", "--http", "httptools", "--ws", "none", "--log-level", "critical", *common],
        "granian": [*granian, *common],
    }


def descendants(pid: int) -> list[int]:
    own = [int(one) for file in Path(f"/proc/{pid}/task").glob("*/children") for one in file.read_text().split()]
    return own + [further for one in own for further in descendants(one)]


def cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def serving(port: int) -> set[int]:
    """Process ids that answer new connections; what fails is not counted."""
    found = set()
    for _ in range(24):
        try:
            found.add(int(httpx.get(f"http://127.0.0.1:{port}/", timeout=1).headers["worker"]))
        except httpx.HTTPError:
            time.sleep(0.05)
    return found


def loaded(port: int, connections: int, seconds: float) -> str:
    pids = sorted(serving(port))
    before = {pid: cpu(pid) for pid in pids}
    asked = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", f"http://127.0.0.1:{port}/"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    spent = [cpu(pid) - before[pid] for pid in pids]
    requests = int(re.search(r"(\d+) requests in", told)[1])
    tail = re.search(r"99%\s+(\S+)", told)[1]
    each, share = 1000 * sum(spent) / requests, max(spent) / sum(spent)
    return f"c={connections}: {requests / seconds:5.0f}/s, CPU {each:.2f} ms, p99 {tail}, busiest {share:.2f}"


def struck(port: int, number: signal.Signals) -> str:
    """What clients see of a worker that gets a signal, and how long until another stands in its place."""
    victim, *_ = sorted(before := serving(port))
    os.kill(victim, number)
    started, outcomes, back = time.monotonic(), Counter[str](), None
    while time.monotonic() - started < WATCHED and back is None:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/", timeout=1)
            outcomes["answered"] += 1
            back = time.monotonic() - started if int(answer.headers["worker"]) not in before else None
        except httpx.HTTPError as error:
            outcomes[type(error).__name__] += 1
        time.sleep(0.02)
    if back is None and Path(f"/proc/{victim}").exists():
        os.kill(victim, signal.SIGCONT)
    said = f"another after {back:.1f} s" if back is not None else f"none in {WATCHED:g} s"
    return f"{number.name}: {said}, {dict(outcomes)}"


def measure(name: str, seconds: float, connections: Sequence[int] = (1, 8, 64)) -> None:
    port = free_port()
    process = subprocess.Popen(commands(port)[name], stdout=subprocess.DEVNULL, start_new_session=True)
    # each in a session of its own: the kernel shares out time by session, and ours make one a worker
    try:
        while len(serving(port)) < 2:
            if process.poll() is not None:
                raise SystemExit(f"{name} ended with code {process.returncode}")
        for count in connections:
            print(f"{name:<8} {loaded(port, count, seconds)}", flush=True)
        for number in (signal.SIGKILL, signal.SIGSTOP):
            time.sleep(12)  # ours waits longer with a worker that ends soon after it was started
            print(f"{name:<8} {struck(port, number)}", flush=True)
    finally:
        own = descendants(process.pid)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        for pid in own:
            if Path(f"/proc/{pid}").exists() and "python" in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--ours", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours is not None:
        return supervise(arguments.ours)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    for _ in range(arguments.turns):
        for name in commands(0):
            measure(name, arguments.seconds)


if __name__ == "__main__":
    main()
