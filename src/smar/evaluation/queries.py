"""`smar queries`: what events tell of each query, and of the words that shoppers try in place of others."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import duckdb
import numpy as np
import pyarrow as pa

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.data.database import Connection, script
from smar.data.event_tables import open_events
from smar.evaluation.metrics import Relevance, per_query

DEPTH = 24
"""Positions that nDCG looks at."""
WEEK = timedelta(days=7)
_SHOWN = 6
"""Items of a query that the report shows."""
_COUNTS = ", ".join(
    f"coalesce(count_if({condition}), 0)"
    for condition in ("true", "hits = 0", "shown > 0", "clicks > 0", "abandoned", "reformulated", "routed")
)
_GRADES = {"click": 1, "cart": 2, "order": 3}


@dataclass(frozen=True)
class Figures:
    """Searches of a period: all, without hits, seen, clicked, abandoned, reformulated, sent to the pictures."""

    searches: int
    empty: int
    seen: int
    clicked: int
    abandoned: int
    reformulated: int
    routed: int


@dataclass(frozen=True)
class Replaced:
    """A word that shoppers put in the place of another: in how many searches, and after how many they clicked."""

    word: str
    by: str
    searches: int
    clicked: int


@dataclass
class QueryFindings:
    """What the report tells.

    queries: a row a query, of `asked` in SQL and `ndcg` (null without a click), the most frequent first; shown: query
    -> ids of the items most shown for it, by position; week, before: the last seven days and the seven before.
    """

    first: datetime
    last: datetime
    sessions: bool
    total: Figures
    week: Figures
    before: Figures
    queries: pa.Table
    replaced: list[Replaced]
    shown: dict[str, list[str]] = field(default_factory=dict)


def find_queries(folders: Sequence[StrPath]) -> QueryFindings:
    """Read events and count.

        find_queries(["events"]).total.searches

    Raises:
        InputError: a folder holds no events, or none of a search with words.
    """
    with duckdb.connect(":memory:") as con:
        open_events(con, folders)
        con.execute(script("searches"))
        first, last, sessions = con.execute(
            "SELECT min(timestamp), max(timestamp), count(session_id) FROM search"
        ).fetchall()[0]
        if last is None:
            raise InputError(f"{', '.join(map(str, folders))}: no event tells what was searched for.")
        con.execute("SET VARIABLE week = $1::TIMESTAMP", [last - WEEK])
        con.execute("SET VARIABLE before = $1::TIMESTAMP", [last - 2 * WEEK])
        con.execute(script("queries_asked"))
        con.register("measured", _ndcg(con))
        queries = con.sql(
            "SELECT asked.*, measured.ndcg FROM asked LEFT JOIN measured USING (query) ORDER BY searches DESC, query"
        ).to_arrow_table()
        total, week, before = (
            Figures(
                *con.execute(
                    f"SELECT {_COUNTS} FROM search WHERE timestamp BETWEEN $1 AND $2", list(period)
                ).fetchall()[0]
            )
            for period in ((first, last), (last - WEEK, last), (last - 2 * WEEK, last - WEEK))
        )
        found = QueryFindings(first, last, sessions > 0, total, week, before, queries, _replaced(con))
        found.shown = _shown(con)
    return found


def _ndcg(con: Connection) -> pa.Table:
    """Mean nDCG of a query's searches that were clicked: query, ndcg. What was clicked is relevant there."""
    grades = " ".join(f"WHEN '{action}' THEN {grade}" for action, grade in _GRADES.items())
    rows = con.execute(f"""
        SELECT dense_rank() OVER (ORDER BY query_id) - 1 AS number, event.query,
               dense_rank() OVER (ORDER BY object_id) - 1 AS item, min(position) AS place,
               max(CASE action_name {grades} ELSE 0 END) AS grade
        FROM event SEMI JOIN (FROM search WHERE clicks > 0) USING (query_id)
        GROUP BY query_id, event.query, object_id
        ORDER BY number, place NULLS LAST, item""").fetchnumpy()
    number, item = (rows[name].astype(np.int64) for name in ("number", "item"))
    searches = int(number.max(initial=-1)) + 1
    starts = np.searchsorted(number, np.arange(searches))
    ranked = np.full((searches, DEPTH), -1, np.int64)
    place = np.arange(len(number)) - starts[number] if searches else number
    inside = place < DEPTH
    ranked[number[inside], place[inside]] = item[inside]
    relevance = Relevance.from_pairs(number, item, rows["grade"], searches)
    found = per_query(ranked, relevance, DEPTH)
    each = pa.table({"query": pa.array(rows["query"][starts][found.rows], pa.string()), "ndcg": found.ndcg})
    return each.group_by("query").aggregate([("ndcg", "mean")]).rename_columns(["query", "ndcg"])


def _shown(con: Connection) -> dict[str, list[str]]:
    rows = con.execute(f"""
        SELECT query, list(object_id ORDER BY place, object_id) FROM (
            SELECT query, object_id, avg(position) AS place FROM event WHERE query <> '' AND action_name = 'impression'
            GROUP BY query, object_id
            QUALIFY row_number() OVER (PARTITION BY query ORDER BY count(*) DESC, avg(position), object_id) <= {_SHOWN}
        ) GROUP BY query""").fetchall()
    return dict(rows)


def _replaced(con: Connection) -> list[Replaced]:
    """Words that one session puts in each other's place, with a click afterwards at least once; frequent ones first."""
    rows = con.execute("""SELECT query, next_query, count(*), count_if(next_clicks > 0) FROM search
        WHERE reformulated GROUP BY ALL""").fetchall()
    searches, clicked = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for query, following, count, clicks in rows:
        for pair in exchanged(query, following):
            searches[pair] += count
            clicked[pair] += clicks
    found = [Replaced(*pair, count, clicked[pair]) for pair, count in searches.items() if clicked[pair]]
    return sorted(found, key=lambda one: (-one.searches, -one.clicked, one.word, one.by))


def exchanged(query: str, following: str) -> Iterator[tuple[str, str]]:
    """The word of a query in whose place the following one has another; none where one is the other's begin.

    >>> [list(exchanged("red sofa", other)) for other in ("red couch", "red sofas", "blue couch")]
    [[('sofa', 'couch')], [], []]
    """
    before, after = set(query.split()), set(following.split())
    gone, come = before - after, after - before
    if len(gone) == len(come) == 1:
        old, new = gone.pop(), come.pop()
        if not (old.startswith(new) or new.startswith(old)):
            yield old, new
