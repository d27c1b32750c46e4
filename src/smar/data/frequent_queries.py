"""Queries to suggest while somebody types: the log's frequent ones, and the filters that go with each.

`smar prepare` keeps those that enough shoppers asked, `smar embed` looks up what was clicked after each, the index
carries them along. Rarer queries stay behind: they may name a person.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from smar.core.sections.data import DataSettings
from smar.data.database import Engine, copy, script, set_variables
from smar.data.dataset import OWN_COLUMNS, PARTS, SUGGESTIONS_FILE, Dataset

MOST = 100_000
MOST_LETTERS = 100
_DIFFERENT = 1000  # values that a column to filter by may have
_SHARE = 0.5  # of a query's clicks that have a value which is suggested with it
_NO_FILTER = frozenset({"item_id", "title", "image_status"})
FILTER = pa.struct([("column", pa.string()), ("value", pa.string()), ("share", pa.float32())])


def write_suggestions(con: Engine, settings: DataSettings, folder: Path) -> None:
    """Write the frequent queries of the log (view ``log``) into a dataset folder, none where none are wanted."""
    if settings.suggest_from:
        set_variables(con, suggest_from=settings.suggest_from, most_letters=MOST_LETTERS, most_suggestions=MOST)
        copy(con, script("suggestions"), folder / SUGGESTIONS_FILE)


def with_filters(dataset: Dataset) -> pa.Table | None:
    """The dataset's suggestions with the filters that go with each: query, asked, filters; None where it has none.

    A filter is the value of a text column that at least half of the clicks after the query have.
    """
    found = dataset.suggestions()
    if found is None:
        return None
    pairs = pa.concat_tables(dataset.pairs(part).select(["query", "item_index", "clicks"]) for part in PARTS)
    place = pc.index_in(pairs["query"].combine_chunks(), found["query"].combine_chunks())
    pairs = pairs.append_column("place", place).filter(pc.is_valid(place))
    filters: list[list[dict[str, object]]] = [[] for _ in range(found.num_rows)]
    for name in dataset.items.column_names:
        kind = dataset.items.schema.field(name).type
        if pa.types.is_string(kind) and name not in _NO_FILTER | OWN_COLUMNS:
            _add(filters, pairs, dataset.items[name], name)
    return found.append_column("filters", pa.array(filters, pa.list_(FILTER)))


def _add(filters: list[list[dict[str, object]]], pairs: pa.Table, column: pa.ChunkedArray, name: str) -> None:
    """Add the column's commonest value of each suggestion."""
    if not 2 <= pc.count_distinct(column, mode="only_valid").as_py() <= _DIFFERENT:
        return
    clicks = pa.table({"place": pairs["place"], "value": column.take(pairs["item_index"]), "clicks": pairs["clicks"]})
    each = clicks.group_by(["place", "value"]).aggregate([("clicks", "sum")])
    total = np.bincount(each["place"].to_numpy(), each["clicks_sum"].to_numpy(), len(filters))
    for place, value, count in zip(*(each[of].to_pylist() for of in ("place", "value", "clicks_sum")), strict=True):
        if value is not None and count > _SHARE * total[place]:
            filters[place].append({"column": name, "value": value, "share": count / total[place]})
