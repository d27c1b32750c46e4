"""What the tests of object stores need: free ports, a server that runs, and a connection that stands still."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tiny_service import becomes


def free_ports(names: tuple[str, ...]) -> dict[str, int]:
    """Different ones, below those that the system gives to whoever asks, which may be taken until the server starts."""
    with contextlib.ExitStack() as held:
        ports: dict[str, int] = {}
        while len(ports) < len(names):
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", 12_000 + secrets.randbelow(20_000)))
                ports[names[len(ports)]] = int(probe.getsockname()[1])
        return ports


@contextlib.contextmanager
def server_running(
    command: Sequence[str], log: Path, make_bucket: Callable[[], object]
) -> Iterator[subprocess.Popen[bytes]]:
    """A server that has let a bucket be made, while the block runs."""

    def made() -> bool:
        try:
            make_bucket()
        except Exception:  # it is starting; each client has errors of its own
            time.sleep(0.5)
            return False
        return True

    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            assert becomes(made, 60), log.read_text()[-2000:]
            yield process
        finally:
            process.terminate()
            process.wait(30)


class Relay:
    """Passes bytes on to a server until `most` came from the clients, then none any more: `still` is set."""

    def __init__(self, server: int, most: int) -> None:
        self._server, self._most, self.passed = server, most, 0
        self.still, self._lock = threading.Event(), threading.Lock()
        self._open: list[socket.socket] = [socket.create_server(("127.0.0.1", 0))]
        self.port = int(self._open[0].getsockname()[1])

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._open[0].accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                self._open += [client, server]
                for pair, counted in (((client, server), True), ((server, client), False)):
                    threading.Thread(target=self._pass, args=(*pair, counted), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(4096):
                with self._lock:
                    self.passed += len(block) if counted else 0
                    if self.passed >= self._most:
                        self.still.set()
                        return
                target.sendall(block)

    @contextlib.contextmanager
    def running(self) -> Iterator["Relay"]:
        """Accept connections while the block runs."""
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            for each in self._open:
                each.close()


def kill_amid_upload(words: Sequence[object], variable: str, most: int) -> None:
    """Run `smar` with the server that an environment variable names behind a relay; kill it where that stands still."""
    port = urlsplit(os.environ[variable]).port
    assert port is not None
    with Relay(port, most).running() as relay:
        through = os.environ | {variable: f"http://127.0.0.1:{relay.port}"}
        command = [sys.executable, "-m", "smar", *map(str, words)]
        process = subprocess.Popen(command, env=through, stderr=subprocess.DEVNULL)
        try:
            assert relay.still.wait(120)
            assert process.poll() is None
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL
