"""What tables hold as shops write them: dialects, encodings, broken lines, prices, times, HTML."""

import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shop_tables import items, log, read, rejects, run, settings

from smar.core.errors import InputError
from smar.data.amounts import COMMA, POINT, find_format, plain_amount
from smar.data.database import connect, literal
from smar.data.markup import plain_text
from smar.data.staging import Staged, stage
from smar.data.times import text_time

Rows = list[tuple[Any, ...]]


def staged(folder: Path, name: str, data: bytes, encoding: str | None = None) -> tuple[Rows, list[str], Staged]:
    """Rows and columns of a file, and what was said about it."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_bytes(data)
    kind = {"jsonl": "json lines"}.get(name.split(".")[1], name.split(".")[1])
    with connect(settings(), folder / "work") as con:
        told = stage(con, folder / name, kind, folder / "staged.parquet", encoding, "items")
    table = pq.read_table(folder / "staged.parquet")
    assert [path.name for path in folder.iterdir() if path.name not in (name, "work")] == ["staged.parquet"]
    return [tuple(row.values()) for row in table.to_pylist()], table.column_names, told


def test_a_quote_without_an_end_says_how_many_lines_it_took(tmp_path: Path) -> None:
    text = "a,b\n" + "1,x\n" * 20 + '2,"x\n' + "3,x\n" * 50_000
    rows, _, told = staged(tmp_path, "t.csv", text.encode())
    assert len(rows) == 20
    assert [reason.split(":")[0] for _, reason in told.bad_lines] == ["t.csv line 22 is no row"]
    assert len(told.notes) == 1
    assert "a quote that opens in line 22 is never closed" in told.notes[0]
    assert "50,001 of them" in told.notes[0]


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("sep=;\na;b\n1;2\n", ["a", "b"], [("1", "2")]),
        ("\n \na,b\n1,2\n", ["a", "b"], [("1", "2")]),
        ("a;b;\n1;2;\n", ["a", "b"], [("1", "2")]),
        ("a;b;;\n1;2;;\n3;4;;\n", ["a", "b"], [("1", "2"), ("3", "4")]),
        ("a;b;;\n1;2\n3;4\n", ["a", "b"], [("1", "2"), ("3", "4")]),
        ("a;b\n1;2;;\n3;4;;\n", ["a", "b"], [("1", "2"), ("3", "4")]),
        ('"a\n1";b\n1;2\n', ["a\n1", "b"], [("1", "2")]),
        ('"a;1",b\n1,2\n', ["a;1", "b"], [("1", "2")]),
        ('"a,1,2";b\n1;2\n', ["a,1,2", "b"], [("1", "2")]),
        (" a , b\n1, 2\n", ["a", "b"], [("1", " 2")]),
        ('a,b\n"x\ny","say ""hi"""\n', ["a", "b"], [("x\ny", 'say "hi"')]),
        ('a,b\n,""\n', ["a", "b"], [(None, None)]),
        ("a,b\r\n1,2\r\n\r\n3,4\n5,6\r\n", ["a", "b"], [("1", "2"), ("3", "4"), ("5", "6")]),
        ("a|b\n1|2", ["a", "b"], [("1", "2")]),
        ("\ufeffa,b\n1,2\n", ["a", "b"], [("1", "2")]),
    ],
)
def test_dialects(tmp_path: Path, text: str, names: list[str], rows: Rows) -> None:
    found = staged(tmp_path / "plain", "t.csv", text.encode())
    assert found[:2] == (rows, names)
    assert (found[2].bad_lines, found[2].notes) == ([], [])
    assert staged(tmp_path / "gz", "t.csv.gz", gzip.compress(text.encode()))[:2] == (rows, names)


def test_a_column_without_a_name_is_left_out_aloud(tmp_path: Path) -> None:
    rows, names, told = staged(tmp_path, "t.csv", b",item_id\n0,a\n1,b\n")  # pandas writes its index so
    assert (rows, names) == ([("a",), ("b",)], ["item_id"])
    assert told.notes == ["t.csv: column 1 has no name in the header; its 2 values are left out"]


@pytest.mark.parametrize("header", ["Price,price", "a b,a  b", "a,a", "a, a"])
def test_names_that_cannot_be_told_apart(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError, match="two columns have"):
        staged(tmp_path, "t.csv", f"{header}\n1,2\n".encode())
    names = header.split(",")
    pq.write_table(pa.Table.from_arrays([pa.array(["1"])] * 4, ["item_id", "title", *names]), tmp_path / "i.parquet")
    with pytest.raises(InputError, match="two columns have"):
        run(tmp_path, str(tmp_path / "i.parquet"), log())


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    _, _, told = staged(tmp_path, "t.csv", b'sep=,\n\na,b\n"x\ny",1\n\n1,2,3,4\nz\n')
    assert [(text, reason.split(":")[0]) for text, reason in told.bad_lines] == [
        ("1,2,3,4", "t.csv line 7 is no row"), ("z", "t.csv line 8 is no row"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        ("a,b\né,ü\n", "utf-8", None),
        ("a,b\nred,ü\n", "utf-16", None),
        ("a,b\nred,红色\n", "utf-16-le", None),
        ("a,b\nred,红色\n", "utf-16-be", None),
        ("ä,b\n10 €,ü\n", "cp1252", "cp1252"),
        ("商品,b\n红色,连衣裙\n", "gb18030", "gb18030"),
        ("商品,b\n紅色,連衣裙\n", "big5", "big5"),
        ("品,b\n表,ソ\n", "shift_jis", "shift_jis"),
    ],
)
def test_encodings(tmp_path: Path, text: str, encoding: str, said: str | None) -> None:
    header, row = (tuple(line.split(",")) for line in text.splitlines())
    for suffix, pack in (("csv", bytes), ("csv.gz", gzip.compress)):
        rows, names, _ = staged(tmp_path / suffix, f"t.{suffix}", pack(text.encode(encoding)), said)
        assert (rows, names) == ([row], list(header))
    lines = json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) + "\n"
    assert staged(tmp_path / "json", "t.jsonl", lines.encode(encoding), said)[:2] == ([row], list(header))


def test_a_file_that_is_not_utf_8_names_the_setting(tmp_path: Path) -> None:
    for name, text in (
        ("t.csv", "a,b\n1,x\n2,Café\n"),
        ("t.jsonl", '{"a":"x"}\n{}\n{"a":"Café"}\n'),
        ("u.csv", "é\n1\n"),
    ):
        with pytest.raises(InputError, match=rf"byte e9 in line {1 if name == 'u.csv' else 3} .*data.encoding=cp1252"):
            staged(tmp_path / name, name, text.encode("cp1252"))
    rows, _, told = staged(tmp_path / "reject", "t.csv", "a,b\n1,x\n2,Café\n".encode("cp1252"), "utf-8")
    assert (rows, len(told.bad_lines)) == ([("1", "x")], 1)
    with pytest.raises(InputError, match=r"is not big5: byte .* in line 2"):
        staged(tmp_path / "big5", "t.csv", b"a\n\xff\xff\n", "big5")
    with pytest.raises(ValueError, match="'klingon' is no encoding"):
        settings(encoding="klingon")


def test_lines_of_json_that_are_no_rows_cost_nothing_else(tmp_path: Path) -> None:
    good = [json.dumps({"item_id": f"i{n}", "title": "t"}) for n in range(200)]
    bad = [
        "[]",
        '"x"',
        "5",
        "null",
        '{"item_id": "cut',
        '{"item_id": "a", "item_id": "b"}',
        '{"n": Infinity}',
        '{"n": 1e999}',
    ]
    mended = ['{"item_id": "s", "title": "half \\ud800"}', '{"item_id": "n", "price": NaN, "title": "t"}', ""]
    lines = [*good[:100], *bad, *good[100:], *mended]
    rows, _, told = staged(tmp_path, "t.jsonl", "\n".join(lines).encode())
    assert len(rows) == 202
    assert rows[-2:] == [("s", "half \ufffd", None), ("n", "t", None)]
    assert [text for text, _ in told.bad_lines] == bad
    assert [reason.split(": ")[0] for _, reason in told.bad_lines] == [
        f"t.jsonl line {101 + n} is no row" for n in range(len(bad))
    ]
    assert all(reason.split(": ", 1)[1] for _, reason in told.bad_lines)
    assert told.notes == ["t.jsonl: 1 lone surrogates (half a character) became \ufffd"]


def test_numbers_of_json_stay_as_they_were_written(tmp_path: Path) -> None:
    numbers = ["0.1234567890123456789", "12345678901234567890123", "1e-7", "1E5", "0.00001", "-0.5", "4.10"]
    rows, _, told = staged(tmp_path, "t.jsonl", "\n".join(f'{{"n": {number}}}' for number in numbers).encode())
    assert [row[0] for row in rows] == [
        "0.1234567890123456789", "12345678901234567890123", "0.0000001", "100000.0", "0.00001", "-0.5", "4.1"
    ]  # fmt: skip
    assert told.written == {"n": "number"}


def test_json_that_is_not_in_lines(tmp_path: Path) -> None:
    for name, data in (
        ("a", '[{"a": 1,\n "b": "\\ud800"}, {"a": 2.5}]'),
        ("b", '{"a": 1,\n "b": "\\ud800"}\n{"a": 2.5}'),
    ):
        assert staged(tmp_path / name, "t.json", data.encode())[0] == [("1", "\ufffd"), ("2.5", None)]
    with pytest.raises(InputError, match="cannot be read as json"):
        staged(tmp_path / "cut", "t.json", b'[{"a": 1}, {"a"')


AMOUNTS = {
    "1.299,00 €": (None, "1299.00"), "$52": ("52", "52"), "54,74": (None, "54.74"), "1,299.00": ("1299.00", None),
    "12.50 EUR": ("12.50", None), "CHF 1'299.-": ("1299", "1299"), "1\u202f299,00\u00a0€": (None, "1299.00"),
    "1,29,900.00": ("129900.00", None), "٩٩٫٥٠": (None, "99.50"), "−5,50 €": (None, "-5.50"), "-$5": ("-5", "-5"),
    "1,299": ("1299", "1.299"), "1.299": ("1.299", "1299"), "0,299": (None, "0.299"), "kr 1 299": ("1299", "1299"),
    "ask us": (None, None), "4.99 - 5.99": (None, None), "5 € 6 €": (None, None), "1.2.3": (None, None),
}  # fmt: skip


def test_prices_as_people_write_them(tmp_path: Path) -> None:
    with connect(settings(), tmp_path) as con:
        for text, readings in AMOUNTS.items():
            sql = f"SELECT {plain_amount('t', POINT)}, {plain_amount('t', COMMA)} FROM (SELECT {literal(text)} AS t)"
            assert con.execute(sql).fetchall()[0] == readings, text
        columns: list[tuple[list[str], str | None]] = [
            (["1,299", "1,5"], COMMA), (["1,299", "4.99"], POINT), (["10", "20", "ask us"], None), (["1.299"], None),
            (["1.299 €", "1.299,00 €"], COMMA),
        ]  # fmt: skip
        for values, found in columns:
            con.execute("CREATE OR REPLACE TEMP TABLE prices AS SELECT unnest(?) AS x", [values])
            assert find_format(con, "prices", "x", "price")[0] == found
        for values in (["1,299"], ["1.299 €"], ["4.99", "54,74"]):
            con.execute("CREATE OR REPLACE TEMP TABLE prices AS SELECT unnest(?) AS x", [values])
            with pytest.raises(InputError, match=rf"{values[0]}.*data.number_format"):
                find_format(con, "prices", "x", "price")


def csv_items(folder: Path, column: str, values: list[str]) -> str:
    lines = [f"item_id;title;{column}", *[f"i{n};t;{value}" for n, value in enumerate(values)]]
    (folder / "items.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder / "items.csv")


def test_the_prices_format_is_kept_for_updates(tmp_path: Path) -> None:
    summary = run(tmp_path, csv_items(tmp_path, "price", ["1.299,00 €", "54,74", "10", "ask us"]), log())
    assert [row["price"] for row in read(tmp_path, "items.parquet")] == [1299, 54.74, 10, None]
    assert "items: 1 prices are not numbers and became null, for example 'ask us'" in summary.notes
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["number_format"] == COMMA


def test_declared_types(tmp_path: Path) -> None:
    rows = [
        {"item_id": "i0", "title": "t", "sku": "12", "cost": "4.990", "since": "1750000000"},
        {
            "item_id": "i1",
            "title": "t",
            "sku": "13",
            "cost": "12345678901234567.25",
            "since": "2025-06-15T10:00:00+02:00",
        },
        {"item_id": "i2", "title": "t", "sku": "14", "cost": "x", "since": "20250615"},
        {"item_id": "i3", "title": "t", "sku": "15", "cost": "", "since": "soon"},
    ]
    path = tmp_path / "items.csv"
    path.write_text("\n".join([",".join(rows[0]), *[",".join(row.values()) for row in rows]]) + "\n")
    types = {"sku": "text", "cost": "decimal", "since": "timestamp"}
    summary = run(tmp_path, str(path), log()[:5], types=types)
    kept = read(tmp_path, "items.parquet")
    assert [row["sku"] for row in kept] == ["12", "13"]
    assert [str(row["cost"]) for row in kept] == ["4.99", "12345678901234567.25"]
    assert [row["since"] for row in kept] == [datetime(2025, 6, 15, 15, 6, 40), datetime(2025, 6, 15, 8)]
    assert [row for row in rejects(tmp_path) if row[0] == "items"] == [
        ("items", 2, "i2", "cost is no decimal: 'x'"), ("items", 3, "i3", "since is no time: 'soon'"),
    ]  # fmt: skip
    assert summary.rejects["items: cost is no decimal"] == 1
    with pytest.raises(InputError, match=r"a name in data.types is 'price'; allowed: cost, item_id, since, sku, title"):
        run(tmp_path, str(path), log(), types={"price": "number"})


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        (["4.99", "5", ""], [4.99, 5.0, None]),
        (["1e5", "12"], ["1e5", "12"]),
        (["1_000", "2"], ["1_000", "2"]),
        (["007", "8"], ["007", "8"]),
        (["9223372036854775808", "1"], [9223372036854775808.0, 1.0]),
        (["9223372036854775809", "1"], [9223372036854775809, 1]),
        (["TRUE", "false"], [True, False]),
        (["2025-06-01T10:00:00+02:00", "2025-06-01T10:00:00"], [datetime(2025, 6, 1, 8), datetime(2025, 6, 1, 10)]),
        (["20250615", "20250616"], [20250615, 20250616]),
        (["03/04/2025", "05/06/2025"], ["03/04/2025", "05/06/2025"]),
        (["inf", "1"], ["inf", "1"]),
    ],
)
def test_what_a_column_of_a_text_file_becomes(tmp_path: Path, values: list[str], kept: list[Any]) -> None:
    clicks = [*log()[:3], {**log()[-1], "item_id": "i0"}]
    run(tmp_path, csv_items(tmp_path, "x", [*values]), [row for row in clicks if row["item_id"] in ("i0", "i1")])
    assert [row["x"] for row in read(tmp_path, "items.parquet")] == kept


MOMENTS = {
    "20250615": datetime(2025, 6, 15),
    "20250615083000": datetime(2025, 6, 15, 8, 30),
    "202506150830": datetime(2025, 6, 15, 8, 30),
    "1750000000": datetime(2025, 6, 15, 15, 6, 40),
    "1750000000123": datetime(2025, 6, 15, 15, 6, 40, 123000),
    "1750000000123456": datetime(2025, 6, 15, 15, 6, 40, 123456),
    "1750000000123456789": datetime(2025, 6, 15, 15, 6, 40, 123456),
    "1750000000.25": datetime(2025, 6, 15, 15, 6, 40, 250000),
    "2025-06-01 10:00:00+02": datetime(2025, 6, 1, 8),
    "2025-06-01T10:00:00.5Z": datetime(2025, 6, 1, 10, 0, 0, 500000),
    "20251345": None,
    "03/04/2025": None,
    "soon": None,
}


def test_times_as_texts(tmp_path: Path) -> None:
    with connect(settings(), tmp_path) as con:
        for text, moment in MOMENTS.items():
            sql = f"SELECT {text_time('t', None)} FROM (SELECT {literal(text)} AS t)"
            assert con.execute(sql).fetchall()[0][0] == moment, text
        sql = f"SELECT {text_time('t', '%d.%m.%Y %H:%M')} FROM (SELECT unnest(['03.04.2025 10:00', '2025-06-01']) AS t)"
        assert [row[0] for row in con.execute(sql).fetchall()] == [datetime(2025, 4, 3, 10), datetime(2025, 6, 1)]


def dated(form: str, start: datetime = datetime(2026, 1, 1)) -> list[dict[str, Any]]:
    return [{**row, "timestamp": (start + (row["timestamp"] - datetime(2026, 1, 1))).strftime(form)} for row in log()]


def test_the_log_s_times(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'timestamp'.*'01/01/2026'.*data.date_format"):
        run(tmp_path, items(), dated("%d/%m/%Y"))
    run(tmp_path, items(), dated("%d/%m/%Y"), date_format="%d/%m/%Y")
    assert min(row["first_click"] for row in read(tmp_path, "pairs/train.parquet")) == datetime(2026, 1, 1)
    with pytest.raises(InputError, match=r"Times seen: 'Thu 01\. Jan.*data.date_format"):
        run(tmp_path, items(), dated("%a %d. %b %Y"))
    with pytest.raises(InputError, match=r"data.date_format is '%Q'"):
        run(tmp_path, items(), log(), date_format="%Q")
    assert not any("improbable" in note for note in run(tmp_path, items(), dated("%Y%m%d")).notes)
    for start, why in (
        (datetime(1970, 1, 1), "before 1990"),
        (datetime.now() + timedelta(days=9), "after tomorrow"),
    ):
        notes = run(tmp_path, items(), dated("%Y-%m-%d", start)).notes
        assert any(why in note and "improbable" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Caf&eacute; &amp; Bar", "Café & Bar"),
        ("<b>Red</b> dress<br>new", "Red dress new"),
        ("a&nbsp;b &#8364; &#x20AC;", "a b € €"),
        ("<p class='x > y'>one</p><!-- two --><SCRIPT>three</SCRIPT>four", "one four"),
        ("&lt;b&gt;Red&lt;/b&gt;", "Red"),
        ("H<sub>2</sub>O", "H2O"),
    ],
)
def test_html_becomes_what_it_shows(text: str, shown: str) -> None:
    assert plain_text(text) == shown


@pytest.mark.parametrize(
    "text", ["a < b", "<3", "AT&T", "R&D", "x<y>z", "<M12>", "a  b", "&unknown;", "5 > 3 & 2 < 4", "&copy"]
)
def test_what_is_no_html_stays(text: str) -> None:
    assert plain_text(text) == text


def test_html_in_titles_fields_and_queries(tmp_path: Path) -> None:
    rows = items(brand="M&amp;S", note="M&amp;S")
    clicks = [{**row, "query": f"<b>{row['query']}</b> &amp; more"} for row in log()]
    kept = []
    for html in ("decode", "keep"):
        run(tmp_path / html, [{**row, "title": "<i>Red</i> &amp; blue"} for row in rows], clicks,
            text_fields=("title", "brand"), html=html)  # fmt: skip
        row = read(tmp_path / html, "items.parquet")[0]
        kept.append((row["title"], row["brand"], row["note"], read(tmp_path / html, "qrels.parquet")[0]["query"]))
    assert kept == [
        ("Red & blue", "M&S", "M&amp;S", "hat & more"),
        ("<i>Red</i> &amp; blue", "M&amp;S", "M&amp;S", "<b>hat</b> &amp; more"),
    ]


def test_a_list_of_titles_is_one_text_and_nested_titles_are_refused(tmp_path: Path) -> None:
    run(tmp_path, [{"item_id": f"i{n}", "title": [f"Sofa {n}", "", None, "alt"]} for n in range(4)], log())
    assert [row["title"] for row in read(tmp_path, "items.parquet")][:2] == ["Sofa 0 alt", "Sofa 1 alt"]
    with pytest.raises(InputError, match="column 'title' has type STRUCT"):
        run(tmp_path, [{"item_id": "i0", "title": {"de": "Sofa"}}], log())


def test_whole_numbers_as_text_fields_are_text(tmp_path: Path) -> None:
    run(tmp_path, [{**row, "category": 7} for row in items()], log(), text_fields=("title", "category"))
    assert {row["category"] for row in read(tmp_path, "items.parquet")} == {"7"}
