"""Engines loaded from shards: by several processes, and again after a load that was killed in the middle."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine_shop import QUERIES, postgres, write_shop
from smar.core.errors import InputError
from smar.core.files import xxh3
from smar.search.embeddings import Embeddings
from smar.search.engines import open_engine
from smar.search.loading import load
from smar.search.protocol import Mode
from tiny_index import rewrite_manifest

pytestmark = pytest.mark.cluster
SHARDS, KILLED = 6, 3
DIES = """
import os, signal, sys
from smar.search import engines, loading
store = engines.open_store(sys.argv[2])
kind, count = type(store), 0
store.close()
vars(sys.modules[kind.__module__])["_TOGETHER"] = 100  # rows that Milvus is sent at once
append, do = kind.append, kind._do
def dying(self, *given):
    global count
    if count == int(sys.argv[3]):  # and of this shard a part, where an engine takes it in parts
        calls = iter(range(2))
        def some(self, work, **how):
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return do(self, work, **how)
        kind._do = some
        append(self, *given)
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    append(self, *given)
kind.append = dying
loading.load(sys.argv[1], sys.argv[2])
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop of `engine_shop` in six shards."""
    folder = write_shop(tmp_path_factory.mktemp("shop") / "embeddings")
    source = Embeddings(folder)
    whole = [pq.read_table(folder / entry.file) for entry in source.manifest.shards]
    table = pa.concat_tables(whole)
    for entry in source.manifest.shards:
        (folder / entry.file).unlink()
    entries = []
    for at, rows in enumerate(np.array_split(np.arange(len(table)), SHARDS)):
        path = folder / f"shard-{at:05d}.parquet"
        pq.write_table(table.slice(rows[0], len(rows)), path)
        entries.append({"file": path.name, "rows": len(rows), "xxh3": xxh3(path)})
    rewrite_manifest(folder, shards=entries)
    return folder


@pytest.fixture(scope="module", params=["postgresql", "lance", "milvus"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "postgresql":
        with postgres() as server:
            yield f"{server}&table=shop"
    else:
        yield f"{request.param}://{folder / 'shop'}" + (".db/shop" if request.param == "milvus" else "")


def found(url: str) -> tuple[int, list[list[str]]]:
    """How many items there are, and what is found by words and by pictures."""
    engine = open_engine(url)
    try:
        vectors = engine.index.encoder.encode(QUERIES)
        hits = [one for mode in (Mode.TEXT, Mode.MULTIMODAL) for one in engine.index.search(vectors, 20, mode)]
        return len(engine.index), [sorted(hit.item_id for hit in one) for one in hits]
    finally:
        engine.close()


def test_a_killed_load_goes_on(shop: Path, url: str) -> None:
    paths = os.pathsep.join([*sys.path])
    command = [sys.executable, "-c", DIES, str(shop), url, str(KILLED)]
    dead = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, timeout=300)
    assert dead.returncode == -signal.SIGKILL, dead.stderr[-2000:]
    done = load(shop, url)
    assert (done.shards + done.reused, done.items) == (SHARDS, 3000)
    assert done.reused == KILLED + (not url.startswith("milvus"))  # where a shard is whole or absent, it was whole
    assert done.recall >= 0.95
    killed = found(url)
    whole = load(shop, url)
    assert (whole.shards, whole.reused) == (SHARDS, 0)
    assert whole.rate > 0
    assert whole.version > done.version
    assert found(url) == killed
    assert killed[0] == 3000


def test_several_processes_load_what_one_does(shop: Path, url: str) -> None:
    if url.startswith("milvus:///"):
        with pytest.raises(InputError, match=r"one process at a time opens milvus:///.*--workers"):
            load(shop, url, workers=2)
        return
    load(shop, url)
    one = found(url)
    done = load(shop, url, workers=2)
    assert (done.shards, done.items) == (SHARDS, 3000)
    assert found(url) == one
