"""Bulk files for engines that are not here: complete, of the published shape, and sent by their scripts.

No such server runs in these tests: a small one takes what the scripts send and keeps it.
"""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import duckdb
import numpy as np
import pytest

from smar.core.errors import InputError
from smar.export.bulk import VECTOR, write_bulk
from smar.search.embeddings import Embeddings
from tiny_index import write_embeddings
from tiny_line import smar

ITEMS = 1_100


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("bulk") / "embeddings", ITEMS)


@pytest.fixture(scope="module")
def wide(embeddings: Path) -> np.ndarray:
    return np.concatenate([part for shard in Embeddings(embeddings).shards() for part in shard.joined()])


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """An address, and the requests that were sent there."""
    seen: list[tuple[str, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            seen.append((self.command, self.path, self.rfile.read(int(self.headers["Content-Length"] or 0))))
            body = b'{"errors":false}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", seen
        http.shutdown()


def loaded(out: Path, url: str) -> None:
    script = out / "load.sh"
    assert len(script.read_text().splitlines()) <= 30
    subprocess.run(["sh", str(script), url, "shop"], check=True, capture_output=True)


def test_parquet_is_asked_by_inner_product(embeddings: Path, wide: np.ndarray, tmp_path: Path) -> None:
    done = smar("bulk", embeddings, "--to", "parquet", "--out", tmp_path)
    assert done.code == 0, done.err
    assert done.says("items", "1,100", "none was run here")
    sql = (tmp_path / "query.sql").read_text().replace("items.parquet", str(tmp_path / "items.parquet"))
    rows = duckdb.sql(sql.replace(", VECTOR::", f", {wide[7].tolist()}::")).fetchall()
    scores = wide @ wide[7]
    assert [score for _, score in rows] == pytest.approx(np.sort(scores)[::-1][:10].tolist(), abs=1e-5)
    assert rows[0][0] == Embeddings(embeddings).payload["item_id"][int(scores.argmax())].as_py()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("engine", ["opensearch", "elasticsearch"])
def test_lucene_gets_every_item_and_the_largest_inner_product(
    engine: str, embeddings: Path, wide: np.ndarray, tmp_path: Path, server: tuple[str, list]
) -> None:
    write_bulk(embeddings, engine, tmp_path)
    url, seen = server
    loaded(tmp_path, url)
    (method, path, body), *parts, refresh = seen
    assert (method, path, refresh[1]) == ("PUT", "/shop", "/shop/_refresh")
    own = json.loads(body)["mappings"]["properties"]
    if engine == "elasticsearch":
        assert own[VECTOR] | {"index_options": None} == {
            "type": "dense_vector",
            "dims": 64,
            "index": True,
            "similarity": "max_inner_product",
            "index_options": None,
        }
    else:
        assert (own[VECTOR]["type"], own[VECTOR]["dimension"]) == ("knn_vector", 64)
        assert own[VECTOR]["method"]["space_type"] == "innerproduct"
        assert json.loads(body)["settings"]["index"]["knn"] is True
    assert (own["price"]["type"], own["in_stock"]["type"], own["brand"]["type"]) == ("double", "boolean", "keyword")
    lines = [
        json.loads(line) for _, path, part in parts for line in part.splitlines() if path.startswith("/shop/_bulk")
    ]
    assert all(part.endswith(b"\n") for _, _, part in parts), "the last line of a bulk request ends, too"
    actions, items = lines[::2], lines[1::2]
    assert [action["index"]["_id"] for action in actions] == [item["item_id"] for item in items]
    np.testing.assert_allclose([item[VECTOR] for item in items], wide, atol=1e-6)
    assert set().union(*items) <= own.keys()
    for product in (-2.0, -0.25, 0.0, 0.5):  # as the vendors say, and as score.txt says to read it
        score = 1 + product if product >= 0 else 1 / (1 - product)
        assert (score - 1 if score >= 1 else 1 - 1 / score) == pytest.approx(product)
    assert "p = s - 1 where s is 1 or more, else 1 - 1 / s" in (tmp_path / "score.txt").read_text()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_qdrant_gets_points_with_ids_that_it_takes(
    embeddings: Path, wide: np.ndarray, tmp_path: Path, server: tuple[str, list]
) -> None:
    write_bulk(embeddings, "qdrant", tmp_path)
    url, seen = server
    loaded(tmp_path, url)
    assert json.loads(seen[0][2]) == {"vectors": {"size": 64, "distance": "Dot"}}
    sent = [json.loads(body) for _, path, body in seen if path == "/collections/shop/points?wait=true"]
    points = [point for part in sent for point in part["points"]]
    assert len({point["id"] for point in points}) == ITEMS == len(points)
    np.testing.assert_allclose([point["vector"] for point in points], wide, atol=1e-6)
    fields = {
        entry["field_name"]: entry["field_schema"]
        for _, path, body in seen
        if "/index" in path
        for entry in [json.loads(body)]
    }
    assert fields["price"] == "float"
    assert fields.keys() <= set(points[1]["payload"]) | {"brand", "price"}


def test_vespa_gets_documents_of_its_schema(embeddings: Path, wide: np.ndarray, tmp_path: Path) -> None:
    write_bulk(embeddings, "vespa", tmp_path)
    schema = (tmp_path / "smar.sd").read_text()
    assert "distance-metric: dotproduct" in schema
    assert f"field {VECTOR} type tensor<float>(x[64])" in schema
    documents = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert documents[3]["put"] == "id:smar:smar::item/00003"
    assert all(f"field {name} type" in schema for name in set().union(*(one["fields"] for one in documents)))
    np.testing.assert_allclose([one["fields"][VECTOR]["values"] for one in documents], wide, atol=1e-6)
    assert len((tmp_path / "load.sh").read_text().splitlines()) <= 30


def test_an_unknown_engine_is_refused(embeddings: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="allowed: elasticsearch, opensearch, parquet, qdrant, vespa"):
        write_bulk(embeddings, "solr", tmp_path)
