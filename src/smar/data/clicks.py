"""Search log -> weighted pairs, split without leaks, and qrels: the order of the SQL in ``sql/``.

The log itself never enters Python. It is read three times: rows by fate, clicks by part and position,
pairs (and once more for the rejected rows, if there are any).
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from smar.core.errors import InputError
from smar.core.sections.data import DataSettings
from smar.data.database import Engine, copy, literal, number, quote, script, set_variables
from smar.data.frequent_queries import write_suggestions
from smar.data.search_log import open_log
from smar.data.tables import ROW, Table
from smar.data.times import DAY_FIRST, day_first

PARTS = ("train", "valid", "test")
_OLD = datetime(1990, 1, 1)


class LeakError(RuntimeError):
    """The written files break a rule of the split: a defect of smar, never of the input."""


@dataclass(frozen=True)
class Split:
    """Where the parts begin; a log without time has no borders."""

    test_from: datetime | None
    valid_from: datetime | None
    note: str | None = None


@dataclass(frozen=True)
class LogCounts:
    """What became of the log's rows and clicks."""

    rejected: dict[str, int]
    """Reason -> rows."""
    positives: int
    """Accepted rows that were clicked or ordered."""
    pairs: dict[str, int]
    """Part -> rows of its file."""
    clicks: dict[str, int]
    """Part -> clicks in its file."""
    seen_in_train: int
    """Pairs of valid and test that were clicked in train, too."""
    dropped_clicks: int
    """Clicks of valid and test whose pair was dropped for that reason (``repeat_pairs: drop``)."""
    split: Split
    irrelevant: int | None
    """Pairs whose relevance is 0 or less; None where the table has no relevance."""
    notes: tuple[str, ...]


def build_pairs(
    con: Engine, table: Table, settings: DataSettings, test_from: date | datetime | None, folder: Path
) -> LogCounts:
    """Write ``pairs/*.parquet`` and ``qrels.parquet`` into `folder`; needs the SQL table ``item``.

    Raises:
        InputError: missing columns, no known item, no click, or an empty training or test period.
        LeakError: the written files do not pass the leak check.
    """
    log = open_log(con, table, settings)
    if not log.timed and test_from is not None:
        raise InputError("--test-from needs a log with the columns timestamp and clicked; this table has neither.")
    rejected, period = _count_rows(con, table)
    if log.timed and settings.date_format is None and rejected.get("no readable timestamp"):
        _refuse_days(con, table)
    split = _borders(settings, test_from, period)
    set_variables(con, test_from=split.test_from, valid_from=split.valid_from)
    con.execute(script("position_count"))
    positives = number(con, "SELECT sum(clicks) FROM position_count")
    drawn = log.parted and not number(con, "SELECT sum(clicks) FROM position_count WHERE part = 1")
    set_variables(con, valid_border=-1)
    if drawn:
        con.execute(script("valid_border"))
    if log.timed:
        split = _check_borders(con, split)
        set_variables(con, valid_from=split.valid_from)
    con.execute(script("position_weight"))
    con.execute(script("pairs"))
    pairs, clicks, dropped = _write_parts(con, settings, folder)
    if not (pairs["train"] and pairs["test"]):
        advice = "give rows of both in its column split" if log.parted else "give more clicks, change data.test_share"
        raise InputError(
            f"--clicks: the split left {pairs['train']} training and {pairs['test']} test pairs of "
            f"{positives} clicks; {advice}, or data.repeat_pairs."
        )
    _check_leaks(con, positives, dropped)
    copy(con, script("qrels"), folder / "qrels.parquet")
    irrelevant = number(con, "SELECT count(*) FROM judged WHERE clicks = 0") if log.graded else None
    con.execute("DROP VIEW pair; DROP TABLE judged")
    write_suggestions(con, settings, folder)
    seen = number(con, "SELECT count_if(seen_in_train) FROM (FROM valid UNION ALL FROM test)")
    notes = (
        *log.notes,
        *filter(None, [improbable_span(period)]),
        *_split_notes(drawn, pairs["valid"], settings),
        *_label_notes(irrelevant),
    )
    return LogCounts(rejected, positives, pairs, clicks, seen, dropped, split, irrelevant, notes)


def _split_notes(drawn: bool, valid: int, settings: DataSettings) -> list[str]:
    if not drawn:
        return []
    share = f"clicks: column 'split' names no validation pairs: {settings.valid_share:.0%} of the training queries"
    return [f"{share} ({valid:,} pairs) are taken for it"]


def _label_notes(irrelevant: int | None) -> list[str]:
    if not irrelevant:
        return []
    return [
        f"clicks: {irrelevant:,} pairs are judged irrelevant: in no part, and 0 in the qrels where they are of test"
    ]


def _count_rows(con: Engine, table: Table) -> tuple[dict[str, int], tuple[datetime | None, datetime | None]]:
    """Rows by reason of rejection, and the time range of the accepted clicks (None for a table without time)."""
    counted = con.execute(script("log_counts")).fetchall()
    rejected = {str(reason): int(rows) for reason, rows, _, _, _ in counted if reason is not None}
    for reason, _, clicks, first, last in counted:
        if reason is None and clicks:
            return rejected, (first, last)
        if reason is None:
            raise InputError("--clicks: the log has no click: no accepted row has clicked (or ordered) true.")
    reasons = ", ".join(f"{reason}: {rows:,}" for reason, rows in rejected.items())
    advice = ""
    if "no readable timestamp" in rejected:
        _refuse_days(con, table)
        seen = _examples(con, f"SELECT {quote(table.column('timestamp') or '')} FROM {table.raw} LIMIT 3")
        advice = f" Times seen: {seen}. data.date_format says how to read them, for example %d.%m.%Y %H:%M."
    elif "unknown item" in rejected:
        seen = _examples(con, "SELECT item_id FROM log_source WHERE item_id IS NOT NULL LIMIT 3")
        known = _examples(con, "SELECT item_id FROM item ORDER BY item_index LIMIT 3")
        advice = (
            f" No row names an item of the catalogue: the log's item_id are {seen}, the catalogue's {known}. "
            "Give tables that belong together, or map item_id in data.columns."
        )
    raise InputError(f"--clicks: every one of the {table.rows:,} rows was rejected ({reasons}).{advice}")


def _examples(con: Engine, select: str) -> str:
    return ", ".join(repr(row[0]) for row in con.execute(select).fetchall())


def _refuse_days(con: Engine, table: Table) -> None:
    """Days such as 03/04/2025 are not guessed at, where most rows have them."""
    if table.type("timestamp") != "VARCHAR":
        return
    day = f"trim({quote(table.column('timestamp') or '')})"
    like = f"regexp_full_match({day}, {literal(DAY_FIRST)})"
    examples = f"min_by({day}, {ROW}, 3) FILTER ({like})"
    count, seen = con.execute(f"SELECT count_if({like}), {examples} FROM {table.raw}").fetchall()[0]
    if 2 * count > table.rows:
        raise day_first(f"--clicks: column {table.column('timestamp')!r}", seen)


def improbable_span(period: tuple[datetime | None, datetime | None]) -> str | None:
    """What to say about a log whose clicks are too old or in the future; None where they are not."""
    first, last = period
    if first is None or last is None:
        return None
    old, late = first < _OLD, last > datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
    if not (old or late):
        return None
    why = " and ".join(["before 1990"] * old + ["after tomorrow"] * late)
    return (
        f"clicks: the log's clicks run from {first} to {last}, {why}: that is improbable. Look at its timestamps; "
        "data.date_format says how they are written"
    )


def _borders(
    settings: DataSettings, test_from: date | datetime | None, period: tuple[datetime | None, datetime | None]
) -> Split:
    """Test: from the date or the last ``test_share`` of the time; valid: the last ``valid_share`` before."""
    first, last = period
    if first is None or last is None:
        return Split(None, None)
    test = last - (last - first) * settings.test_share if test_from is None else _utc(test_from)
    return Split(test, test - max(test - first, timedelta(0)) * settings.valid_share)


def _utc(moment: date | datetime) -> datetime:
    """Naive UTC time of a date or a time with or without zone."""
    if not isinstance(moment, datetime):
        return datetime.combine(moment, time())
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _check_borders(con: Engine, split: Split) -> Split:
    """Refuse an empty training or test period; an empty validation period takes the last click before the test."""
    rows = con.execute(
        "SELECT part, min(first_click), max(last_click) FROM position_count GROUP BY part HAVING sum(clicks) > 0"
    ).fetchall()
    parts = {part for part, _, _ in rows}
    first, last = min(row[1] for row in rows), max(row[2] for row in rows)
    where = f"The log's clicks run from {first} to {last}; the test period starts at {split.test_from}."
    if 2 not in parts:
        raise InputError(f"the test period holds no click. {where} Give an earlier --test-from.")
    if parts == {2}:
        raise InputError(f"no click is left for training. {where} Give a later --test-from.")
    if parts == {0, 1, 2}:
        return split
    before = max(row[2] for row in rows if row[0] < 2)
    if first == before:
        note = "validation has no pairs: all clicks before the test period have the same time"
        return Split(split.test_from, split.test_from, note)
    return Split(split.test_from, before, f"validation starts at {before}, the last click before the test period")


def _write_parts(con: Engine, settings: DataSettings, folder: Path) -> tuple[dict[str, int], dict[str, int], int]:
    """Write each part, then count its rows and clicks in the file; the last number: dropped clicks."""
    (folder / "pairs").mkdir()
    con.execute(
        "SET VARIABLE mean_weight = (SELECT approximate(sum(total_weight)) / count(*) FROM pair WHERE part = 0)"
    )
    pairs, clicks = {}, {}
    for place, part in enumerate(PARTS):
        path = folder / "pairs" / f"{part}.parquet"
        set_variables(con, part=place)
        copy(con, script("write_pairs"), path)
        con.execute(f"CREATE TEMP VIEW {part} AS SELECT * FROM read_parquet({literal(path)})")
        pairs[part] = number(con, f"SELECT count(*) FROM {part}")
        clicks[part] = number(con, f"SELECT sum(clicks) FROM {part}")
    dropped = 0
    if settings.repeat_pairs == "drop":
        dropped = number(
            con,
            "SELECT sum(clicks) FROM (FROM pair WHERE part > 0) SEMI JOIN train USING (query, item_index)",
        )
    return pairs, clicks, dropped


def _check_leaks(con: Engine, positives: int, dropped: int) -> None:
    set_variables(con, positives=positives, dropped_clicks=dropped)
    broken = [f"{name} ({rows} rows)" for name, rows in con.execute(script("leak_check")).fetchall() if rows]
    if broken:
        raise LeakError("the leak check failed: " + "; ".join(broken))
