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

from smar.core.errors import InputError
from smar.search import column_values
from smar.search.filter_parser import MAX_DEPTH, MAX_LENGTH, MAX_VALUES, parse_filter

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
        "sizes": pa.list_(pa.int16()),
        "parts": pa.list_(pa.list_(pa.string())),
        "void": pa.null(),
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
        "tags": [["a", "c", "a"], None, [], ["b", "c", None]],
        "sizes": [[36, 38], [], None, [38, 40]],
        "parts": [[["a"]], None, None, []],
        "void": [None, None, None, None],
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
        ("brand=Nike or price=60 or brand='Le Coq' or price=9.5", [0, 1, 3]),
        ("brand!=Nike and brand != 'Le Coq'", [3]),
        ("brand!=Nike or brand != 'Le Coq'", [0, 1, 3]),
        ("brand=Nike and brand='Le Coq'", []),
        ("stock <= -2.5 or stock >= 1152921504606846976.5", [1, 3]),
        ("stock = 1152921504606846976.0", [0]),
        ("stock in (1152921504606846976.5, -3.0)", [3]),
        ("stock >= 1e-99999999999 and stock < 1e308", [0, 1]),
        ("void = x or void < 5 or void != x or void in (1, 2) or exists(void)", []),
        ("not void = x", [0, 1, 2, 3]),
        ("tags=a", [0]),
        ("tags != a", [2, 3]),
        ("not tags=a", [1, 2, 3]),
        ("tags in (a, b, x)", [0, 3]),
        ("tags not in (a, x)", [2, 3]),
        ("tags all (a, c)", [0]),
        ("tags all (c, b) and sizes all (38)", [3]),
        ("tags all (a, b)", []),
        ("sizes = 38", [0, 3]),
        ("sizes in (36, 40.0) and exists(parts)", [0, 3]),
        ("sizes != 36", [1, 3]),
        ("sizes = 38.5", []),
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
        ("price=1e400", "expected a finite number"),
        ("brand='\ud800'", r"brand holds text: expected text that UTF-8 can hold, found '\ud800'"),
        ("brand<Nike", "character 6: brand holds text, which < does not compare; use = or in"),
        ("sold=maybe", "expected true or false"),
        ("since>yesterday", "expected a date such as"),
        ("parts=a", "only exists(parts) is possible"),
        ("tags<a", "character 5: expected = != [not] in or all after tags, found '<'"),
        ("tags not all (a)", "character 10: expected = != [not] in or all"),
        ("sizes=M", "sizes holds number: expected a number, found 'M'"),
        (f"tags all ({','.join('x' * 17)})", "all with more than 16 values"),
        ("brand all (a)", "character 7: expected = != < <= > >= or in after brand"),
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
    for texts in (
        ("price<50 and sold=true", "  price < 50.0 AND sold=TRUE"),
        ("stock<5e1", "stock<50"),
        ("brand=a or brand=b or brand=a", "brand in (a, b)"),
        ("brand!=a and brand not in (b, c)", "brand not in (a, b, c)"),
        ("exists(price) or exists(price)", "exists(price)"),
    ):
        first, second = (parse_filter(text, SCHEMA) for text in texts)
        assert first == second
        assert hash(first) == hash(second)


def test_masks_leave_what_is_kept_as_it_was() -> None:
    kept = column_values.Columns(TABLE)
    for text, rows in (
        ("exists(price) and price<50", [0]),
        ("exists(price) or sold=true", [0, 3]),
        ("not exists(price)", [1, 2]),
        ("price not in (60)", [0]),
        ("exists(price)", [0, 3]),
    ):
        assert np.flatnonzero(parse_filter(text, SCHEMA).mask(kept)).tolist() == rows


def test_no_rows_and_many_chunks() -> None:
    chosen = parse_filter("brand=Nike and price<50 or since>2026-01-01 and exists(tags)", SCHEMA)
    assert chosen.mask(TABLE.slice(0, 0)).shape == (0,)
    chunked = pa.concat_tables([TABLE.slice(at, 1) for at in range(4)])
    assert np.array_equal(chosen.mask(chunked), chosen.mask(TABLE))


def test_decimal_and_unsigned_columns() -> None:
    table = pa.table({"cost": pa.array([Decimal("1.50"), None]), "big": pa.array([2**64 - 1, 0], pa.uint64())})
    assert parse_filter("cost=1.5", table.schema).mask(table).tolist() == [True, False]
    assert parse_filter("big>18446744073709551614", table.schema).mask(table).tolist() == [True, False]


@pytest.mark.parametrize(
    "kind",
    [
        pa.decimal32(4, 2),
        pa.decimal64(12, 2),
        pa.decimal128(30, 4),
        pa.decimal256(50, 1),
        pa.dictionary(pa.int8(), pa.decimal128(9, 2)),
    ],
)
@pytest.mark.parametrize(
    ("text", "rows"),
    [("cost<2", [1, 3]), ("cost>=1.5", [1, 2]), ("cost!=1.5", [2, 3]), ("cost>-0.0001 or cost in (-7, 9)", [1, 2, 3])],
)
def test_decimals_of_every_width(kind: pa.DataType, text: str, rows: list[int]) -> None:
    values = pa.array([0, None, Decimal("1.5"), 20, -7], pa.decimal128(9, 2))
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    cost = values.cast(plain)
    table = pa.table({"cost": cost.dictionary_encode() if plain is not kind else cost}).slice(1)
    assert np.flatnonzero(parse_filter(text, table.schema).mask(table)).tolist() == rows


def test_decimals_of_more_than_18_digits_compare_as_floats() -> None:
    values = [Decimal(10) ** 30, Decimal("-0.5"), None, Decimal("1000000000000000000.1")]
    table = pa.table({"cost": pa.array(values, pa.decimal128(38, 2))})
    assert parse_filter("cost=1e30 or cost<0", table.schema).mask(table).tolist() == [True, True, False, False]
    assert parse_filter("cost=1000000000000000000.1", table.schema).mask(table).tolist() == [False, False, False, True]


def test_integers_beyond_a_float_among_many() -> None:
    table = pa.table({"big": pa.array([2**63 + 1, 2**63 + 2, 2**53, 7], pa.uint64())})
    few = ", ".join(map(str, range(10, 20)))
    chosen = parse_filter(f"big in ({2**63 + 1}, {2**53 + 1}, 7, {few})", table.schema)
    assert np.flatnonzero(chosen.mask(table)).tolist() == [0, 3]


def test_many_numbers() -> None:
    """Beyond some values membership is tested at once; what the column cannot hold matches nothing."""
    many = ", ".join(map(str, range(100, 120)))
    assert matches(f"stock in ({many}, 1152921504606846977, 99999999999999999999999, -3.5, -3)") == [1, 3]
    assert matches(f"weight in ({many}, 0.1, 1e300)") == [0]
    assert matches(f"stock not in ({many}, -3)") == [0, 1]


def test_many_numbers_that_lie_close() -> None:
    table = pa.table({"size": pa.array([*range(-50, 250), None], pa.int16())})
    wanted = [*range(-60, 40, 7), 99, 70_000]
    found = parse_filter(f"size in ({', '.join(map(str, wanted))}, 2.5)", table.schema).mask(table)
    assert table["size"].to_numpy()[found].tolist() == [size for size in wanted if -50 <= size < 250]


@pytest.mark.parametrize("others", [0, 70_000], ids=["codes", "too many values for codes"])
def test_texts_compare_however_their_accents_are_stored(others: int) -> None:
    brands = ["Müller", "Mu\u0308ller", "müller", "Muller", None, "プーマ", "フ\u309aーマ", *map(str, range(others))]
    table = pa.table({"brand": brands})
    for spelling in ("Müller", "Mu\u0308ller"):
        for text in (f"brand={spelling}", f"brand in (x, '{spelling}', '{spelling}')"):
            assert np.flatnonzero(parse_filter(text, table.schema).mask(table)).tolist() == [0, 1]
    assert np.flatnonzero(parse_filter("brand='プーマ' or brand=müller", table.schema).mask(table)).tolist() == [
        2,
        5,
        6,
    ]
    left_out = np.flatnonzero(~parse_filter("brand!=Müller", table.schema).mask(table)).tolist()
    assert left_out == [0, 1, 4]
    coded = table.set_column(0, "brand", table["brand"].dictionary_encode())
    assert np.flatnonzero(parse_filter("brand=Müller", coded.schema).mask(coded)).tolist() == [0, 1]


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
COLUMNS = {
    "price": pa.float64(),
    "stock": pa.int64(),
    "uid": pa.uint64(),
    "size": pa.int8(),
    "cost": pa.decimal128(20, 2),
    "brand": pa.string(),
    "sold": pa.bool_(),
}
EDGES = st.sampled_from([2**53, 2**53 + 1, 2**63 - 1])  # float64 takes some of their neighbours for them
CENTS = st.one_of(st.integers(-300, 300), st.integers(-3, 3).map(lambda cents: 1234567890123456788 + cents))
VALUES = {
    "price": st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6)),
    "stock": st.one_of(st.integers(-3, 3), EDGES, st.integers(-(2**63), 2**63 - 1)),
    "uid": st.one_of(st.integers(0, 3), EDGES, EDGES.map(lambda edge: edge + 2), st.integers(0, 2**64 - 1)),
    "size": st.integers(-128, 127),
    "cost": CENTS.map(lambda cents: Decimal(cents).scaleb(-2)),
    "brand": st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    "sold": st.booleans(),
}
WHOLE = st.one_of(VALUES["stock"], VALUES["uid"], VALUES["price"], VALUES["cost"])
LITERALS = VALUES | {"stock": WHOLE, "uid": WHOLE, "size": st.one_of(VALUES["size"], WHOLE)}
LITERALS["cost"] = st.one_of(VALUES["cost"], VALUES["stock"], st.integers(-3000, 3000).map(lambda n: Decimal(n) / 1000))


def twin(node: tuple, row: dict) -> bool:
    """Truth of one row, from the expression's own tree."""
    match node:
        case ("exists", column):
            return row[column] is not None and row[column] == row[column]
        case ("not", term):
            return not twin(term, row)
        case ("and" | "or" as word, *terms):
            return (all if word == "and" else any)([twin(term, row) for term in terms])
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
    return str(value).lower() if isinstance(value, bool | Decimal) else repr(value)


def spell(node: tuple) -> str:
    match node:
        case ("exists", column):
            return f"exists({column})"
        case ("not", term):
            return f"not ({spell(term)})"
        case ("and" | "or" as word, *terms):
            return f" {word} ".join(f"({spell(term)})" if term[0] in ("and", "or") else spell(term) for term in terms)
        case ("in" | "not in" as op, column, values):
            return f"{column} {op} ({', '.join(map(written, values))})"
        case (op, column, values):
            return f"{column}{op}{written(values[0])}"
    raise AssertionError(node)


@st.composite
def comparisons(draw: st.DrawFn) -> tuple:
    column = draw(st.sampled_from(list(COLUMNS)))
    ordered = column not in ("brand", "sold")
    op = draw(st.sampled_from(["=", "!=", "in", "not in", *(["<", "<=", ">", ">="] if ordered else [])]))
    return op, column, draw(st.lists(LITERALS[column], min_size=1, max_size=3))


@st.composite
def chains(draw: st.DrawFn) -> tuple:
    """Comparisons of one column with each other between."""
    column = draw(st.sampled_from(list(COLUMNS)))
    ops, values = st.sampled_from(["=", "!=", "in", "not in"]), st.lists(LITERALS[column], min_size=1, max_size=4)
    return draw(st.sampled_from(["and", "or"])), *draw(
        st.lists(st.tuples(ops, st.just(column), values), min_size=2, max_size=4)
    )


NODES = st.recursive(
    st.one_of(comparisons(), chains(), st.tuples(st.just("exists"), st.sampled_from(list(COLUMNS)))),
    lambda inner: st.one_of(st.tuples(st.just("not"), inner), st.tuples(st.sampled_from(["and", "or"]), inner, inner)),
    max_leaves=5,
)
CELLS = VALUES | {"price": VALUES["price"] | st.just(np.nan)}
ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | cells for name, cells in CELLS.items()}), min_size=1, max_size=12
)


@settings(max_examples=300, deadline=None)
@given(node=NODES, rows=ROWS, coded=st.booleans())
def test_agrees_with_the_twin(node: tuple, rows: list[dict], coded: bool) -> None:
    table = pa.Table.from_pylist(rows, pa.schema(COLUMNS))
    with pytest.MonkeyPatch.context() as patch:
        if not coded:
            patch.setattr(column_values, "_MAX_CODES", 0)
        mask = parse_filter(spell(node), table.schema).mask(table)
    assert mask.tolist() == [twin(node, row) for row in rows]


@settings(max_examples=300, deadline=None)
@given(text=st.text(st.sampled_from(list("pricebrandsold<>=!()\"', andortin\\0.5\x00é")), max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        assert parse_filter(text, SCHEMA).mask(TABLE).shape == (4,)
