"""The report of `smar queries`: report.md with pictures for people, metrics.json and two tables for programs."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smar.core.errors import InputError
from smar.core.files import atomic, write_json
from smar.evaluation.markdown import cell, picture, table
from smar.evaluation.queries import DEPTH, Figures, QueryFindings
from smar.evaluation.thumbnails import shrink

SHOWN = 20
"""Queries of a list."""
MOVED = 10
HOW = f"""## How to read this

- Counted are first pages of searches with words. *Seen*: at least one of its items was reported as shown.
- *Without hits*: the search answered with none. *Never clicked*: seen, and no item of it was ever clicked.
- *Abandoned*: seen, nothing clicked, no further page asked and, where sessions were recorded, nothing else searched for
  within five minutes. Without sessions a further page or another search cannot be told, and counts as abandoned.
- *nDCG of clicks*: of the searches of a query that were clicked, how far up what was clicked stood, in the first
  {DEPTH} (a click counts 1, a cart 2, an order 3 as grade). People click what they see: it is higher than the truth.
- *Replaced*: the same session searched again within five minutes with one word in the place of another, having clicked
  nothing before. Those of which one at least was followed by a click are proposals for synonyms: a person decides.
- *To the pictures*: the gate, asked for a yes or no, would have brought pictures in.
"""


class Shop(Protocol):
    """The items of an index."""

    def row_of(self, item_id: str) -> int | None:
        """Where an item is."""

    def items(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Their columns."""

    def picture(self, row: int) -> bytes | None:
        """The encoded picture."""


def write_queries_report(out: Path, findings: QueryFindings, shop: Shop, least: int) -> dict[str, int]:
    """Write the report into the folder `out`; lists are of queries with at least `least` searches.

    Returns:
        How many queries each list would have, shown or not.

    Raises:
        InputError: `out` has pictures that are of no such report.
    """
    if (out / "pictures").exists() and not (out / "queries.parquet").is_file():
        raise InputError(f"{out / 'pictures'} is there, but {out} is no report: name a new --out, or remove it first.")
    shutil.rmtree(out / "pictures", ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    lists = dict(_lists(findings.queries, least))
    totals = {name: len(rows) for name, (_, rows) in lists.items()}
    write_json(out / "metrics.json", _metrics(findings, totals))
    for name, rows in (("queries", findings.queries), ("replaced", _replaced(findings))):
        with atomic(out / f"{name}.parquet") as partial:
            pq.write_table(rows, partial)
    text = [_head(findings), _trends(findings)]
    text += [_list(name, column, rows, findings, shop, out) for name, (column, rows) in lists.items()]
    text += [_synonyms(findings), HOW]
    with atomic(out / "report.md") as partial:
        partial.write_text("\n".join(text), encoding="utf-8")
    return totals


def _metrics(findings: QueryFindings, totals: dict[str, int]) -> dict[str, Any]:
    periods = {name: asdict(getattr(findings, name)) for name in ("total", "week", "before")}
    return {"from": findings.first.isoformat(), "to": findings.last.isoformat(), "sessions": findings.sessions,
            **periods, "lists": totals}  # fmt: skip


def _replaced(findings: QueryFindings) -> pa.Table:
    kinds = {"word": pa.string(), "by": pa.string(), "searches": pa.int64(), "clicked": pa.int64()}
    return pa.Table.from_pylist([asdict(one) for one in findings.replaced], pa.schema(list(kinds.items())))


def _lists(queries: pa.Table, least: int) -> Iterator[tuple[str, tuple[str, list[dict[str, Any]]]]]:
    """Name of a list -> the column that it is about, and its queries, the worst first."""
    queries = queries.filter(pc.greater_equal(queries["searches"], least))
    rows = queries.to_pylist()
    yield "Without hits", ("empty", _worst(rows, "empty"))
    yield "Never clicked", ("seen", _worst([row for row in rows if not row["clicked"]], "seen"))
    yield "Abandoned after page one", ("abandoned", _worst(rows, "abandoned"))
    yield "Reformulated", ("reformulated", _worst(rows, "reformulated"))
    weak = [row for row in rows if row["ndcg"] is not None and row["clicked"] >= least]
    yield "Weak by nDCG of clicks", ("ndcg", sorted(weak, key=lambda row: (row["ndcg"], row["query"])))


def _worst(rows: Sequence[dict[str, Any]], column: str) -> list[dict[str, Any]]:
    return sorted((row for row in rows if row[column]), key=lambda row: (-row[column], row["query"]))


def _share(part: int, of: int) -> str:
    return f"{part / of:.1%}" if of else "–"


def _shares(figures: Figures) -> list[str]:
    return [
        f"{figures.searches:,}",
        _share(figures.empty, figures.searches),
        _share(figures.clicked, figures.seen),
        _share(figures.abandoned, figures.seen),
        _share(figures.reformulated, figures.searches),
        _share(figures.routed, figures.searches),
    ]


def _head(findings: QueryFindings) -> str:
    heads = ("", "searches", "without hits", "clicked, of those seen", "abandoned, of those seen", "reformulated",
             "to the pictures")  # fmt: skip
    lines = [("all", *_shares(findings.total)), ("last 7 days", *_shares(findings.week))]
    if findings.before.searches:
        lines.append(("7 days before", *_shares(findings.before)))
    period = f"{findings.first:%Y-%m-%d %H:%M} to {findings.last:%Y-%m-%d %H:%M} UTC"
    note = "" if findings.sessions else (
        "\nSessions were not recorded (`--events-sessions`): what a shopper did next is not known.\n"
    )  # fmt: skip
    return f"# Queries\n\nEvents from {period}, {len(findings.queries):,} queries.\n\n{table(heads, lines)}{note}"


def _trends(findings: QueryFindings) -> str:
    """Queries that are asked more, or less, than the week before."""
    if not findings.before.searches:
        return "## Trends\n\nNothing is older than seven days: there is no week before.\n"
    rows = findings.queries.to_pylist()
    rows.sort(key=lambda row: (row["week_before"] - row["this_week"], row["query"]))
    moved = [row for row in rows[:MOVED] if row["this_week"] > row["week_before"]]
    moved += [row for row in rows[-MOVED:] if row["this_week"] < row["week_before"]]
    lines = [
        (
            cell(row["query"]),
            f"{row['this_week']:,}",
            f"{row['week_before']:,}",
            f"{row['this_week'] - row['week_before']:+,}",
        )
        for row in moved
    ]
    return "## Trends\n\n" + table(("query", "last 7 days", "7 days before", "change"), lines)


def _list(name: str, column: str, rows: list[dict[str, Any]], findings: QueryFindings, shop: Shop, out: Path) -> str:
    if not rows:
        return f"## {name}\n\nNone.\n"
    columns = list(dict.fromkeys(("searches", "seen", "clicked", column)))
    lines = []
    for row in rows[:SHOWN]:
        figures = (f"{row[name]:.2f}" if name == "ndcg" else f"{row[name]:,}" for name in columns)
        shown = " ".join(_item(item, shop, out) for item in findings.shown.get(row["query"], ()))
        lines.append((cell(row["query"]), *figures, shown))
    more = f"\nThe worst {SHOWN} of {len(rows):,}; all are in `queries.parquet`.\n" if len(rows) > SHOWN else ""
    return f"## {name}\n\n{table(('query', *columns, 'shown'), lines)}{more}"


def _item(item_id: str, shop: Shop, out: Path) -> str:
    row = shop.row_of(item_id)
    if row is None:
        return picture(None, f"{item_id} (not in the index)")
    content, title = shop.picture(row), str(shop.items([row])[0].get("title") or item_id)
    return picture(shrink(content, out, item_id) if content else None, title)


def _synonyms(findings: QueryFindings) -> str:
    if not findings.replaced:
        return "## Words that were replaced\n\nNone that a click followed.\n"
    lines = [
        (cell(one.word), cell(one.by), f"{one.searches:,}", f"{one.clicked:,}") for one in findings.replaced[:SHOWN]
    ]
    return "## Words that were replaced\n\n" + table(("word", "by", "searches", "then clicked"), lines, 2)
