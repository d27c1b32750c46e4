"""Items for an index that exists: its columns' types rule, whatever file they come in and whatever else is in it."""

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from shop_tables import settings
from test_formats import COLUMNS, SCHEMA, TEXT, write

from smar.core.errors import InputError
from smar.data.changes import prepare_changes
from smar.data.types import index_types
from smar.search.items import fit

INDEX = pa.schema(
    {
        "item_id": pa.string(),
        "title": pa.string(),
        "name": pa.string(),
        "price": pa.float64(),
        "stock": pa.int64(),
        "small": pa.int16(),
        "cost": pa.decimal128(9, 2),
        "new": pa.bool_(),
        "since": pa.date32(),
        "seen": pa.timestamp("us"),
    }
)


def update(folder: Path, path: str, **changes: Any) -> tuple[pa.Table, dict[str, int]]:
    dataset, rejects, _ = prepare_changes(settings(**changes), [path], [], folder / "work", index_types(INDEX))
    return dataset.items, rejects


def cells(folder: Path, name: str, *values: str, **changes: Any) -> tuple[list[Any], dict[str, int]]:
    folder.mkdir()
    lines = [f"item_id;title;{name}", *[f"i{n};t;{value}" for n, value in enumerate(values)]]
    (folder / "items.csv").write_text("\n".join(lines) + "\n")
    table, rejects = update(folder, str(folder / "items.csv"), **changes)
    return table[name].to_pylist(), rejects


def test_text_stays_as_it_was_written(tmp_path: Path) -> None:
    values = ["38.5", "TRUE", "1e5", "007", "2025-06-01", "1_000"]
    assert cells(tmp_path / "all", "name", *values) == (values, {})
    for at, value in enumerate(values):  # whatever the other rows hold
        assert cells(tmp_path / str(at), "name", value) == ([value], {})


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("price", "18.99", 18.99),
        ("price", "18,99 €", 18.99),
        ("price", "1e-05", 1e-05),
        ("stock", "9007199254740993", 9007199254740993),
        ("stock", "007", 7),
        ("stock", "5.0", 5),
        ("cost", "4.5", Decimal("4.50")),
        ("cost", "1234567.89", Decimal("1234567.89")),
        ("new", "TRUE", True),
        ("new", "0", False),
        ("since", "2025-06-01", date(2025, 6, 1)),
        ("since", "20250601", date(2025, 6, 1)),
        ("seen", "2025-06-01T10:00:00+02:00", datetime(2025, 6, 1, 8)),
        ("seen", "1750000000123", datetime(2025, 6, 15, 15, 6, 40, 123000)),
        ("seen", "2025-06-01", datetime(2025, 6, 1)),
    ],
)
def test_values_thatfit(tmp_path: Path, name: str, value: str, kept: Any) -> None:
    assert cells(tmp_path / "one", name, value) == ([kept], {})


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("price", "ask us", "price is no number"),
        ("price", "9007199254740993.1", "price is no number"),
        ("stock", "4.99", "stock is no whole number of type BIGINT"),
        ("stock", "9223372036854775808", "stock is no whole number of type BIGINT"),
        ("small", "40000", "small is no whole number of type SMALLINT"),
        ("cost", "4.999", "cost is no decimal of type DECIMAL(9, 2)"),
        ("cost", "12345678.9", "cost is no decimal of type DECIMAL(9, 2)"),
        ("new", "maybe", "new is no truth value"),
        ("since", "2025-06-01T10:00:00", "since is no date"),
        ("seen", "soon", "seen is no time"),
    ],
)
def test_a_value_that_does_not_fit_is_a_listed_rejection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: str, reason: str
) -> None:
    kept, rejects = cells(tmp_path / "one", name, value, "")
    assert (kept, rejects) == ([None], {reason: 1})
    assert f"rejected row 0, 'i0': {reason}: '{value}'" in capsys.readouterr().err


def test_what_leaves_two_readings_is_refused_unless_a_setting_says(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'price'.*'1,299'.*data.number_format"):
        cells(tmp_path / "a", "price", "1,299")
    assert cells(tmp_path / "b", "price", "1,299", number_format="1,234.56")[0] == [1299]
    assert cells(tmp_path / "c", "price", "1,299", number_format="1.234,56")[0] == [1.299]
    with pytest.raises(InputError, match=r"'since'.*'03/04/2025'.*data.date_format"):
        cells(tmp_path / "d", "since", "03/04/2025")
    assert cells(tmp_path / "e", "since", "03/04/2025", date_format="%d/%m/%Y")[0] == [date(2025, 4, 3)]


ROWS = st.lists(
    st.fixed_dictionaries({name: st.none() | COLUMNS[name][1] for name in ("price", "small", "new", "since", "seen")}
                          | {"name": TEXT}), min_size=1, max_size=6,
)  # fmt: skip


@hypothesis_settings(
    max_examples=4, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip
@given(ROWS)
def test_every_format_updates_alike(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("update")
    rows = [{"item_id": f"i{n}", "title": f"t {n}", **row} for n, row in enumerate(rows)]
    schema = pa.schema([SCHEMA.field(name) for name in rows[0]])
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        path = write(folder / suffix, "items", suffix, rows, schema)
        table, rejects = update(folder / suffix, path)
        fitted = fit(table.select(list(rows[0])), INDEX)
        assert rejects == {}
        for row, kept in zip(rows, fitted.to_pylist(), strict=True):
            assert kept | row == kept
            assert kept["name"] == row["name"]


def test_numbers_of_a_parquet_file_become_the_index_s_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"item_id": [1, 2], "title": ["a", "b"], "name": [38.5, 7.0]}), tmp_path / "i.parquet")
    table, rejects = update(tmp_path, str(tmp_path / "i.parquet"))
    assert (table["name"].to_pylist(), rejects) == (["38.5", "7"], {})
