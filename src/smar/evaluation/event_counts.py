"""What the sessions of an experiment did, counted in the folder of events."""

from dataclasses import dataclass

import duckdb
import numpy as np
import numpy.typing as npt

from smar.evaluation.metrics import Floats

ACTIONS = ("click", "cart", "order")
_COUNTS = ", ".join(
    f"count(DISTINCT (query_id, object_id)) FILTER (action_name = '{action}') AS {action}" for action in ACTIONS
)
_UNIT = "coalesce(session_id, query_id)"
_SPLIT = f"""
SELECT min(variant) AS variant, count(DISTINCT variant) > 1 AS mixed, bool_and(session_id IS NULL) AS alone,
    count(*) FILTER (action_name = 'impression') AS impressions, {_COUNTS}
FROM (
    SELECT variant, session_id, query_id, action_name, object_id FROM event
    UNION ALL SELECT variant, session_id, query_id, 'impression', NULL FROM searched  -- sessions that saw nothing
) WHERE variant IS NOT NULL GROUP BY {_UNIT} ORDER BY {_UNIT}
"""
_MIXED = """
SELECT count(*) FROM (SELECT 1 FROM event GROUP BY query_id HAVING count(DISTINCT variant) > 1)
"""
_TEAMS = f"""
SELECT variant, count(DISTINCT (query_id, object_id)) AS credit, {_UNIT} AS unit
FROM event WHERE variant IS NOT NULL AND action_name = ? GROUP BY ALL
"""


@dataclass(frozen=True)
class Units:
    """Sessions, or searches of which no session is known: the variant of each [n], and whether it saw several.

    `counts` are items by action [n], each of them once a search; `mixed_searches` is how many searches showed items of
    several variants.
    """

    variants: npt.NDArray[np.object_]
    mixed: npt.NDArray[np.bool_]
    counts: dict[str, Floats]
    impressions: int
    without_session: int
    mixed_searches: int


def read_split(con: duckdb.DuckDBPyConnection) -> Units:
    """Every session with what it did."""
    columns = con.execute(_SPLIT).fetchnumpy()
    (mixed,) = con.execute(_MIXED).fetchone() or (0,)
    return Units(
        np.asarray(columns["variant"], object),
        np.asarray(columns["mixed"], bool),
        {action: np.asarray(columns[action], np.float64) for action in ACTIONS},
        int(np.sum(columns["impressions"])),
        int(np.sum(columns["alone"])),
        mixed,
    )


def read_teams(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, Floats]]:
    """Action -> team -> items that it was credited with, of each session that has any [n]."""
    credit: dict[str, dict[str, Floats]] = {}
    names = [name for (name,) in con.execute("SELECT DISTINCT variant FROM event WHERE variant IS NOT NULL").fetchall()]
    for action in ACTIONS:
        found = con.execute(_TEAMS, [action]).fetchnumpy()
        units, places = np.unique(np.asarray(found["unit"], str), return_inverse=True)
        credit[action] = {name: np.zeros(len(units)) for name in names}
        for name, of in credit[action].items():
            mask = np.asarray(found["variant"], object) == name
            of[places[mask]] = found["credit"][mask]
    return credit
