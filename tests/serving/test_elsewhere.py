"""The service behind a proxy's prefix, from pages of other origins, and through clients made of its OpenAPI file."""

import functools
import http.server
import importlib
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from playwright.sync_api import Browser, expect

from smar.core.errors import InputError
from smar.serving.app import create_app
from smar.serving.engine import Engine
from smar.serving.options import ServiceOptions, service_options
from tiny_service import address, run_service

SHOP = "https://shop.example"


@pytest.fixture(scope="module")
def behind(engine: Engine) -> Iterator[TestClient]:
    options = ServiceOptions(root_path="/search", cors=(SHOP, "http://localhost:3000"))
    with TestClient(create_app(engine, options), raise_server_exceptions=False) as client:
        yield client


@pytest.mark.parametrize("prefix", ["", "/search"])  # a proxy may take its prefix away or not
def test_addresses_are_those_behind_the_proxy(behind: TestClient, prefix: str) -> None:
    hits = behind.post(f"{prefix}/v1/search", json={"query": "red shirt", "k": 30}).json()["hits"]
    listed = behind.get(f"{prefix}/v1/items", params={"limit": 1000}).json()["items"]
    one = behind.get(f"{prefix}/v1/items/item%2F00001").json()
    facets = behind.get(f"{prefix}/v1/facets").json()["category"]
    shown = [found["picture"] for found in (*hits, *listed, one, *facets)]
    pictures = [picture for picture in shown if picture is not None]
    assert len(pictures) > 100
    assert None in shown
    for picture in (*pictures[:3], *pictures[-3:]):
        assert picture.startswith("/search/v1/items/item%2F0")
        assert behind.get(picture).headers["content-type"].startswith("image/")
    schema = behind.get(f"{prefix}/openapi.json").json()
    assert schema["servers"] == [{"url": "/search"}]
    for page in ("/", "/docs"):
        found = behind.get(prefix + page)
        assert found.status_code == 200
        addresses = re.findall(r'(?:src|href|action)="([^"]+)"', found.text)
        assert not [one for one in addresses if one.startswith("/")]
        for one in addresses:
            assert behind.get(f"{prefix}/{one}").status_code == 200


def test_the_prefix_alone_is_its_folder(behind: TestClient) -> None:
    answer = behind.get("/search", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (308, "/search/")
    assert behind.get("/searching").status_code == 404
    assert behind.get("/search/search/v1/about").status_code == 404


def test_without_a_prefix_addresses_are_as_before(engine: Engine) -> None:
    with TestClient(create_app(engine)) as client:
        assert client.get("/v1/items/item%2F00001").json()["picture"] == "/v1/items/item%2F00001/picture"
        assert "servers" not in client.get("/openapi.json").json()


def test_pages_of_named_origins_may_call(behind: TestClient) -> None:
    asked = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "x-api-key,content-type"}
    preflight = behind.options("/v1/items/x", headers={"Origin": SHOP} | asked)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == SHOP
    assert "PATCH" in preflight.headers["access-control-allow-methods"]
    answer = behind.post("/v1/search", json={"query": "red"}, headers={"Origin": SHOP})
    assert (answer.headers["access-control-allow-origin"], answer.headers["vary"]) == (SHOP, "Origin")
    assert "X-Request-ID" in answer.headers["access-control-expose-headers"]
    refused = behind.put("/v1/items/x", json={"title": "x"}, headers={"Origin": SHOP})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (403, SHOP)
    for origin in ("https://other.example", "null", SHOP + ".other.example"):
        answer = behind.post("/v1/search", json={"query": "red"}, headers={"Origin": origin})
        assert "access-control-allow-origin" not in answer.headers
        assert behind.options("/v1/items/x", headers={"Origin": origin} | asked).status_code == 400


def test_without_origins_there_is_no_cors(engine: Engine) -> None:
    with TestClient(create_app(engine)) as client:
        answer = client.post("/v1/search", json={"query": "red"}, headers={"Origin": SHOP})
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cors": ("shop.example",)}, "'shop.example' is no origin"),
        ({"cors": (SHOP + "/",)}, "is no origin"),
        ({"root_path": "search"}, "'search' is no prefix"),
        ({"root_path": "/search/"}, "is no prefix"),
        ({"root_path": "/a b"}, "is no prefix"),
    ],
)
def test_wrong_origins_and_prefixes_are_refused(given: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        service_options(**given)


def test_figures_tell_methods_apart(behind: TestClient) -> None:
    behind.get("/v1/items")
    behind.patch("/v1/items/x", json={})
    behind.request("BREW", "/v1/items/x")
    figures = behind.get("/metrics").text
    for method in ("GET", "PATCH", "other"):
        assert re.search(rf'smar_requests_total{{method="{method}",route="[^"]+",status="\d+"}} [1-9]', figures), method
        assert f'smar_request_seconds_count{{method="{method}"' in figures


@pytest.fixture(scope="module")
def prefixed(index_path: Path) -> Iterator[str]:
    with run_service(index_path, "--root-path", "/search", "--cors", "*") as process:
        yield address(process)


def test_the_page_behind_a_prefix(browser: Browser, prefixed: str) -> None:
    page = browser.new_context(base_url=prefixed).new_page()
    failed: list[str] = []
    page.on("response", lambda answer: None if answer.ok else failed.append(answer.url))
    page.goto("/search/?q=red+shirt")
    expect(page.locator(".results .card img").first).to_be_visible()
    assert page.locator(".results .card img").first.evaluate("image => image.decode().then(() => image.naturalWidth)")
    page.locator("#query").fill("kettle")
    expect(page).to_have_url(re.compile(r"/search/\?q=kettle"))
    page.goto("/search/docs", wait_until="commit")
    expect(page.locator("#operations-search-search")).to_be_visible()
    assert failed == []


def test_a_page_of_another_origin_searches(browser: Browser, prefixed: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<title>Shop</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as shop:
        threading.Thread(target=shop.serve_forever, daemon=True).start()
        page = browser.new_context().new_page()
        page.goto(f"http://127.0.0.1:{shop.server_port}/index.html")
        hits = page.evaluate(
            """service => fetch(`${service}/v1/search`, {
                method: "POST", headers: {"Content-Type": "application/json"},
                body: JSON.stringify({query: "red shirt"})
            }).then(async answer => [answer.headers.get("X-Request-ID"), (await answer.json()).hits.length])""",
            prefixed,
        )
        shop.shutdown()
    assert hits[0]
    assert hits[1] == 24


@pytest.fixture(scope="module")
def schema(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("schema") / "openapi.json"
    with TestClient(create_app(engine)) as client:
        path.write_text(client.get("/openapi.json").text)
    return path


def test_names_of_operations_are_short_and_single(schema: Path) -> None:
    paths = json.loads(schema.read_text())["paths"].values()
    names = [operation["operationId"] for path in paths for operation in path.values()]
    assert len(names) == len(set(names))
    assert {"search", "get_item", "list_items", "put_item", "patch_item", "bulk_items"} <= set(names)


def test_a_generated_python_client_works(
    schema: Path, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = shutil.which("openapi-python-client")
    if tool is None:
        pytest.skip("openapi-python-client is not on the PATH (pipx install openapi-python-client)")
    out = tmp_path / "generated_client"
    done = subprocess.run(
        [tool, "generate", "--path", str(schema), "--output-path", str(out), "--meta", "none"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "will not be generated" not in done.stdout
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        generated = importlib.import_module("generated_client")
        functions = {
            name: importlib.import_module(f"generated_client.api.{group}.{name}")
            for group, name in (
                ("search", "search"), ("items", "get_item"), ("items", "list_items"), ("items", "get_picture"),
                ("items", "patch_item"), ("health", "get_about"),
            )
        }  # fmt: skip
        models = importlib.import_module("generated_client.models")
        client = generated.Client(base_url=service)
        found = functions["search"].sync(client=client, body=models.SearchRequest(query="red shirt", k=3))
        assert [hit.rank for hit in found.hits] == [1, 2, 3]
        page = functions["list_items"].sync(client=client, limit=2)
        assert page.next_ == page.items[1].item_id
        item = functions["get_item"].sync("item/00001", client=client)
        assert item.item["title"]
        picture = functions["get_picture"].sync_detailed("item/00001", client=client)
        assert picture.status_code == 200
        missing = functions["get_item"].sync("none", client=client)
        assert missing.error.code == "unknown_item"
        changes = models.ItemChanges()
        changes["price"] = 3.5
        refused = functions["patch_item"].sync("item/00001", client=client, body=changes)
        assert refused.error.code == "writes_are_off"
        assert functions["get_about"].sync(client=client).items == 180
    finally:
        for name in [name for name in sys.modules if name.startswith("generated_client")]:
            del sys.modules[name]


PROGRAM = """
import type { paths, components } from "./api.d.ts";
type Body = paths["/v1/search"]["post"]["requestBody"]["content"]["application/json"];
type Answer = paths["/v1/search"]["post"]["responses"][200]["content"]["application/json"];
export async function search(service: string, body: Body): Promise<Answer> {
  const answer = await fetch(`${service}/v1/search`, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  return (await answer.json()) as Answer;
}
const found = await search(process.argv[2], { query: "red shirt", k: 3 } as Body);
const hits: components["schemas"]["HitOut"][] = found.hits;
console.log(hits.map((hit) => hit.rank).join(","));
"""


def test_generated_types_compile_and_fit_the_answers(schema: Path, service: str, tmp_path: Path) -> None:
    tools = {name: shutil.which(name) for name in ("openapi-typescript", "tsc", "node")}
    if absent := [name for name, path in tools.items() if path is None]:
        pytest.skip(f"not on the PATH: {', '.join(absent)} (npm install -g openapi-typescript typescript)")
    (tmp_path / "search.mts").write_text("declare const process: { argv: string[] };" + PROGRAM)
    for command in (
        [tools["openapi-typescript"], str(schema), "-o", str(tmp_path / "api.d.ts")],
        [
            tools["tsc"],
            "--strict",
            "--module",
            "nodenext",
            "--target",
            "es2022",
            str(tmp_path / "search.mts"),
        ],
    ):
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([tools["node"], str(tmp_path / "search.mjs"), service], capture_output=True, text=True)
    assert done.stdout.strip() == "1,2,3", done.stderr
