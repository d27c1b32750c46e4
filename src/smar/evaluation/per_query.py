"""per-query.parquet: the metrics of every query by slice and system, for tests and plots of one's own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smar.core.files import atomic
from smar.evaluation.measure import Sink
from smar.evaluation.metrics import QueryMetrics, metric_names

PER_QUERY = "per-query.parquet"


@contextmanager
def per_query_file(path: Path, queries: Sequence[str], k: int, clicks: pa.Table) -> Iterator[Sink]:
    """Write the file slice by slice: yields what `measure` calls with each of them.

    Columns: topic (number as in topics.tsv), query, system, slice, recall, precision, nDCG and reciprocal rank under
    the report's names, and `clicks` of the query in the test period (null: the log has none). Means over a slice and
    a system are the report's figures; a metric that a slice does not have is null.

    Args:
        path: the file; whole once the block ends well.
        queries: texts in the report's order.
        k: cut-off in the metrics' names.
        clicks: the test pairs, with columns query and clicks.
    """
    recall, precision, _, ndcg, _ = metric_names(k)
    texts, counts = pa.array(queries, pa.string()), _clicks(clicks, queries)
    word, number = pa.dictionary(pa.int32(), pa.string()), pa.float64()
    kinds = [pa.int32(), pa.string(), word, word, number, number, number, number, pa.int64()]
    names = ["topic", "query", "system", "slice", recall, precision, ndcg, "RR", "clicks"]
    schema = pa.schema(zip(names, kinds, strict=True))
    with atomic(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:

        def write(piece: str, metrics: Mapping[str, QueryMetrics]) -> None:
            found = list(metrics.values())
            rows = np.concatenate([m.rows for m in found])
            system = pa.array(np.repeat(list(metrics), [len(m.rows) for m in found])).cast(pa.string())
            values = [np.concatenate([getattr(m, n) for m in found]) for n in ("recall", "precision", "ndcg", "rr")]
            columns = [pa.array(rows, pa.int32()), texts.take(pa.array(rows)), system.dictionary_encode()]
            columns += [pa.repeat(piece, len(rows)).dictionary_encode()]
            columns += [pa.array(value, from_pandas=True) for value in values]
            columns += [counts.take(pa.array(rows))]
            writer.write_table(pa.table([c.cast(k) for c, k in zip(columns, kinds, strict=True)], schema=schema))

        yield write


def _clicks(pairs: pa.Table, queries: Sequence[str]) -> pa.Array:
    """Clicks of each query, null where it has none, int64 [n_queries]."""
    sums = pairs.group_by("query").aggregate([("clicks", "sum")])
    asked = pa.array(queries, pa.string())
    rows = pc.index_in(asked, value_set=sums["query"].combine_chunks().cast(pa.string()))
    return sums["clicks_sum"].combine_chunks().take(rows).cast(pa.int64())
