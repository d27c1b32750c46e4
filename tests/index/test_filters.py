"""The filter language against a row-by-row twin, and what it refuses."""

import contextlib
import datetime as dt
import operator
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smar.errors import InputError
from smar.index.filter_parser import MAX_DEPTH, MAX_LENGTH, MAX_VALUES, parse_filter

SCHEMA = pa.schema(
    {
        "price": pa.float64(),
        "stock": pa.int64(),
        "weight": pa.float32(),
        "brand": pa.string(),
        "my column": pa.dictionary(pa.int32(), pa.string()),
        "sold": pa.bool_(),
        "since": pa.date32(),
        "tags": pa.list_(pa.string()),
    }
)
TABLE = pa.table(
    {
        "price": [9.5, None, float("nan"), 60.0],
        "stock": [2**60, 2**60 + 1, None, -3],
        "weight": pa.array([0.1, 2.5, None, 0.0], pa.float32()),
        "brand": ["Nike", "Le Coq", None, 'quote " and \\ slash'],
        "my column": pa.array(["x", None, "y", "x"]).dictionary_encode(),
        "sold": [True, False, None, True],
        "since": [dt.date(2026, 1, 1), None, dt.date(2026, 5, 1), dt.date(2027, 1, 1)],
        "tags": [["a"], None, [], ["b"]],
    },
    SCHEMA,
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("price<50", [0]),
        ("price != 60", [0]),
        ("not price<50", [1, 2, 3]),
        ("exists(price)", [0, 3]),
        ("not exists ( tags )", [1]),
        ("stock = 1152921504606846977", [1]),
        ("stock < 99999999999999999999999", [0, 1, 3]),
        ("stock > -3.5", [0, 1, 3]),
        ("stock >= 1e3", [0, 1]),
        ("weight = 0.1", [0]),
        ("weight < 1e300", [0, 1, 3]),
        ("brand=Nike", [0]),
        ('brand in (Nike, "Le Coq")', [0, 1]),
        ("brand not in ('Nike')", [1, 3]),
        (r'brand = "quote \" and \\ slash"', [3]),
        ('"my column" = x and sold = true', [0, 3]),
        ("sold=TRUE or sold == false", [0, 1, 3]),
        ("since >= 2026-02-01", [2, 3]),
        ("since < 2026-05-01T00:00:01", [0, 2]),
        ("since = 2026-05-01", [2]),
        ("price<50 or brand='Le Coq' and sold=false", [0, 1]),
        ("(price<50 or brand='Le Coq') and sold=false", [1]),
        ("not (price<50 or price>50)", [1, 2]),
        ("not not sold=true", [0, 3]),
    ],
)
def test_meaning(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(parse_filter(text, SCHEMA).mask(TABLE)).tolist() == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "character 1: expected a column, found 'the end'"),
        ("colour=red", "character 1: unknown column 'colour'. Columns: price, stock"),
        ("price << 3", "character 8: expected a value for price, found '<'"),
        ("price=cheap", "character 7: price holds number: expected a number, found 'cheap'"),
        ("price=inf", "expected a finite number"),
        ("brand<Nike", "character 6: brand holds text, which < does not compare; use = or in"),
        ("sold=maybe", "expected true or false"),
        ("since>yesterday", "expected a date such as"),
        ("tags=a", "only exists(tags) is possible"),
        ("price in (1, 2", "character 15: expected ')', found 'the end'"),
        ("price=1 2", "character 9: expected 'and' or 'or'"),
        ("brand='Nike", 'character 7: "\'" is not expected here (an open quote?)'),
        ("price=1 and", "character 12: expected a column"),
        ("(price=1", "expected ')'"),
        ("price not 3", "character 11: expected = != < <= > >= or in after price"),
        ("brand=" + "x" * MAX_LENGTH, f"at most {MAX_LENGTH:,} are allowed"),
        ("(" * (MAX_DEPTH + 2) + "price=1" + ")" * (MAX_DEPTH + 2), f"more than {MAX_DEPTH} levels"),
        ("not " * (MAX_DEPTH + 2) + "price=1", f"more than {MAX_DEPTH} levels"),
        (f"price in ({','.join('1' * (MAX_VALUES + 1))})", f"more than {MAX_VALUES} values"),
    ],
)
def test_refusals_name_position_columns_and_example(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_filter(text, SCHEMA)
    assert message in str(caught.value)
    if "allowed" not in message:
        assert "Columns: price, stock" in str(caught.value)
        assert "Example: price<50" in str(caught.value)


def test_equal_filters_hash_equally() -> None:
    first, second = (parse_filter(text, SCHEMA) for text in ("price<50 and sold=true", "  price < 50.0 AND sold=TRUE"))
    assert first == second
    assert hash(first) == hash(second)


def test_no_rows_and_many_chunks() -> None:
    chosen = parse_filter("brand=Nike and price<50 or since>2026-01-01 and exists(tags)", SCHEMA)
    assert chosen.mask(TABLE.slice(0, 0)).shape == (0,)
    chunked = pa.concat_tables([TABLE.slice(at, 1) for at in range(4)])
    assert np.array_equal(chosen.mask(chunked), chosen.mask(TABLE))


def test_decimal_and_unsigned_columns() -> None:
    table = pa.table({"cost": pa.array([Decimal("1.50"), None]), "big": pa.array([2**64 - 1, 0], pa.uint64())})
    assert parse_filter("cost=1.5", table.schema).mask(table).tolist() == [True, False]
    assert parse_filter("big>18446744073709551614", table.schema).mask(table).tolist() == [True, False]


def test_many_numbers() -> None:
    """Beyond some values membership is tested at once; what the column cannot hold matches nothing."""
    many = ", ".join(map(str, range(100, 120)))
    assert matches(f"stock in ({many}, 1152921504606846977, 99999999999999999999999, -3.5, -3)") == [1, 3]
    assert matches(f"weight in ({many}, 0.1, 1e300)") == [0]
    assert matches(f"stock not in ({many}, -3)") == [0, 1]


def matches(text: str) -> list[int]:
    return np.flatnonzero(parse_filter(text, SCHEMA).mask(TABLE)).tolist()


# A twin that walks the rows one by one.

ORDER = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
COLUMNS = {"price": pa.float64(), "stock": pa.int64(), "brand": pa.string(), "sold": pa.bool_()}
VALUES = {
    "price": st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6)),
    "stock": st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1)),
    "brand": st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    "sold": st.booleans(),
}


def twin(node: tuple, row: dict) -> bool:
    """Truth of one row, from the expression's own tree."""
    match node:
        case ("exists", column):
            return row[column] is not None and row[column] == row[column]
        case ("not", term):
            return not twin(term, row)
        case ("and" | "or" as word, left, right):
            return (all if word == "and" else any)([twin(left, row), twin(right, row)])
        case (op, column, values):
            value = row[column]
            if value is None or value != value:
                return False
            if op in ("in", "not in"):
                return (value in values) == (op == "in")
            return ORDER[op](value, values[0])
    raise AssertionError(node)


def written(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value).lower() if isinstance(value, bool) else repr(value)


def spell(node: tuple) -> str:
    match node:
        case ("exists", column):
            return f"exists({column})"
        case ("not", term):
            return f"not ({spell(term)})"
        case ("and" | "or" as word, left, right):
            return f"({spell(left)}) {word} ({spell(right)})"
        case ("in" | "not in" as op, column, values):
            return f"{column} {op} ({', '.join(map(written, values))})"
        case (op, column, values):
            return f"{column}{op}{written(values[0])}"
    raise AssertionError(node)


@st.composite
def comparisons(draw: st.DrawFn) -> tuple:
    column = draw(st.sampled_from(list(COLUMNS)))
    ordered = column in ("price", "stock")
    op = draw(st.sampled_from(["=", "!=", "in", "not in", *(["<", "<=", ">", ">="] if ordered else [])]))
    literals = st.one_of(VALUES["stock"], VALUES["price"]) if column == "stock" else VALUES[column]
    return op, column, draw(st.lists(literals, min_size=1, max_size=3))


NODES = st.recursive(
    st.one_of(comparisons(), st.tuples(st.just("exists"), st.sampled_from(list(COLUMNS)))),
    lambda inner: st.one_of(st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner)),
    max_leaves=6,
)
CELLS = VALUES | {"price": VALUES["price"] | st.just(np.nan)}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | cells for name, cells in CELLS.items()}), min_size=1, max_size=12
)


@settings(max_examples=300, deadline=None)
@given(node=NODES, rows=ROWS)
def test_agrees_with_the_twin(node: tuple, rows: list[dict]) -> None:
    table = pa.Table.from_pylist(rows, pa.schema(COLUMNS))
    mask = parse_filter(spell(node), table.schema).mask(table)
    assert mask.tolist() == [twin(node, row) for row in rows]


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from(list("pricebrandsold<>=!()\"', andortin\\0.5\x00é")), max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        assert parse_filter(text, SCHEMA).mask(TABLE).shape == (4,)
