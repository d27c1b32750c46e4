"""Several indexes in one service: routes by name, pictures, limits, readiness, the page, writes."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, expect

from smar.cli import main
from smar.core.errors import InputError
from smar.search.local.build import build_index
from smar.serving.app import create_service
from smar.serving.engine import Engine
from smar.serving.options import ServiceOptions, named_paths
from smar.serving.several import Opening
from smar.serving.supervise import serve
from tiny_index import write_embeddings
from tiny_line import Line
from tiny_service import PATIENCE, address, becomes, run_service

RED = {"query": "red shirt", "k": 5}
KEY = "0123456789abcdef0123"


@pytest.fixture(scope="module")
def other_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("other")
    build_index(write_embeddings(root / "embeddings", items=90), root / "index")
    return root / "index"


def several(engines: Mapping[str, tuple[Path, Engine | str]], **named: object) -> TestClient:
    options = ServiceOptions(**named)
    openings = {name: Opening(path, engine, options) for name, (path, engine) in engines.items()}
    return TestClient(create_service(openings, options), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def both(index_path: Path, engine: Engine, other_path: Path) -> dict[str, tuple[Path, Engine | str]]:
    return {"shop": (index_path, engine), "test": (other_path, Engine.open(other_path))}


@pytest.fixture(scope="module")
def client(both: dict[str, tuple[Path, Engine | str]]) -> Iterator[TestClient]:
    with several(both) as client:
        yield client


@pytest.mark.parametrize(("place", "items"), [("/v1", 180), ("/v1/indexes/shop", 180), ("/v1/indexes/test", 90)])
def test_every_route_is_there_for_each_index(client: TestClient, place: str, items: int) -> None:
    assert client.get(f"{place}/about").json()["items"] == items
    assert client.get(f"{place}/facets").json()["items"] == items
    assert client.get(f"{place}/items?limit=1").json()["total"] == items
    hits = client.post(f"{place}/search", json=RED).json()["hits"]
    assert client.get(f"{place}/search?q=red+shirt&k=5").json()["hits"] == hits
    assert client.post(f"{place}/search/batch", json={"searches": [RED]}).json()["answers"][0]["hits"] == hits
    name = "test" if items == 90 else "shop"
    hit = next(hit for hit in hits if hit["picture"])
    assert hit["picture"].startswith(f"/v1/indexes/{name}/items/item%2F")
    assert client.get(hit["picture"]).headers["content-type"].startswith("image/")
    item = hit["picture"].removesuffix("/picture")
    assert client.get(item).json()["picture"] == hit["picture"]
    similar = client.get(f"{item}/similar?k=3").json()
    assert similar["total"]["value"] == items - 1
    assert client.get(f"{place}/facets").json()["category"][0]["picture"].startswith(f"/v1/indexes/{name}/items/")


def test_the_indexes_are_listed(client: TestClient) -> None:
    told = client.get("/v1/indexes").json()
    assert told["compared"] == []
    seen = [(one["name"], one["address"], one["items"], one["problem"]) for one in told["indexes"]]
    assert seen == [("shop", "/v1/indexes/shop", 180, None), ("test", "/v1/indexes/test", 90, None)]
    assert client.get("/v1/indexes/test").json()["items"] == 90


@pytest.mark.parametrize("path", ["/v1/indexes/none/about", "/indexes/none/", "/v1/indexes/a%2Fb/items/x"])
def test_an_unknown_index_is_named_with_those_that_there_are(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert error["code"] == "unknown_index"
    assert "indexes: shop, test." in error["message"]


def test_a_single_index_has_a_name_and_the_addresses_of_before(engine: Engine, index_path: Path) -> None:
    with several({"default": (index_path, engine)}) as client:
        found = client.post("/v1/indexes/default/search", json=RED).json()["hits"]
        assert found == client.post("/v1/search", json=RED).json()["hits"]
        assert all(hit["picture"].startswith("/v1/items/") for hit in found if hit["picture"])
        assert "servers" not in client.get("/openapi.json").json()


def test_documentation_and_page_are_of_the_index(client: TestClient) -> None:
    assert [one["url"] for one in client.get("/openapi.json").json()["servers"]] == [
        "/",
        "/indexes/shop",
        "/indexes/test",
    ]
    assert client.get("/indexes/test/openapi.json").json()["servers"][0]["url"] == "/indexes/test"
    moved = client.get("/indexes/test", follow_redirects=False)
    assert (moved.status_code, moved.headers["location"]) == (308, "/indexes/test/")
    assert client.get("/indexes/test/v1/about").json()["items"] == 90


def test_a_client_is_counted_over_all_indexes(both: dict[str, tuple[Path, Engine | str]], tmp_path: Path) -> None:
    client = several(both, rate=0.001, burst=3, shared=tmp_path)
    paths = ["/v1/search", "/v1/indexes/test/search", "/v1/indexes/shop/search", "/v1/indexes/test/search"]
    assert [client.post(path, json=RED).status_code for path in paths] == [200, 200, 200, 429]
    assert client.get("/v1/indexes/none/about").status_code == 429


def test_limits_and_keys_hold_under_a_name(both: dict[str, tuple[Path, Engine | str]]) -> None:
    client = several(both, body_bytes=1024, keys=(KEY,))
    long = {"query": "red", "filter": "a" * 2000}
    assert client.post("/v1/indexes/test/search", json=long).status_code == 413
    assert client.delete("/v1/indexes/test/items/x").status_code == 401
    no_writer = client.delete("/v1/indexes/test/items/x", headers={"X-API-Key": KEY})
    assert no_writer.json()["error"]["code"] == "no_model_worker"


def test_one_that_cannot_be_read_leaves_the_others_alone_and_comes_back(
    both: dict[str, tuple[Path, Engine | str]], other_path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    with several({"shop": both["shop"], "test": (folder, "it is not there")}) as client:
        assert client.post("/v1/search", json=RED).status_code == 200
        closed = client.post("/v1/indexes/test/search", json=RED)
        assert (closed.status_code, closed.json()["error"]["code"]) == (503, "index_unreadable")
        assert client.get("/v1/indexes/shop/readyz").status_code == 200
        unready = client.get("/readyz")
        assert unready.status_code == 503
        assert "index test: " in unready.json()["error"]["message"]
        assert "current is missing" in client.get("/v1/indexes").json()["indexes"][1]["problem"]
        shutil.copytree(other_path, folder)
        assert becomes(lambda: client.get("/readyz").status_code == 200)
        assert client.get("/v1/indexes/test/about").json()["items"] == 90


def test_figures_tell_indexes_apart(client: TestClient) -> None:
    client.post("/v1/indexes/test/search", json=RED)
    text = client.get("/metrics").text
    assert 'smar_index_items{index="shop"} 180.0' in text
    assert 'smar_index_items{index="test"} 90.0' in text
    assert 'smar_searches_total{index="test"}' in text
    assert 'route="/v1/search"' in text
    assert "indexes/" not in text


@pytest.mark.parametrize("name", ["a b", "", "../x", "-a", "a" * 33, "ä"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(InputError, match="is no name; up to 32 letters"):
        named_paths([(name, Path("index"))])


def test_what_is_not_served_is_refused(index_path: Path) -> None:
    with pytest.raises(InputError, match="would both be 'default'; give each a name"):
        named_paths([(None, Path("a")), (None, Path("b"))])
    with pytest.raises(InputError, match="there is no index 'b'; served are a"):
        serve({"a": index_path}, runs={"b": index_path})
    options = ServiceOptions(split=(("a", 1), ("c", 1)))
    with pytest.raises(InputError, match="there is no index 'c'; served are a, b"):
        serve({"a": index_path, "b": index_path}, options=options)
    with pytest.raises(InputError, match="cannot be compared"):
        serve({"a": index_path, "b": index_path}, options=ServiceOptions(interleave=("a", "a")))


def test_rules_are_those_of_every_index(index_path: Path, other_path: Path, tmp_path: Path) -> None:
    (path := tmp_path / "rules.yaml").write_text("rules: [{pin: [{id: item/00007, place: 1}]}]")
    folders = {"shop": index_path, "test": other_path}
    with several({name: (folder, Engine.open(folder, rules=path)) for name, folder in folders.items()}) as client:
        for place in ("/v1", "/v1/indexes/shop", "/v1/indexes/test"):
            assert client.post(f"{place}/search", json=RED).json()["hits"][0]["item_id"] == "item/00007"
            assert client.get(f"{place}/suggest?q=r").json()["query"] == "r"
        path.write_text("rules: [{pin: 7}]")
        assert becomes(lambda: "index test: " in client.get("/readyz").json().get("rules", ""))
        assert "rule 1" in client.get("/v1/indexes/shop/readyz").json()["rules"]
        wrong = 'smar_rules_unreadable{index="test"} 1.0'
        assert becomes(lambda: wrong in client.get("/metrics").text)


def test_rules_that_do_not_fit_one_index_name_it(index_path: Path, other_path: Path, tmp_path: Path) -> None:
    (path := tmp_path / "rules.yaml").write_text("rules: [{boost: [{filter: none_such = 1, amount: 1}]}]")
    with run_service((f"shop={index_path}", f"test={other_path}"), "--rules", str(path)) as process:
        assert process.wait(PATIENCE) == 2
        assert process.stderr is not None
        assert "index shop: " in process.stderr.read()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["test=lance:///x"], "served alone"),
        (["--rules", __file__], "has none"),
        (["--events", "events"], "--events are taken"),
        (["--model", "run"], "smar index URL"),
    ],
)
def test_what_an_engine_cannot_be_served_with(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "shop=lance:///srv/shop", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


@pytest.fixture(scope="module")
def service(index_path: Path, other_path: Path) -> Iterator[str]:
    indexes = (f"shop={index_path}", f"test={other_path}")
    with run_service(indexes, "--workers", "2", "--split", "shop:50,test:50") as process:
        yield address(process)


def test_a_session_meets_one_index_whichever_worker_answers(service: str) -> None:
    seen = {session: set[str]() for session in map(str, range(12))}
    for session, variants in seen.items():
        for query in ("red shirt", "steel kettle", "blue watch"):
            asked = {"query": query, "session": session}
            variants.add(httpx.post(f"{service}/v1/search", json=asked, timeout=PATIENCE).json()["variant"])
    assert all(len(variants) == 1 for variants in seen.values())
    assert set.union(*seen.values()) == {"shop", "test"}


def test_the_page_of_a_named_index(browser: Browser, service: str) -> None:
    page = browser.new_page()
    wrong: list[str] = []
    page.on("response", lambda answer: wrong.append(answer.url) if answer.status >= 400 else None)
    with page.expect_response(lambda answer: answer.url.endswith("/indexes/test/v1/search")) as answered:
        page.goto(f"{service}/indexes/test/?q=red shirt")
    assert answered.value.json()["total"]["value"] == 90
    picture = page.locator("#view img").first
    expect(picture).to_be_visible(timeout=PATIENCE * 1000)
    page.wait_for_function("document.querySelector('#view img').naturalWidth > 0")
    assert "/v1/indexes/test/items/" in (picture.get_attribute("src") or "")
    page.close()
    assert wrong == []


def test_the_page_keeps_its_session(browser: Browser, service: str) -> None:
    """Where indexes are compared, a tab's searches are one session."""
    page, sessions = browser.new_page(), []
    for query in ("red shirt", "blue watch"):
        with page.expect_request(lambda asked: asked.url.endswith("/v1/search")) as asked:
            page.goto(f"{service}/?q={query}")
        sessions.append(json.loads(asked.value.post_data or "{}")["session"])
    page.close()
    assert len(set(sessions)) == 1
    assert len(sessions[0]) > 8


@pytest.mark.slow
def test_writes_go_to_the_named_index(line: Line, index_path: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    indexes = (f"plain={index_path}", f"mine={line.copy('index', tmp_path)}")
    with run_service(indexes, "--model", f"mine={line.root / 'run'}", "--keys", str(keys)) as process:
        url, key = address(process), {"X-API-Key": KEY}
        with httpx.Client(base_url=url, headers=key, timeout=PATIENCE) as client:
            assert becomes(lambda: client.get("/readyz").json() == {"status": "ready"}, 180)
            item = {"title": "A red dress"}
            assert client.put("/v1/indexes/mine/items/new", json=item).json()["created"]
            shown = client.get("/v1/indexes/mine/items/new").json()
            assert shown["item"]["title"] == "A red dress"
            assert client.put("/v1/items/new", json=item).json()["error"]["code"] == "no_model_worker"
            assert client.get("/v1/items/new").status_code == 404
            pictured = next(
                one for one in client.get("/v1/indexes/mine/items").json()["items"] if one["picture"] is not None
            )
            again = client.put(pictured["picture"].removesuffix("/picture"), json=pictured)
            assert again.status_code == 200, again.text
            assert client.get(pictured["picture"]).status_code == 200
