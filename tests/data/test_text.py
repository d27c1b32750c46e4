from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smar.data.database import define_macros
from smar.data.text import normalise
from smar.data.words import words

SPACES = "\t\n\x0b\x0c\r\x1c\x1f \x85\xa0\u2003\u3000"
LETTERS = "½™’\u00ad\u200b\u200c\ufeffＡﾍﾟ\u3164aZ09ÀéßİıΣσςǅЖ中ก😀Å\u0301\u0308-_'\"%"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Red \t\n DRESS ", "red dress"),
        ("", ""),
        ("\u3000\xa0", ""),
        ("Cafe\u0301", "café"),
        ("ΟΔΟΣ οδος", "οδοσ οδοσ"),
        ("İstanbul i̇stanbul I\u0307stanbul ıspanak", "istanbul istanbul istanbul ıspanak"),
        ("Straße STRASSE", "strasse strasse"),
        ("ＮＩＫＥ　２５６ＧＢ", "nike 256gb"),
        ("ﾍﾟｯﾄ ペット ﾍﾞｯﾄﾞ", "ペット ペット ベッド"),
        ("año ano", "año ano"),
        ("soft\u00adshell zero\u200bwidth \ufeffbom join\u200der var\ufe0f", "softshell zerowidth bom joiner var"),
        ("\u200b \ufeff\u3164", ""),
        ("کفش\u200cهای", "کفش های"),  # Persian: a border of words
        ("क्\u200cष क्\u200dष", "क्ष क्ष"),  # Hindi: how a letter is drawn
        ("Levi’s Levi‘s Levi´s Leviʼs", "levi's levi's levi's levi's"),
        ("Nike™ KOHLER®™", "nike kohler®"),
        ("1½ ½ m² ㎝ Ⅲ", "1 1/2 1/2 m2 cm iii"),
        ("ﻻ ﷲ", "لا الله"),
        ("각", "각"),
        ("😀 Shoe", "😀 shoe"),
    ],
)
def test_normal_form(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.fixture(scope="module")
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as con:
        define_macros(con)
        yield con


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
    assert rows == [(normalise(text), not normalise(text)) for text in texts]


@given(st.text())
def test_normal_form_is_stable(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_sql_knows_every_character_that_leaves_nothing(database: duckdb.DuckDBPyConnection) -> None:
    codes = [*range(1, 0xD800), *range(0xE000, 0x20000), *range(0xE0000, 0xE1100)]
    table = pa.table({"code": codes, "text": pa.array(map(chr, codes), pa.string())})
    database.register("letters", table)
    blank = database.execute("SELECT code FROM letters WHERE is_blank(text) ORDER BY code").fetchall()
    assert [code for (code,) in blank] == [code for code in codes if not normalise(chr(code))]


@pytest.mark.parametrize("letter", ["\u0301", "a\u0301", "'", "\u200c", "ب\u200c", "红", "½", "1a"])
def test_texts_without_end_are_read_in_linear_time(letter: str) -> None:
    """A thousand accents in a row, which any client may send, took a worker minutes: these would take it days."""
    assert isinstance(words(letter * 20_000), list)
    assert normalise(letter * 20_000) == normalise(normalise(letter * 20_000))
