"""What a search may ask for beside its query: the requests of docs/api.md, and each thing against the plain search."""

import json
import re
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
from fastapi.testclient import TestClient

from smar.cli import main
from smar.serving.schemas import BatchResponse
from tiny_service import address, nameless, run_service, search

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
REQUESTS = re.findall(r"^```http\n(GET|POST) (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
REQUESTS = [one for one in REQUESTS if "cutoff" not in one[2]]  # these need clicks: tests/search/test_cutoff.py


def ids(answer: dict) -> list[str]:
    return [hit["item_id"] for hit in answer["hits"]]


def test_the_page_has_requests() -> None:
    assert len(REQUESTS) > 5


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_requests_of_the_documentation(client: TestClient, method: str, path: str, body: str) -> None:
    response = client.request(method, path, content=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    for one in answer.get("answers", [answer]):
        if "/suggest" not in path:
            assert "error" in one or one["hits"], "an example that finds nothing shows nothing"


def test_pages(client: TestClient) -> None:
    whole = search(client, k=150)
    assert whole["total"] == {"value": 180, "relation": "exact"}
    for offset in (0, 7, 100):
        page = search(client, k=50, offset=offset)
        assert ids(page) == ids(whole)[offset : offset + 50]
        assert [hit["rank"] for hit in page["hits"]] == list(range(offset + 1, offset + 51))
    assert ids(search(client, k=50, offset=170)) == ids(search(client, k=180))[170:]
    assert search(client, offset=190)["hits"] == []
    assert search(client, filter="category=Shirt")["total"] == {"value": 60, "relation": "exact"}
    similar = client.get("/v1/items/item%2F00001/similar?k=5&offset=5&filter=category=Shirt").json()
    assert ids(similar) == ids(client.get("/v1/items/item%2F00001/similar?k=10&filter=category=Shirt").json())[5:]
    assert similar["total"]["value"] == 60 - (
        client.get("/v1/items/item%2F00001").json()["item"]["category"] == "Shirt"
    )


def test_sorted(client: TestClient) -> None:
    answer = search(client, sort="price", k=20, candidates=40)
    assert answer["sorted"] == {"by": ["price"], "items": 40, "all": False}
    assert answer["total"] == {"value": 40, "relation": "exact"}
    assert set(ids(answer)) < set(ids(search(client, k=40)))
    prices = [hit["item"]["price"] for hit in answer["hits"]]
    assert prices == sorted(prices)
    assert "sorted" not in search(client)
    upwards = search(client, sort=["-in_stock", "-price"], k=20, filter="category=Shirt")
    assert upwards["sorted"]["all"]
    assert all(hit["item"]["in_stock"] for hit in upwards["hits"])


def test_browsed(client: TestClient) -> None:
    answer = search(client, query="", filter="category=Watch", sort="-price", k=200)
    assert answer["total"] == {"value": 60, "relation": "exact"}
    assert answer["query"] == ""
    assert (answer["image_probability"], answer["routed"], answer["unknown"]) == (0, False, 0)
    assert {hit["item"]["category"] for hit in answer["hits"]} == {"Watch"}
    assert len(set(ids(answer))) == 60
    assert {hit["score"] for hit in answer["hits"]} == {0}
    assert search(client, query="  ", sort="price", k=1)["total"]["value"] == 180


def test_fields(client: TestClient) -> None:
    whole = search(client, k=3)
    some = search(client, k=3, fields=["price", "title"])
    assert [list(hit["item"]) for hit in some["hits"]] == [["price", "title"]] * 3
    assert [hit | {"item": {name: hit["item"][name] for name in ("price", "title")}} for hit in whole["hits"]] == some[
        "hits"
    ]
    assert [hit["item"] for hit in search(client, k=3, fields=[])["hits"]] == [{}] * 3


def test_by_address(client: TestClient) -> None:
    wanted = {"query": "red shirt", "k": 5, "offset": 5, "filter": "price<100 and brand=\"Levi's\"", "explain": True,
              "sort": ["-price", "title"], "fields": ["price"]}  # fmt: skip
    asked = {"q": "red shirt", "k": "5", "offset": "5", "filter": wanted["filter"], "explain": "true",
             "sort": "-price,title", "fields": "price"}  # fmt: skip
    response = client.get("/v1/search?" + urlencode(asked))
    assert nameless(response.json()) == search(client, **wanted)
    tag = response.headers["etag"]
    again = client.get("/v1/search?" + urlencode(asked), headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("", "the query is empty"),
        ("?query=red", "unknown parameter 'query'; allowed: q, k, offset"),
        ("?q=red&page=2", "unknown parameter 'page'"),
        ("?q=red&q=blue", "q is given twice"),
        ("?q=red&k=ten", "k: Input should be a valid integer (got 'ten')"),
        ("?q=red&k=0", "k: Input should be greater than or equal to 1"),
        ("?q=red&explain=maybe", "explain: "),
        ("?q=red&mode=magic", "mode: "),
        ("?q=red&sort=colour", "sort: unknown column 'colour'"),
        ("?q=red&fields=colour", "fields: unknown column 'colour'"),
        ("?q=red&offset=999", "offset is 999 and k 24"),
    ],
)
def test_wrong_addresses(client: TestClient, address: str, message: str) -> None:
    response = client.get(f"/v1/search{address}")
    assert response.status_code == 422
    assert message in response.json()["error"]["message"]


def test_a_batch_answers_each_search(client: TestClient) -> None:
    searches = [{"query": "red shirt", "k": 2}, {"query": ""}, {"k": 0}, "red", {"query": "steel kettle", "k": 1}]
    response = client.post("/v1/search/batch", json={"searches": searches})
    assert response.status_code == 200
    BatchResponse.model_validate(response.json())
    first, empty, none, text, last = response.json()["answers"]
    assert nameless(first) == search(client, k=2)
    assert nameless(last) == search(client, query="steel kettle", k=1)
    assert empty["error"]["code"] == "empty_query"
    assert none["error"]["message"].startswith("k: Input should be greater")
    assert text["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("body", [{}, {"searches": []}, {"searches": [{"query": "red"}] * 33}, [], {"search": []}])
def test_wrong_batches(client: TestClient, body: object) -> None:
    response = client.post("/v1/search/batch", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid_request"


def test_each_search_of_a_batch_counts(index_path: Path) -> None:
    """Else a client would get 32 times the searches that it is allowed."""
    with run_service(index_path, "--rate", "0.001", "--set", "burst=3") as process:
        asked = {"searches": [{"query": "red", "k": 1}] * 5}
        answers = httpx.post(address(process) + "/v1/search/batch", json=asked, timeout=60).json()["answers"]
        assert [json.dumps(answer).count("too_many_requests") for answer in answers] == [0, 0, 0, 1, 1]


def test_cards(client: TestClient) -> None:
    answer = search(client, collapse="brand", k=3)
    assert len({hit["item"]["brand"] for hit in answer["hits"]}) == 3
    assert all(list(hit["others"]) == ["count"] for hit in answer["hits"])
    with_ids = search(client, collapse={"column": "brand", "ids": True}, k=3, filter="category=Shirt")
    for hit in with_ids["hits"]:
        assert hit["others"]["count"] == len(hit["others"]["ids"])
        assert hit["item_id"] not in hit["others"]["ids"]
    whole = search(client, filter="category=Shirt", k=200)
    assert with_ids["total"]["value"] == len({hit["item"]["brand"] or hit["item_id"] for hit in whole["hits"]})
    assert "others" not in whole["hits"][0]


def test_diverse(client: TestClient) -> None:
    brands = [hit["item"]["brand"] for hit in search(client, diversify={"column": "brand", "most": 1}, k=6)["hits"]]
    assert len({brand for brand in brands if brand}) == sum(brand is not None for brand in brands)
    diversify = '{"column":"brand","most":1}'
    linked = client.get("/v1/search", params={"q": "red shirt", "k": 6, "diversify": diversify}).json()
    assert [hit["item"]["brand"] for hit in linked["hits"]] == brands


def test_facets(client: TestClient) -> None:
    answer = search(client, facets=["category", "price", "in_stock"], filter="category=Shirt", candidates=60)
    assert list(answer["facets"]) == ["category", "price", "in_stock"]
    assert len(answer["facets"]["category"]["values"]) > 1, "as if nothing had been chosen"
    price = answer["facets"]["price"]
    assert sum(entry["count"] for entry in price["ranges"]) + price["missing"] == 60
    assert {entry["value"] for entry in answer["facets"]["in_stock"]["values"]} == {"true", "false"}
    wanted = {"columns": ["category"], "of": "matches", "top": 2, "within": True}
    within = search(client, facets=wanted, filter="category=Shirt")
    counts = {"missing": 0, "values": [{"value": "Shirt", "count": 60}], "ranges": None, "low": None, "high": None}
    assert within["facets"] == {"category": counts}
    linked = client.get("/v1/search", params={"q": "red shirt", "facets": "category,price"}).json()
    assert nameless(linked) == search(client, facets=["category", "price"])
    assert client.get("/v1/search", params={"filter": "price<9", "facets": json.dumps(wanted)}).status_code == 200


def test_ranked(client: TestClient) -> None:
    rank = "score * (1 + 0.2 * log1p(price)) - 0.3 * not(in_stock)"
    answer = search(client, rank=rank, k=10, explain=True, candidates=50)
    assert answer["ranked"] == {"by": rank, "items": 50, "undefined": 0}
    plain = {hit["item_id"]: hit for hit in search(client, k=50)["hits"]}
    for hit in answer["hits"]:
        factors, item = hit["factors"], plain[hit["item_id"]]
        assert factors["score"] == pytest.approx(item["score"], abs=1e-6)
        assert factors["price"] == (item["item"]["price"] or 0)
        assert factors["in_stock"] == item["item"]["in_stock"]
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert "factors" not in search(client, rank=rank, k=1)["hits"][0]
    refused = client.post("/v1/search", json={"query": "red", "rank": "colour * 2"})
    assert refused.status_code == 422
    assert "rank, character 1: unknown name 'colour'" in refused.json()["error"]["message"]


def test_the_command_line_asks_the_same(index_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", str(index_path), "red shirt", "-k", "3", "--offset", "3", "--sort=-in_stock,price"]
    words += ["--collapse", "brand", "--facets", "category,price", "--rank", "score * 2"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  4  .* and \d+ more$", shown, re.MULTILINE)
    assert re.search(r"^category: \w+ \d+, ", shown, re.MULTILINE)
    assert re.search(r"^price: below [\d.]+ \d+, ", shown, re.MULTILINE)
    assert main([*words, "--json", "--fields", "title"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [list(hit["item"]) for hit in answer["hits"]] == [["title"]] * 3
    assert main(["search", str(index_path), "", "--filter", "category=Watch", "--offset", "900", "-k", "1"]) == 0
    assert "nothing further: there are 60" in capsys.readouterr().out
    assert main(["search", str(index_path), "red", "--sort", "colour"]) == 2
