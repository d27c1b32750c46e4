"""Ranking by an expression against Python's own arithmetic, and what it refuses."""

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_arrange import by, ids, index, items  # noqa: F401

from smar.core.errors import InputError
from smar.search.filter_parser import parse_filter
from smar.search.local.arrange import browse, search
from smar.search.local.expression_parser import MAX_LENGTH, parse_expression
from smar.search.local.item_store import Catalogue
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.segment import Segment
from smar.search.local.shape import Plan, Shape
from smar.search.local.vectors import VectorStore
from smar.search.protocol import Mode
from smar.search.ranked import Ranked

TABLE = pa.table(
    {
        "item_id": ["a", "b", "c", "d"],
        "sold": pa.array([100, None, 0, 7], pa.int64()),
        "in_stock": [True, False, None, True],
        "brand": ["Nike", "Casio", None, "Le Coq"],
        "sizes": [["S", "M"], ["M"], [], None],
        "since": pa.array([20000, 20600, None, 0], pa.int32()).cast(pa.date32()),
        "30-day sales": pa.array([1.5, float("nan"), 2.0, 4.0]),
    }
)
SCORE, TEXT = [0.9, 0.5, 0.25, 0.125], [0.1, 0.2, 0.3, 0.4]
SOLD, DAYS = [100, 0, 0, 7], [20000, 20600, 0, 0]


def segments() -> list[Segment]:
    """The four items in two parts."""
    parts = [(TABLE.slice(0, 3), 0), (TABLE.slice(3), 3)]
    return [
        Segment(VectorStore(None, np.zeros((len(part), 2), np.float32), None), Catalogue(part, None), first)
        for part, first in parts
    ]


def values(text: str) -> list[float]:
    score, words = np.array(SCORE, np.float32), np.array(TEXT, np.float32)
    found = Ranked(np.arange(4), score, words, score, None)
    return parse_expression(text, TABLE.schema).values(segments(), found).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("score * (1 + 0.2 * log1p(sold)) - 0.3 * not(in_stock)",
         [s * (1 + 0.2 * math.log1p(n)) - 0.3 * out for s, n, out in zip(SCORE, SOLD, [0, 1, 1, 0], strict=True)]),
        ("score*2-text_score/4", [s * 2 - t / 4 for s, t in zip(SCORE, TEXT, strict=True)]),
        ("1 - 2 - 3 * -2 + +1", [6] * 4),
        ("-(2 - 5) * 2e-1", [0.6] * 4),
        ("words_score", [0] * 4),
        ("sold", SOLD),
        ("in_stock", [1, 0, 0, 1]),
        ("since / 100", [d / 100 for d in DAYS]),
        ('"30-day sales"', [1.5, 0, 2, 4]),
        ("brand = Nike", [1, 0, 0, 0]),
        ("2 * (brand in (Nike, 'Le Coq')) + exists(brand)", [3, 1, 0, 3]),
        ("brand != Nike", [0, 1, 0, 1]),
        ("sizes all (S, M) or sizes = M and in_stock = false", [1, 1, 0, 0]),
        ("sold < 50", [0, 0, 1, 1]),
        ("sold >= -5", [1, 1, 1, 1]),
        ("sold > since", [0, 0, 0, 1]),
        ("score > 0.3 and not in_stock", [0, 1, 0, 0]),
        ("not(score > 0.3) * 2", [0, 0, 2, 2]),
        ("not score > 0.3", [0, 0, 1, 1]),
        ('since > "2026-01-01"', [0, 1, 0, 0]),
        ("min(sold, 10) + max(1, abs(-2)) + pow(2, 3) + sqrt(4) + log(1) + exp(0)", [23, 13, 13, 20]),
        ("(sold > 1) + (sold > 50)", [2, 0, 0, 1]),
        ("sold and 2", [1, 0, 0, 1]),
    ],
)  # fmt: skip
def test_values(text: str, expected: list[float]) -> None:
    assert values(text) == pytest.approx(expected, rel=1e-6)


def test_what_is_not_defined(index: EmbeddedIndex) -> None:  # noqa: F811
    assert np.isnan(values("0 / sold")).tolist() == [False, True, True, False]
    vectors = index.encoder.encode(["red shirt"])
    plan = Plan.of(Shape(rank="score / in_stock", candidates=50), index.schema)
    (page,) = search(index, vectors, 50, Mode.ADAPTIVE, None, False, 0, plan)
    (plain,) = index.search(vectors, 50)
    stock = [bool(hit.payload["in_stock"]) for hit in plain]
    assert page.ranked.undefined == stock.count(False) > 0
    assert ids(index, page.hits.rows) == [hit.item_id for hit in plain if hit.payload["in_stock"]] + [
        hit.item_id for hit in plain if not hit.payload["in_stock"]
    ]
    assert page.hits.score[stock.count(True) :].tolist() == [0] * stock.count(False)


SIMPLE = st.recursive(
    st.sampled_from(["score", "text_score", "sold", "in_stock", "0.5", "3"]),
    lambda inner: st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda parts: f"({' '.join(parts)})"),
    max_leaves=12,
)


@settings(max_examples=60)
@given(text=SIMPLE)
def test_arithmetic_is_that_of_python(text: str) -> None:
    expected = [
        eval(text, {"score": s, "text_score": t, "sold": n, "in_stock": b})
        for s, t, n, b in zip(np.float32(SCORE).tolist(), np.float32(TEXT).tolist(), SOLD, [1, 0, 0, 1], strict=True)
    ]
    assert values(text) == pytest.approx(expected)
    assert values(text.replace(" ", "")) == values(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rank, character 1: expected a number, a name or a function, found 'the end'"),
        ("score *", "character 8: expected a number"),
        ("score score", "character 7: expected an operator, found 'score'"),
        ("cosine(score)", "unknown function 'cosine'"),
        ("colour * 2", "character 1: unknown name 'colour'. Columns: item_id, sold"),
        ("brand * 2", "brand holds text, which is no number; compare it with = or in"),
        ("sizes", "sizes holds a list, which is no number"),
        ("log1p(sold, 2)", "log1p is of 1, not of 2"),
        ("min(sold)", "min is of 2, not of 1"),
        ("(score", "expected ')', found 'the end'"),
        ("brand < Nike", "brand holds text, which < does not compare"),
        ("since > 2026-01-01", "since holds a date: expected a date such as 2026-09-27, found '2026'"),
        ("score; drop", "character 1: unknown name 'score;'"),
        ("(" * 20 + "score" + ")" * 20, "more than 16 levels"),
        ("-" * 20 + "score", "more than 16 levels"),
        ("+".join(["score"] * 102), "more than 100 operations"),
        ("1+" * MAX_LENGTH + "1", f"at most {MAX_LENGTH:,} are allowed"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_expression(text, TABLE.schema)
    assert message in str(caught.value)
    if "allowed" not in message:
        assert "Example: score * (1 + 0.2 * log1p(sold))" in str(caught.value)


def test_ranked_then_sorted(index: EmbeddedIndex) -> None:  # noqa: F811
    """The expression is the tie-break of the sort; factors are what it was made of."""
    vectors = index.encoder.encode(["red shirt"])
    plan = Plan.of(Shape(rank="price", sort=("-in_stock",), candidates=80), index.schema)
    (page,) = search(index, vectors, 30, Mode.ADAPTIVE, None, True, 10, plan)
    best = [dict(hit.payload) | {"price": hit.payload["price"] or 0} for hit in index.search(vectors, 80)[0]]
    expected = by("in_stock", True, by("price", True, best))[10:40]
    assert ids(index, page.hits.rows) == [item["item_id"] for item in expected]
    assert page.factors == [{"price": item["price"]} for item in expected]
    assert page.hits.score.tolist() == pytest.approx([item["price"] for item in expected])
    plan = Plan.of(Shape(rank="score + 2 * text_score"), index.schema)
    (page,) = search(index, vectors, 5, Mode.ADAPTIVE, None, True, 0, plan)
    for factors, score in zip(page.factors, page.hits.score.tolist(), strict=True):
        assert factors["score"] + 2 * factors["text_score"] == pytest.approx(score)


def test_what_is_browsed_is_ranked(index: EmbeddedIndex, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    filter = parse_filter("exists(price)", index.schema)
    plan = Plan.of(Shape(rank="-price"), index.schema)
    page = browse(index, 20, filter, 5, plan)
    expected = by("price", False, items(index, "exists(price)"))[5:25]
    assert ids(index, page.hits.rows) == [item["item_id"] for item in expected]
    monkeypatch.setattr("smar.search.local.arrange.COUNTED", 10)
    with pytest.raises(InputError, match="items match, of which at most 10 are ranked"):
        browse(index, 20, filter, 0, plan)
