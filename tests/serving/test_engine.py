"""The engine: limits, normal form, gate, batches."""

import math
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smar.search.items import Items
from smar.search.local.live import UpdatableIndex
from smar.search.local.ready import plain
from smar.search.protocol import Mode
from smar.serving.engine import Engine, SearchResult
from smar.serving.question import Question, RequestError
from smar.serving.requests import MAX_QUERY
from tiny_index import vectors_of


def test_answers_with_gate_and_timings(engine: Engine) -> None:
    result = engine.search("  RED\u00a0  Shirt\n", k=5)
    assert result.query == "red shirt"
    assert len(result.hits) == 5
    assert result.routed
    assert result.image_probability > engine.encoder.manifest.threshold
    assert set(result.timings) == {"tokenise", "encode", "gate", "filter", "search"}
    assert not engine.search("steel kettle").routed


@pytest.mark.parametrize("query", ["", "   ", "\t\n\u2003"])
def test_a_query_of_nothing(engine: Engine, query: str) -> None:
    with pytest.raises(RequestError, match="the query is empty") as caught:
        engine.search(query)
    assert caught.value.code == "empty_query"


def test_a_query_of_ten_thousand_characters(engine: Engine) -> None:
    with pytest.raises(RequestError, match=r"has 10,000 characters; at most 1,000 are allowed") as caught:
        engine.search("x" * 10_000)
    assert caught.value.code == "query_too_long"
    assert engine.search("red " * (MAX_QUERY // 4)).hits


@pytest.mark.parametrize(
    "query", ["🙂👗", "👩‍👩‍👧", "\x00", "\ud800", "é" * 300, "שמלה אדומה", "红色连衣裙", "%00 ' \" \\"]
)
def test_any_other_text_is_answered(engine: Engine, query: str) -> None:
    hits = engine.search(query, k=3).hits
    assert len(hits) == 3
    assert all(math.isfinite(hit.score) for hit in hits)


@pytest.mark.parametrize(
    ("query", "share"), [("red", 0), ("红色连衣裙", 1), ("red 红色", 2 / 5), ("red 红色连衣裙", 5 / 8), ("🙂", 1)]
)
def test_what_is_unknown_is_told(engine: Engine, query: str, share: float) -> None:
    result = engine.search(query)
    assert result.unknown == pytest.approx(share)
    assert result.mostly_unknown == (share > 0.5)


def test_a_word_that_an_item_holds_is_not_unknown(index_path: Path, tmp_path: Path) -> None:
    """Though the model's vocabulary lacks it; the item came with an update."""
    live = UpdatableIndex.open(Path(shutil.copytree(index_path, tmp_path / "index")))
    vectors = [half[None] for half in vectors_of(live.snapshot, "item/00001")]
    engine = Engine(live)
    assert engine.search("kaffeemühle").unknown == 1
    payload = pa.table({"item_id": ["new"], "title": ["Kaffeemühle"]})
    live.upsert(Items(live.snapshot.fingerprint, payload, *vectors, [None]))
    assert [engine.search(query).unknown for query in ("kaffeemühle", "kaffeemühle 鞋")] == pytest.approx([0, 1 / 12])


@pytest.mark.parametrize("k", [0, 201, -5])
def test_k_out_of_range(engine: Engine, k: int) -> None:
    with pytest.raises(RequestError, match=f"k is {k}; allowed: 1 to 200"):
        engine.search("red", k=k)


def test_filter(engine: Engine) -> None:
    hits = engine.search("red shirt", k=50, filter="category = Watch and price < 60").hits
    assert hits
    assert all(hit.payload["category"] == "Watch" and hit.payload["price"] < 60 for hit in hits)
    assert engine.search("red", filter="  ").hits == engine.search("red").hits
    with pytest.raises(RequestError, match="unknown column 'colour'") as caught:
        engine.search("red", filter="colour=red")
    assert caught.value.code == "invalid_filter"


@pytest.mark.parametrize("mode", list(Mode))
def test_many_equal_one_by_one(engine: Engine, mode: Mode) -> None:
    texts = ["red shirt", "watch", "steel kettle"] * 100
    together = list(engine.search_many(texts, k=7, mode=mode, filter="in_stock=true"))
    assert len(together) == len(texts)
    for text, hits in zip(texts[:3], together[:3], strict=True):
        alone = engine.search(text, k=7, mode=mode, filter="in_stock=true").hits
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone], abs=1e-5)


def test_questions_that_came_together(engine: Engine) -> None:
    """Alike or not, right or wrong: each gets the answer that it would get alone, in order."""
    asked = [
        Question.of(text, k, mode, filter)
        for text in ("red shirt", "watch", "steel kettle")
        for k, mode, filter in ((5, Mode.ADAPTIVE, None), (5, Mode.TEXT, None), (7, Mode.HYBRID, "price<50"))
    ]
    asked += [Question.of(f"red shirt {at}", 3, Mode.ADAPTIVE, None) for at in range(20)]
    asked.insert(4, Question.of("red", 3, Mode.ADAPTIVE, "colour=red"))
    answers = list(engine.answer(asked))
    assert len(answers) == len(asked)
    for question, answer in zip(asked, answers, strict=True):
        if question.filter == "colour=red":
            assert isinstance(answer, RequestError)
            continue
        alone = next(engine.answer([question]))
        assert isinstance(answer, SearchResult)
        assert isinstance(alone, SearchResult)
        assert (answer.query, answer.mode, answer.routed) == (question.query, question.mode, alone.routed)
        assert answer.found.rows.tolist() == alone.found.rows.tolist()
        np.testing.assert_allclose(answer.found.score, alone.found.score, atol=1e-6)
        assert set(answer.timings) == {"tokenise", "encode", "gate", "filter", "search"}


def test_many_names_the_line(engine: Engine) -> None:
    with pytest.raises(RequestError, match="line 2: the query is empty"):
        list(engine.search_many(["red", " ", "blue"]))


def test_check_runs_a_query(engine: Engine, index_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.check()
    broken = Engine.open(index_path)
    none = broken.search("red").found.pick(np.empty(0, np.int64))
    monkeypatch.setattr(broken.index, "rank", lambda *_: [none])
    with pytest.raises(RuntimeError, match="a probe query found 0 items"):
        broken.check()


def test_plain_values() -> None:
    import datetime as dt
    from decimal import Decimal

    value = {
        "a": float("nan"),
        "b": [1.5, None, {"c": dt.date(2026, 1, 2)}],
        "d": b"123",
        "e": Decimal("1.50"),
        "f": True,
    }
    assert plain(value) == {
        "a": None,
        "b": [1.5, None, {"c": "2026-01-02"}],
        "d": "3 bytes",
        "e": "1.50",
        "f": True,
    }
