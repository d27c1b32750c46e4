"""The judgements and rankings as TREC files, so that any tool of the field can check or extend the report.

REPORT/topics.tsv            number, query
REPORT/qrels.trec            number 0 item_id grade
REPORT/runs/MODEL.trec       number Q0 item_id place score MODEL

Tools sort a run by score and ignore the place, and break ties in their own ways. The score written is therefore
the depth minus the place: the order is the report's, whoever reads it.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from smar.core.files import atomic
from smar.evaluation.metrics import Integers, Relevance

_PLAIN = pa_csv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")


def document_id(item_id: str) -> str:
    """An item_id as TREC files can hold it: white space, quotes and % become %XX, everything else stays."""
    return re.sub(r'[\s%"]', lambda found: quote(found[0], safe=""), item_id)


def write_trec(
    out: Path,
    queries: Sequence[str],
    item_ids: Sequence[str],
    relevance: Relevance,
    rankings: Mapping[str, Integers],
) -> None:
    """Write topics, judgements and one run per model into the folder `out`; runs of an earlier report go.

    Args:
        out: an existing folder.
        queries: texts; the topic is the query's number from 0.
        item_ids: of the items, by row.
        relevance: of the same queries and items.
        rankings: model name -> item rows [n_queries, depth], -1 for none; "/" in a name makes a folder.
    """
    shutil.rmtree(out / "runs", ignore_errors=True)
    ids = pa.array([document_id(item) for item in item_ids], pa.string())
    with atomic(out / "topics.tsv") as partial:  # by hand: pyarrow writes no quotes where it does not quote
        lines = (f"{number}\t{' '.join(query.split())}\n" for number, query in enumerate(queries))
        partial.write_text("".join(lines), encoding="utf-8", newline="\n")
    judged = [relevance.query, "0", ids.take(pa.array(relevance.items)), relevance.grades]
    _write(out / "qrels.trec", judged)
    for model, ranked in rankings.items():
        query, place = np.nonzero(ranked >= 0)
        path = out / "runs" / f"{model}.trec"
        path.parent.mkdir(parents=True, exist_ok=True)
        score = ranked.shape[1] - place
        _write(path, [query, "Q0", ids.take(pa.array(ranked[query, place])), place + 1, score, model])


def _write(path: Path, columns: Sequence[pa.Array | Integers | str]) -> None:
    """One line a row; a string stands in every row."""
    rows = len(columns[0])
    arrays = [pa.repeat(column, rows) if isinstance(column, str) else pa.array(column) for column in columns]
    with atomic(path) as partial:
        pa_csv.write_csv(pa.Table.from_arrays(arrays, [str(n) for n in range(len(arrays))]), partial, _PLAIN)
