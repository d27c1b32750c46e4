"""Attribute truth of the real catalogue of docs/results.md as judgements for `smar evaluate --qrels`.

The folder's qrels say which items fit a query. This adds the column `hidden`: the query asks a colour, and the item's
title, as the model sees it, does not name that colour. With it the report has hidden R@50: what only the picture finds.

    python examples/fashion_truth.py ../shared/data/myntra truth.parquet
    smar evaluate run dataset --qrels truth.parquet --out report-truth
"""

import argparse
from pathlib import Path

import duckdb


def write_truth(folder: Path, out: Path) -> tuple[int, int]:
    """Write query, item_id, relevance, hidden as Parquet; return the number of judgements and of hidden ones.

    Args:
        folder: with items.parquet (item_id, title_colours_shown), queries.parquet (query, constraints: JSON that may
            hold "colour") and qrels.parquet (query, item_id, relevance).
        out: the file to write.
    """
    con = duckdb.connect()
    con.execute(f"""
        COPY (
            SELECT qrels.query, qrels.item_id, qrels.relevance,
                coalesce(NOT list_contains(items.title_colours_shown, asked.colour), false) AS hidden
            FROM '{folder / "qrels.parquet"}' AS qrels
            JOIN '{folder / "items.parquet"}' AS items USING (item_id)
            JOIN (SELECT query, constraints::JSON ->> 'colour' AS colour FROM '{folder / "queries.parquet"}') AS asked
                USING (query)
            ORDER BY qrels.query, qrels.item_id
        ) TO '{out}' (FORMAT parquet, COMPRESSION zstd)
    """)
    rows = con.execute(f"SELECT count(*), count(*) FILTER (hidden) FROM '{out}'").fetchall()
    return int(rows[0][0]), int(rows[0][1])


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    judgements, hidden = write_truth(options.folder, options.out)
    print(f"{options.out}: {judgements:,} judgements, {hidden:,} of them hidden")


if __name__ == "__main__":
    main()
