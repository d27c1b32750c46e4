"""DuckDB's scripts as Spark's SQL, without a JVM: what sqlglot would leave or turn into something else."""

from datetime import UTC, datetime

import pytest

from smar.core.errors import InputError
from smar.data.database import script
from smar.data.prepare import prepare

sqlglot = pytest.importorskip("sqlglot")
from sqlglot import exp  # noqa: E402

from smar.data.transpile import FUNCTIONS, parse, spark_sql, typed_literal  # noqa: E402

SCRIPTS = ("log", "log_counts", "position_count", "position_weight", "valid_border", "pairs", "write_pairs")
LATER = ("leak_check", "qrels", "suggestions", "rejects")
OF_SPARK = {"octet_length", "conv", "count_if"}
SETTINGS = {"test_share": 0.1, "valid_share": 1 / 3, "drawn": True, "part": 2, "test_from": datetime(2026, 1, 2, 3)}


def one(sql: str, **variables: object) -> str:
    return spark_sql(parse(sql)[0], variables)


@pytest.mark.parametrize("name", [*SCRIPTS, *LATER])
def test_nothing_of_duckdb_is_left(name: str) -> None:
    for statement in parse(script(name)):
        query = statement.find(exp.Query)
        made = sqlglot.parse_one(spark_sql(query, SETTINGS), read="spark")
        called = {call.name.lower() for call in made.find_all(exp.Anonymous)}
        assert called <= OF_SPARK | set(FUNCTIONS)
        assert not [number for number in made.find_all(exp.Literal) if not number.is_string and "." in number.name]
        names = {table.name for table in made.find_all(exp.Table)}
        assert names == {table.name for table in query.find_all(exp.Table)}


@pytest.mark.parametrize(
    ("value", "sql"),
    [
        (True, "TRUE"),
        (7, "7"),
        (-1, "-1"),
        (0.1, "CAST('0.1' AS DOUBLE)"),
        (1e-06, "CAST('1e-06' AS DOUBLE)"),
        (None, "NULL"),
        ("it's \\n", "'it\\'s \\\\n'"),
        (datetime(2026, 1, 2, 3, 4, 5, 6), "CAST('2026-01-02 03:04:05.000006' AS TIMESTAMP_NTZ)"),
    ],
)
def test_a_variable_is_a_literal_of_its_type(value: object, sql: str) -> None:
    assert one("SELECT getvariable('x')", x=value) == f"SELECT {sql}"


def test_a_time_with_a_zone_is_refused() -> None:
    """TIMESTAMP_NTZ would drop the zone in silence."""
    with pytest.raises(ValueError, match="has a zone"):
        typed_literal(datetime(2026, 1, 1, tzinfo=UTC))


def test_a_variable_that_is_not_set_is_null() -> None:
    assert one("SELECT getvariable('later')") == "SELECT NULL"


def test_macros_are_put_in_with_what_they_call() -> None:
    made = one("SELECT hash_part(clean_query(a), t.b) FROM t", test_share=0.1, valid_share=0.2)
    assert "OCTET_LENGTH((a))" in made
    assert "NORMALISE((a))" in made
    assert "CONV(SUBSTRING(MD5(" in made
    assert "/ CAST('4294967296.0' AS DOUBLE)" in made


@pytest.mark.parametrize(
    ("duckdb", "spark"),
    [
        ("FROM t WHERE a > 1.5", "SELECT * FROM t WHERE a > CAST('1.5' AS DOUBLE)"),
        ("SELECT a.* EXCLUDE (b) FROM a", "SELECT a.* EXCEPT (b) FROM a"),
        ("SELECT count_if(a) FILTER (b) FROM t", "SELECT COUNT_IF(a) FILTER(WHERE b) FROM t"),
        ("SELECT arg_min(a, b) FROM t", "SELECT MIN_BY(a, b) FROM t"),
        ("SELECT a FROM t ORDER BY a", "SELECT a FROM t ORDER BY a NULLS LAST"),
        ("SELECT a, sum(b) FROM t GROUP BY ALL", "SELECT a, SUM(b) FROM t GROUP BY ALL"),
        ("FROM a SEMI JOIN b USING (c)", "SELECT * FROM a SEMI JOIN b USING (c)"),
        ("SELECT strlen(a) FROM t", "SELECT OCTET_LENGTH(a) FROM t"),
        ("FROM read_parquet('/a b/c')", "SELECT * FROM parquet.`file:///a b/c`"),
    ],
)
def test_a_form_of_duckdb(duckdb: str, spark: str) -> None:
    assert one(duckdb) == spark


def test_floor_and_casts_keep_doubles_that_are_no_bigint() -> None:
    floor, cast = one("SELECT floor(a)"), one("SELECT TRY_CAST(a AS BIGINT)")
    assert floor.endswith("THEN CAST(FLOOR(a) AS DOUBLE) ELSE a END")
    assert cast == "SELECT CASE WHEN a < CAST('9.223372036854776e+18' AS DOUBLE) THEN TRY_CAST(a AS BIGINT) END"


def test_a_replacement_of_one_match_is_refused() -> None:
    with pytest.raises(ValueError, match="replaces all matches"):
        one("SELECT regexp_replace(a, 'b', 'c')")


def test_the_engine_is_checked_first() -> None:
    with pytest.raises(InputError, match="duckdb, spark"):
        prepare(None, "nothing", engine="flink")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is for --engine spark"):
        prepare(None, "nothing", spark_master="yarn")  # type: ignore[arg-type]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from smar.data.spark import session

    monkeypatch.setitem(__import__("sys").modules, "pyspark.errors", None)
    with pytest.raises(InputError, match=r"pip install 'smar\[spark\]'"), session(None):
        pass
