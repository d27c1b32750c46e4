import gzip
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from shop_tables import START, click, items, log, picture, read, rejects, run, write_table

from smar.core.errors import InputError
from smar.data.sources import file_format, find_files

SUFFIXES = ("csv", "tsv", "jsonl", "parquet")


def pairs(folder: Path) -> list[dict[str, Any]]:
    return [row for part in ("train", "valid", "test") for row in read(folder, f"pairs/{part}.parquet")]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_same_pairs(tmp_path: Path, suffix: str) -> None:
    run(tmp_path / "reference", items(), log())
    catalogue = write_table(tmp_path / f"items.{suffix}", items())
    run(tmp_path / "tested", str(catalogue), str(write_table(tmp_path / f"clicks.{suffix}", log())))
    assert pairs(tmp_path / "tested") == pairs(tmp_path / "reference")
    assert read(tmp_path / "tested", "items.parquet") == read(tmp_path / "reference", "items.parquet")


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12) | st.sampled_from(
    ["", " ", '"', ",", "\u2028"]
)
CLICKS = st.builds(
    lambda query, item, seconds, clicked: {
        "query": query, "item_id": f"i{item}", "timestamp": START + timedelta(seconds=seconds), "clicked": clicked,
    },
    TEXTS, st.integers(0, 5), st.integers(0, 800_000), st.booleans(),
)  # fmt: skip


@hypothesis_settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CLICKS, max_size=12))
def test_formats_agree_on_any_log(tmp_path_factory: pytest.TempPathFactory, clicks: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("formats")
    seen = []
    for suffix in ("csv", "jsonl", "parquet"):
        path = write_table(folder / f"clicks.{suffix}", [*log(), *clicks])
        run(folder / suffix, items(5), str(path), test_from=date(2026, 1, 9))
        lost = [(row, reason) for _, row, _, reason in rejects(folder / suffix)]
        seen.append((pairs(folder / suffix), lost))
    assert seen[0] == seen[1] == seen[2]


def test_directory_and_glob_are_one_table(tmp_path: Path) -> None:
    rows = log()
    for number, part in enumerate((rows[:2], rows[2:4], rows[4:])):
        write_table(tmp_path / "parts" / "deep" / f"part-{number}.parquet", part)
        write_table(tmp_path / "lines" / f"part-{number}.csv", part)
    (tmp_path / "parts" / "_SUCCESS.csv").write_text("")
    run(tmp_path / "one", items(), rows)
    run(tmp_path / "directory", items(), str(tmp_path / "parts"))
    run(tmp_path / "glob", items(), str(tmp_path / "lines" / "*.csv"))
    assert pairs(tmp_path / "one") == pairs(tmp_path / "directory") == pairs(tmp_path / "glob")


def test_row_numbers_count_over_all_files(tmp_path: Path) -> None:
    for number in range(3):
        write_table(tmp_path / "parts" / f"{number}.parquet", [*log(), click("hat", "nobody", 1)])
    run(tmp_path, items(), str(tmp_path / "parts"))
    assert rejects(tmp_path) == [("clicks", row, "nobody", "unknown item") for row in (6, 13, 20)]


def test_compressed_text_and_other_delimiters(tmp_path: Path) -> None:
    plain = write_table(tmp_path / "clicks.csv", log())
    (tmp_path / "clicks.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "semicolon.csv").write_bytes(plain.read_bytes().replace(b",", b";"))
    assert file_format(Path("a.b.csv.gz")) == "csv"
    assert file_format(Path("a.parquet.gz")) is None
    run(tmp_path / "a", items(), str(tmp_path / "clicks.csv.gz"))
    run(tmp_path / "b", items(), str(tmp_path / "semicolon.csv"))
    assert pairs(tmp_path / "a") == pairs(tmp_path / "b")


def test_column_mapping(tmp_path: Path) -> None:
    renamed = [{"sku": row["item_id"], "name": row["title"], "title": "raw"} for row in items()]
    columns = {"items": {"item_id": "sku", "title": "name"}, "clicks": {"query": "q"}}
    clicks = [{"q": row["query"], **{k: v for k, v in row.items() if k != "query"}} for row in log()]
    summary = run(tmp_path, renamed, clicks, columns=columns)
    assert read(tmp_path, "items.parquet")[1]["item_id"] == "i1"
    assert [row["title"] for row in read(tmp_path, "items.parquet")] == [f"title {n}" for n in range(4)]
    assert any("replaced" in note for note in summary.notes)


HOSTILE = """x" FROM range(9)) UNION SELECT '{}${item_id} --"""


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_of_columns_and_files_are_never_read_as_sql(tmp_path: Path, suffix: str) -> None:
    shown = [{HOSTILE: row["item_id"], "title": row["title"], f"{HOSTILE} 2": n} for n, row in enumerate(items())]
    clicks = [{HOSTILE: row["query"], **{k: v for k, v in row.items() if k != "query"}} for row in log()]
    folder = tmp_path / HOSTILE
    catalogue = write_table(folder / f"it's; DROP TABLE item.{suffix}", shown)
    columns = {"items": {"item_id": HOSTILE}, "clicks": {"query": HOSTILE}}
    asked = [{"query": "hat", HOSTILE: "a", "it's": "b"}]
    run(folder, str(catalogue), clicks, queries=asked, columns=columns)
    rows = read(folder, "items.parquet")
    assert [(row["item_id"], row[f"{HOSTILE} 2"]) for row in rows] == [(f"i{n}", n) for n in range(4)]
    assert {row["query"] for row in pairs(folder)} == {"red dress", "blue shoe", "hat"}
    assert read(folder, "queries.parquet") == asked


def test_identifiers_stay_text(tmp_path: Path) -> None:
    catalogue = write_table(
        tmp_path / "items.csv", [{"item_id": f"00{n}", "title": "007", "size": n} for n in range(4)]
    )
    clicks = write_table(tmp_path / "clicks.csv", [{**row, "item_id": "00" + row["item_id"][1:]} for row in log()])
    run(tmp_path, str(catalogue), str(clicks))
    assert (
        read(tmp_path, "items.parquet")[2] | {"item_id": "002", "title": "007", "size": 2}
        == read(tmp_path, "items.parquet")[2]
    )
    assert rejects(tmp_path) == []


def test_numbers_as_identifiers_match_across_types(tmp_path: Path) -> None:
    catalogue = [{"item_id": n, "title": "t"} for n in range(4)]
    clicks = [{**row, "item_id": float(row["item_id"][1:])} for row in log()]
    run(tmp_path, catalogue, clicks)
    assert [row["item_id"] for row in read(tmp_path, "items.parquet")] == ["0", "1", "2", "3"]
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("".join(f'{{"item_id": {v}, "title": "t"}}\n' for v in ("0", '"1"', '"2"', "3")))
    run(tmp_path / "json", str(mixed), clicks)
    assert [row["item_id"] for row in read(tmp_path / "json", "items.parquet")] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    "times",
    [
        lambda t: t.isoformat(),
        lambda t: t.isoformat() + "Z",
        lambda t: (t + timedelta(hours=2)).isoformat() + "+02:00",
        lambda t: t.replace(tzinfo=UTC),
        lambda t: int(t.replace(tzinfo=UTC).timestamp()),
        lambda t: int(t.replace(tzinfo=UTC).timestamp()) * 1000,
        lambda t: str(int(t.replace(tzinfo=UTC).timestamp())),
        lambda t: pa.scalar(t, pa.timestamp("ns")).as_py(),
    ],
)
def test_times_of_every_kind(tmp_path: Path, times: Any) -> None:
    run(tmp_path / "a", items(), log())
    run(tmp_path / "b", items(), [{**row, "timestamp": times(row["timestamp"])} for row in log()])
    assert pairs(tmp_path / "a") == pairs(tmp_path / "b")


@pytest.mark.parametrize(("yes", "no"), [("yes", "no"), ("1", "0"), (1, 0), (2.0, 0.0), (" TRUE ", "f")])
def test_flags_of_every_kind(tmp_path: Path, yes: Any, no: Any) -> None:
    run(tmp_path, items(), [{**row, "clicked": yes if row["clicked"] else no} for row in log()])
    assert sum(row["clicks"] for row in pairs(tmp_path)) == 5


def test_lines_that_are_no_rows_are_rejected(tmp_path: Path) -> None:
    csv = write_table(tmp_path / "clicks.csv", log())
    csv.write_text(csv.read_text() + "too,many,columns,in,this,line\nhat,i2\n")
    summary = run(tmp_path / "csv", items(), str(csv))
    assert summary.rejects == {"clicks: unreadable line": 2}
    assert [(row, key) for _, row, key, _ in rejects(tmp_path / "csv")] == [
        (-1, "hat,i2"),
        (-1, "too,many,columns,in,this,line"),
    ]
    jsonl = write_table(tmp_path / "clicks.jsonl", log())
    jsonl.write_text(jsonl.read_text() + "{broken\n")
    run(tmp_path / "json", items(), str(jsonl))
    ((table, row, key, reason),) = rejects(tmp_path / "json")
    assert (table, row, key) == ("clicks", -1, "{broken")
    assert reason.startswith("clicks.jsonl line 7 is no row: Expecting property name")


def test_no_file_unknown_type_mixed_formats(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matched"):
        find_files([str(tmp_path / "*.csv")], "items", tmp_path)
    with pytest.raises(InputError, match="holds no table"):
        find_files([str(tmp_path)], "items", tmp_path)
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(InputError, match=r"unknown file type. Allowed: .parquet"):
        find_files([str(tmp_path / "a.xlsx")], "items", tmp_path)
    write_table(tmp_path / "t" / "a.csv", log())
    write_table(tmp_path / "t" / "b.parquet", log())
    with pytest.raises(InputError, match=r"mixed formats .csv, parquet"):
        find_files([str(tmp_path / "t")], "clicks", tmp_path)


@pytest.mark.parametrize("name", ["empty.csv", "header.csv", "empty.jsonl", "empty.parquet"])
def test_empty_table(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "empty.parquet":
        pq.write_table(pa.table({"item_id": pa.array([], pa.string()), "title": pa.array([], pa.string())}), path)
    else:
        path.write_text("item_id,title\n" if name == "header.csv" else "")
    with pytest.raises(InputError, match="empty"):
        run(tmp_path, str(path), log())


def test_unreadable_files(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no table at all PAR1")
    with pytest.raises(InputError, match=r"bad.parquet: cannot be read as Parquet"):
        run(tmp_path, str(tmp_path / "bad.parquet"), log())
    (tmp_path / "bad.json").write_text("[{")
    with pytest.raises(InputError, match="cannot be read as json"):
        run(tmp_path, str(tmp_path / "bad.json"), log())
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()


def test_missing_columns_are_named_with_what_was_seen(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no column 'title'.*Columns seen: item_id, name.*items: \{title: THEIR_NAME"):
        run(tmp_path, [{"item_id": "a", "name": "b"}], log())
    with pytest.raises(InputError, match=r"no column 'clicked'.*needs both"):
        run(tmp_path, items(), [{k: v for k, v in row.items() if k != "clicked"} for row in log()])
    with pytest.raises(InputError, match=r"maps 'title' to 'nome'.*Its columns: item_id, title"):
        run(tmp_path, items(), log(), columns={"items": {"title": "nome"}})
    with pytest.raises(InputError, match=r"a key of data.columns.clicks is 'qeury'"):
        run(tmp_path, items(), log(), columns={"clicks": {"qeury": "query"}})
    with pytest.raises(InputError, match=r"--images: no column 'image'"):
        run(tmp_path, items(), log(), images=[{"item_id": "i0", "photo": picture()}])


def test_unknown_and_reserved_item_columns(tmp_path: Path) -> None:
    for key in ("text_fields", "slice_columns", "drop_columns"):
        with pytest.raises(InputError, match=rf"data.{key} is 'colour'; allowed: brand, item_id, title"):
            run(tmp_path, items(brand="b"), log(), **{key: ("title", "colour")})
    with pytest.raises(InputError, match="image_row are reserved"):
        run(tmp_path, items(image_row=1), log())
    run(tmp_path, items(image_row=1), log(), drop_columns=("image_row",))
    with pytest.raises(InputError, match="drops 'title'"):
        run(tmp_path, items(), log(), drop_columns=("title",))


def test_columns_keep_their_types_and_prices_become_numbers(tmp_path: Path) -> None:
    columns = {"price": "9.50", "sizes": [1, 2], "since": date(2026, 1, 1), "cost": 3}
    rows = items(4, **columns)
    rows[3]["price"] = "ask us"
    summary = run(tmp_path, rows, log(), drop_columns=("cost",))
    kept = read(tmp_path, "items.parquet")
    assert kept[0] | {"price": 9.5, "sizes": [1, 2], "since": date(2026, 1, 1)} == kept[0]
    assert kept[3]["price"] is None
    assert "cost" not in kept[0]
    assert "items: 1 prices are not numbers and became null, for example 'ask us'" in summary.notes


def test_bad_item_rows(tmp_path: Path) -> None:
    rows = [
        {"item_id": None, "title": "t"},
        {"item_id": "i0", "title": " "},
        {"item_id": "i0", "title": "first good"},
        {"item_id": "i0", "title": "second"},
        *items(4)[1:],
        {"item_id": "", "title": "t"},
    ]
    run(tmp_path, rows, log())
    assert [row["title"] for row in read(tmp_path, "items.parquet")] == [
        "first good",
        "title 1",
        "title 2",
        "title 3",
    ]
    assert [(row, key, reason.split(" (")[0]) for _, row, key, reason in rejects(tmp_path)] == [
        (0, "", "no item_id"), (1, "i0", "no title"), (3, "i0", "duplicate item_id"), (7, "", "no item_id"),
    ]  # fmt: skip
    with pytest.raises(InputError, match="none of the 1 rows"):
        run(tmp_path, [{"item_id": "a", "title": ""}], log())


def test_query_attributes(tmp_path: Path) -> None:
    rows = [{"query": q, "needs_image": 0.5} for q in (" Red  Dress", "red dress", "", "hat", None)]
    summary = run(tmp_path, items(), log(), queries=rows)
    assert [row["query"] for row in read(tmp_path, "queries.parquet")] == ["red dress", "hat"]
    assert {(row, reason.split(" (")[0]) for _, row, _, reason in rejects(tmp_path)} == {
        (1, "duplicate query"), (2, "no query"), (4, "no query"),
    }  # fmt: skip
    assert summary.counts["queries"] == 2


def test_default_fields_that_the_catalogue_lacks(tmp_path: Path) -> None:
    from smar.core.sections.data import DataSettings
    from smar.data.dataset import Dataset
    from smar.data.prepare import prepare

    paths = (
        [str(write_table(tmp_path / "i.parquet", items(brand="b")))],
        [str(write_table(tmp_path / "c.csv", log()))],
    )
    summary = prepare(DataSettings(image_size=16), *paths, [], [], datetime(2026, 1, 9), tmp_path / "out")
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.text_fields == ("title", "brand")
    assert dataset.slice_columns == ()
    assert sum("left out" in note for note in summary.notes) == 2
