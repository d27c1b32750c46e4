"""An engine behind the service: searched from the command line and over HTTP, killed and back by itself."""

import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from engine_shop import FILTERS, QUERIES, Exact, postgres_server, restarted, write_shop
from smar.core.files import sha256
from smar.data.voices import Voices
from smar.search.engines import open_engine
from smar.search.protocol import Mode
from smar.serving.search_schemas import HitsResponse, SearchResponse
from test_cli_index import new_items
from tiny_index import rewrite_manifest
from tiny_line import Line, smar
from tiny_service import address, becomes, run_service

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shop(tmp_path_factory.mktemp("shop") / "embeddings")


@pytest.fixture(scope="module")
def lance_url(shop: Path) -> str:
    url = f"lance://{shop.parent / 'shop'}"
    done = smar("index", shop, "--to", url)
    assert done.code == 0, done.err
    assert done.says("items", "3,000", "recall", "1.0000")
    return url


@pytest.fixture(scope="module")
def client(lance_url: str) -> Iterator[httpx.Client]:
    with run_service(lance_url) as process, httpx.Client(base_url=address(process), timeout=30) as client:
        yield client


def ids(answer: dict) -> list[str]:
    return [hit["item_id"] for hit in answer["hits"]]


def test_the_command_line_searches_and_changes_an_engine(lance_url: str, tmp_path: Path) -> None:
    found = smar("search", lance_url, "red shirt", "--filter", FILTERS[1], "--facets", "brand", "--json", "-k", "5")
    assert found.code == 0, found.err
    answer = json.loads(found.out)
    assert len(answer["hits"]) == 5
    assert answer["facets"]["brand"]["values"]
    assert "red shirt" not in smar("search", lance_url, "red shirt").err
    assert smar("search", lance_url, "red", "--collapse", "brand").says("collapse", "by the embedded index alone")
    (tmp_path / "ids.txt").write_text(f"{answer['hits'][0]['item_id']}\nnobody\n")
    assert smar("index", lance_url, "--delete", tmp_path / "ids.txt").says("deleted", "1", "2,999")
    after = json.loads(smar("search", lance_url, "red shirt", "--filter", FILTERS[1], "--json", "-k", "4").out)
    assert ids(after) == ids(answer)[1:]
    assert smar("index", lance_url, "--rollback").says("no version before")
    assert smar("serve", lance_url, "--model", tmp_path).says("--model writes to an index folder")
    assert smar("search", "mysql://host/shop", "red").says("no engine that smar knows")


def test_the_service_answers_from_an_engine(client: httpx.Client, shop: Path) -> None:
    exact = Exact(shop)
    body = {"query": "red shirt", "k": 50, "mode": "text", "explain": True, "sort": "price", "facets": ["category"]}
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    found = SearchResponse.model_validate(answer.json())
    prices = [hit.item["price"] for hit in found.hits if hit.item["price"] is not None]
    assert prices == sorted(prices)
    assert found.facets is not None
    assert found.sorted is not None
    assert (found.sorted.items, found.sorted.all) == (200, False)
    plain = client.get("/v1/search", params={"q": "red shirt", "k": 5, "offset": 5, "filter": FILTERS[0]}).json()
    assert plain["total"]["value"] == sum((one or 99) < 50 for one in exact.table["price"].to_pylist())
    assert [hit["rank"] for hit in plain["hits"]] == [6, 7, 8, 9, 10]
    browsed = client.post("/v1/search", json={"filter": FILTERS[0], "sort": "-price", "k": 3}).json()
    best = sorted((one for one in exact.table["price"].to_pylist() if one and one < 50), reverse=True)[:3]
    assert [hit["item"]["price"] for hit in browsed["hits"]] == best
    both = client.post(
        "/v1/search/batch", json={"searches": [{"query": "red", "k": 1}, {"query": "x", "mode": "hybrid"}]}
    )
    first, second = both.json()["answers"]
    assert len(first["hits"]) == 1
    assert "lance does not answer mode hybrid" in second["error"]["message"]
    item = found.hits[0].item_id
    shown = client.get(f"/v1/items/{httpx.URL(path=item).raw_path.decode()}".replace("item/", "item%2F"))
    assert shown.json()["item_id"] == item
    like = client.get(f"/v1/items/{item.replace('/', '%2F')}/similar", params={"k": 3})
    assert item not in {hit.item_id for hit in HitsResponse.model_validate(like.json()).hits}
    assert client.get("/v1/items/nobody/similar").status_code == 404
    facets = client.get("/v1/facets").json()
    assert sum(value["count"] for value in facets["category"]) == facets["items"] >= 2999
    assert client.get("/readyz").json()["status"] == "ready"
    assert client.get("/v1/about").json()["modes"] == ["adaptive", "route", "text", "multimodal"]
    assert client.get("/").status_code == 200


def test_a_share_of_words_goes_to_the_two_vectors_and_is_told(shop: Path, tmp_path: Path) -> None:
    shutil.copytree(shop, tmp_path / "embeddings")
    query = tmp_path / "embeddings" / "query"
    Voices(mean=(0.0,) * 6, scale=(1.0,) * 6, words=(0.0,) * 7, pictures=(0.0,) * 6 + (1.0,)).write(query)
    files = json.loads((query / "manifest.json").read_text())["files"]
    rewrite_manifest(query, files=files | {"voices.json": sha256(query / "voices.json")})
    url = f"lance://{tmp_path / 'shop'}"
    assert smar("index", tmp_path / "embeddings", "--to", url).code == 0
    found = json.loads(smar("search", url, "red shirt", "--json", "-k", "3").out)
    assert "the shares of the two vectors are scaled up to one" in found["note"]
    share = 1 / (1 + math.exp(-1))  # of the pictures, in what words leave: all other weights are 0
    for hit in found["hits"]:
        assert hit["score"] == pytest.approx(
            share * hit["multimodal_score"] + (1 - share) * hit["text_score"], abs=1e-5
        )
    assert "note" not in json.loads(smar("search", url, "red shirt", "--json", "--mode", "text").out)
    assert "scaled up to one" in smar("search", url, "red shirt").out


def test_a_query_is_encoded_for_engines_that_are_asked_elsewhere(client: httpx.Client, shop: Path) -> None:
    exact, encoder = Exact(shop), None
    answer = client.post("/v1/encode", json={"query": "Red shirt", "mode": "route"}).json()
    scores = exact.wide @ np.array(answer["vector"], np.float32)
    found = client.post("/v1/search", json={"query": "Red shirt", "mode": "route", "k": 3}).json()
    order = np.argsort(-scores)
    gone = [exact.ids[at] for at in order if exact.ids[at] in ids(found)]
    assert gone[:3] == ids(found)
    assert answer["share"] in (0, 1)
    assert answer["routed"] == (answer["image_probability"] > 0.5) == bool(answer["share"])
    assert encoder is None
    with run_service(shop, verb="encode-service") as process, httpx.Client(base_url=address(process)) as other:
        assert other.get("/readyz").json() == {"status": "ready"}
        assert other.post("/v1/encode", json={"query": "Red shirt", "mode": "route"}).json() == answer
        assert other.post("/v1/encode", json={"query": " "}).json()["error"]["code"] == "empty_query"
        assert other.post("/v1/encode", json={"query": "red", "mode": "hybrid"}).status_code == 422
        assert other.post("/v1/search", json={"query": "red"}).status_code == 404


def test_update_encodes_items_for_an_engine(line: Line, tmp_path: Path) -> None:
    url = f"lance://{tmp_path / 'shop'}"
    assert smar("index", line.copy("embeddings", tmp_path), "--to", url).code == 0
    source = new_items(line, tmp_path)
    done = smar("index", url, "--update", source, "--run", line.run)
    assert done.says("items", "5"), done.err
    index = open_engine(url).index
    original = pq.read_table(line.shop / "items.parquet")["item_id"].to_pylist()
    (hits,) = index.search(index.encoder.encode(["red dress"]), 1000)
    scores = {hit.item_id: (hit.text_score, hit.multimodal_score) for hit in hits}
    for at in range(4):  # the same item, encoded in a batch of its own
        np.testing.assert_allclose(scores[f"new-{at}"], scores[original[at]], atol=1e-4)
        assert index.picture(f"new-{at}") == index.picture(original[at]) is not None
    bare = pq.read_table(source).select(["item_id", "title"]).slice(0, 1)
    pq.write_table(bare, tmp_path / "bare.parquet")
    refused = smar("index", url, "--update", tmp_path / "bare.parquet", "--run", line.run)
    assert refused.says("item 'new-0' has a picture, and the tables name none")


def test_a_killed_engine_gives_no_wrong_answer_and_is_back_by_itself(shop: Path) -> None:
    with postgres_server() as server:
        url = server.get_uri()
        assert smar("index", shop, "--to", url).code == 0
        engine = open_engine(url)
        vectors = engine.index.encoder.encode([QUERIES[0]])
        wanted = [hit.item_id for hit in engine.index.search(vectors, 10, Mode.TEXT)[0]]
        engine.close()
        with run_service(url, "--set", "deadline=1") as process, httpx.Client(base_url=address(process)) as client:
            seen: list[tuple[int, object]] = []
            stop = threading.Event()

            def ask() -> None:
                with httpx.Client(base_url=client.base_url, timeout=10) as own:
                    while not stop.is_set():
                        answer = own.post("/v1/search", json={"query": QUERIES[0], "k": 10, "mode": "text"})
                        told = answer.json()
                        seen.append((answer.status_code, ids(told) if answer.is_success else told["error"]["code"]))
                        assert answer.is_success or answer.headers["Retry-After"]

            threads = [threading.Thread(target=ask) for _ in range(4)]
            for thread in threads:
                thread.start()
            assert becomes(lambda: len(seen) > 20)
            os.kill(server.get_pid(), signal.SIGKILL)
            assert becomes(lambda: seen[-1][0] == 503)
            assert client.get("/readyz").status_code == 503
            assert client.get("/healthz").status_code == 200
            time.sleep(0.5)
            with restarted(server):
                assert becomes(lambda: seen[-1][0] == 200)
                assert becomes(lambda: client.get("/readyz").status_code == 200)
                stop.set()
                for thread in threads:
                    thread.join()
    assert {status for status, _ in seen} == {200, 503}
    assert all(told == wanted for status, told in seen if status == 200)
    assert {told for status, told in seen if status == 503} == {"engine_down"}
