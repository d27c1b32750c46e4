"""Matched words are marked in the hits' texts, whatever form of them was typed, and markup in texts stays text."""

import html
import json
import re
from pathlib import Path

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from smar.data.spans import spans_of
from smar.data.words import words
from smar.serving.answers import as_json, result_out
from smar.serving.engine import Engine
from smar.serving.highlight import mark
from smar.serving.question import Question
from smar.serving.rulebook import Rulebook
from tiny_service import nameless, search

TEXT = st.text(
    st.sampled_from("abcdeé ÉßŒœ 019'’-<>&\"手机機壳ペットﾍﾟｯﾄ휴대폰เสื้อйЙё\u00ad\u200dＮike™½İı كيى"), max_size=40
)


@pytest.mark.parametrize(
    ("query", "text", "shown", "language"),
    [
        ("red shirts", "Red SHIRT for red-haired", "<em>Red</em> <em>SHIRT</em> for <em>red</em>-haired", "english"),
        ("shirts", "Shirt", "Shirt", None),
        ("creme BRULEE", "Crème brûlée", "<em>Crème</em> <em>brûlée</em>", None),
        ("grösse", "Große GRÖSSE, Groesse", "<em>Große</em> <em>GRÖSSE</em>, Groesse", None),
        ("手机壳", "iPhone15手机殼 红", "iPhone15<em>手机殼</em> 红", None),
        ("機", "手机", "手<em>机</em>", None),
        ("ペット", "ﾍﾟｯﾄ ＰＥＴ", "<em>ﾍﾟｯﾄ</em> ＰＥＴ", None),
        ("pet", "ﾍﾟｯﾄ ＰＥＴ", "ﾍﾟｯﾄ <em>ＰＥＴ</em>", None),
        ("levis 501", "Levi’s® 501", "<em>Levi’s</em>® <em>501</em>", None),
        ("256 gb", "SSD 256GB", "SSD <em>256</em><em>GB</em>", None),
        ("sofa", "So\u00adfa™ bed", "<em>So\u00adfa</em>™ bed", None),
        ("b", "<b> &", "&lt;<em>b</em>&gt; &amp;", None),
        ("", "Red", "Red", None),
        ("red", "", "", None),
    ],
)  # fmt: skip
def test_marked(query: str, text: str, shown: str, language: str | None) -> None:
    assert mark(text, frozenset(words(query, language)), language) == shown


@given(TEXT, TEXT)
def test_nothing_is_lost_and_what_matches_is_marked(query: str, text: str) -> None:
    wanted = frozenset(words(query))
    shown = mark(text, wanted)
    assert html.unescape(re.sub("</?em>", "", shown)) == text
    assert not re.search("[<>]", re.sub("</?em>", "", shown))
    spans = spans_of(text, wanted)
    assert spans == sorted(spans)
    marked = {word for first, last in spans for word in words(text[first:last])}
    whole = {word for word in wanted & set(words(text)) if len(word) > 1}
    assert whole <= marked, "each word that matches"
    assert all(wanted & set(words(text[first:last])) for first, last in spans), "and nothing else"


def test_in_an_answer(client: TestClient) -> None:
    whole = search(client, k=20)
    answer = search(client, k=20, highlight=["title", "brand"], fields=["price"])
    assert [hit["item_id"] for hit in answer["hits"]] == [hit["item_id"] for hit in whole["hits"]]
    for hit, plain in zip(answer["hits"], whole["hits"], strict=True):
        title, brand = hit["highlight"]["title"], hit["highlight"]["brand"]
        assert title == re.sub(r"\b(red|shirt)\b", r"<em>\1</em>", plain["item"]["title"], flags=re.IGNORECASE)
        assert brand == (plain["item"]["brand"] and html.escape(plain["item"]["brand"]))
    assert any("<em>" in hit["highlight"]["title"] for hit in answer["hits"])
    assert "highlight" not in whole["hits"][0]
    linked = client.get("/v1/search", params={"q": "red shirt", "k": 20, "highlight": "title,brand", "fields": "price"})
    assert nameless(linked.json()) == answer
    browsed = search(client, query="", filter="category=Watch", highlight="title", k=2)
    assert all("<em>" not in hit["highlight"]["title"] for hit in browsed["hits"])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["colour"], "highlight: unknown column 'colour'. Columns: item_id"),
        (["price"], "highlight: price holds number"),
    ],
)
def test_columns_without_texts(client: TestClient, columns: list[str], message: str) -> None:
    response = client.post("/v1/search", json={"query": "red", "highlight": columns})
    assert response.status_code == 422
    assert message in response.json()["error"]["message"]


def test_what_the_query_was_read_as(engine: Engine, tmp_path: Path) -> None:
    """Corrections of misspelt words, and synonyms of the shop's rules."""
    (path := tmp_path / "rules.yaml").write_text("rules: [{synonyms: {one_way: {hemd: [shirt]}}}]")

    def titles(query: str, rules: Rulebook | None = None) -> list[str]:
        question = Question.of(query, 10, "hybrid", None, highlight=("title",))
        result = next(Engine(engine.live, rules).answer([question]))
        assert not isinstance(result, Exception)
        answer = json.loads(as_json(result_out(result, None, question.highlight)))
        return [hit["highlight"]["title"] for hit in answer["hits"]]

    assert "<em>kettle</em>" in titles("kettel")[0]
    assert "<em>shirt</em>" in titles("hemd", Rulebook.open(path, engine.index))[0]
    assert not any("<em>" in title for title in titles("hemd"))


def test_lists_are_marked_entry_by_entry() -> None:
    from smar.serving.highlight import _as_html

    tags = pa.array([["Red", "blue & <red>", None]]).to_pylist()[0]
    assert _as_html(tags, {"red"}, None) == ["<em>Red</em>", "blue &amp; &lt;<em>red</em>&gt;", ""]
