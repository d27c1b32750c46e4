import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smar.data.database import script
from smar.data.text import normalise_query

SPACES = "\t\n\x0b\x0c\r\x1c\x1f \x85\xa0\u2003\u3000"
LETTERS = "aZ09ÀéßİıΣσςǅЖ中ก😀Å\u0301\u0308-_'\"%"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Red \t\n DRESS ", "red dress"),
        ("", ""),
        ("\u3000\xa0", ""),
        ("Cafe\u0301", "café"),
        ("ΟΔΟΣ", "οδοσ"),
        ("İstanbul", "istanbul"),
        ("😀 Shoe", "😀 shoe"),
    ],
)
def test_normal_form(text: str, expected: str) -> None:
    assert normalise_query(text) == expected


@pytest.fixture(scope="module")
def database() -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    con.execute(script("macros"))
    return con


@given(
    st.lists(
        st.text(st.sampled_from(SPACES + LETTERS))
        | st.text(st.characters(max_codepoint=0x24FF, exclude_categories=["Cs"]))
    )
)
def test_sql_says_the_same(database: duckdb.DuckDBPyConnection, texts: list[str]) -> None:
    texts = [text.replace("\0", "") for text in texts]
    table = pa.table({"n": range(len(texts)), "text": pa.array(texts, pa.string())})
    database.register("texts", table)
    rows = database.execute("SELECT clean_query(text), is_blank(text) FROM texts ORDER BY n").fetchall()
    assert rows == [(normalise_query(text), not text.strip()) for text in texts]


@given(st.text())
def test_normal_form_is_stable(text: str) -> None:
    assert normalise_query(normalise_query(text)) == normalise_query(text)
