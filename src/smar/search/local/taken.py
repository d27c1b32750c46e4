"""Columns of some rows of an index, whichever segments hold them: what sorting, cards, ranking and facets read."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from smar.core.errors import InputError
from smar.search.column_values import Columns, Kind, Mask, kind_of, one_array
from smar.search.local.segment import Segment
from smar.search.local.vectors import Allowed
from smar.search.ranked import Rows

_COMPARED = (Kind.TEXT, Kind.NUMBER, Kind.FLAG, Kind.MOMENT, Kind.EMPTY)


def kind_in(schema: pa.Schema, name: str, what: str) -> Kind:
    """Kind of a column that values are compared of; raises InputError where there is none such, or it holds lists."""
    if name not in schema.names:
        raise InputError(f"{what}: unknown column {name[:100]!r}. Columns: {', '.join(schema.names)}.")
    kind = kind_of(schema.field(name).type)
    if kind not in _COMPARED:
        raise InputError(f"{what}: {name} holds {kind}; a column of texts, numbers, dates or true and false is wanted.")
    return kind


def by_segment(segments: Sequence[Segment], rows: Rows) -> Iterator[tuple[Segment, Rows, Rows]]:
    """Each segment that holds some of `rows` int64 [n]: their places in `rows`, and their rows in the segment."""
    base = segments[0]
    if len(segments) == 1 or not len(rows) or rows.max() < len(base.store):
        yield base, np.arange(len(rows)), rows
        return
    for segment in segments:
        places = np.flatnonzero((rows >= segment.first_row) & (rows < segment.first_row + len(segment.store)))
        if len(places):
            yield segment, places, rows[places] - segment.first_row


def numbers(segments: Sequence[Segment], name: str, rows: Rows) -> tuple[npt.NDArray[Any], Mask]:
    """A number, flag or date column of some rows as `Columns.numbers` has it [n], and which have a value [n].

    Decimals that only one segment can hold as whole numbers become float64 in all.
    """
    parts = [(places, segment.catalogue.columns, own) for segment, places, own in by_segment(segments, rows)]
    taken = [columns.numbers(name)[own] for _, columns, own in parts]
    scales = [columns.scale(name) for _, columns, _ in parts]
    if len(set(scales)) > 1:
        taken = [values / 10.0**scale for values, scale in zip(taken, scales, strict=True)]
    if len(parts) == 1:
        return taken[0], parts[0][1].present(name)[parts[0][2]]
    values, present = np.zeros(len(rows), np.result_type(*taken)), np.zeros(len(rows), np.bool_)
    for (places, columns, own), some in zip(parts, taken, strict=True):
        values[places], present[places] = some, columns.present(name)[own]
    return values, present


def floats(segments: Sequence[Segment], name: str, rows: Rows) -> tuple[npt.NDArray[np.float64], Mask]:
    """As `numbers`, in the column's own unit, dates in days since 1970; 0 where there is no value."""
    values, present = np.zeros(len(rows)), np.zeros(len(rows), np.bool_)
    for segment, places, own in by_segment(segments, rows):
        columns = segment.catalogue.columns
        held = columns.present(name)[own]
        values[places] = np.where(held, columns.numbers(name)[own], 0) / columns.unit(name)
        present[places] = held
    return values, present


def texts(segments: Sequence[Segment], name: str, rows: Rows) -> list[str | None]:
    """A text column of some rows [n]."""
    found: list[str | None] = [None] * len(rows)
    for segment, places, own in by_segment(segments, rows):
        taken: list[str | None] = take(segment.catalogue.columns, name, own).to_pylist()
        if len(taken) == len(found):
            return taken
        for place, text in zip(places.tolist(), taken, strict=True):
            found[place] = text
    return found


def take(columns: Columns, name: str, rows: Rows) -> pa.Array:
    """A column at some rows of one segment."""
    return one_array(columns.table[name]).take(pa.array(rows, pa.int64()))


def matching(segments: Sequence[Segment], allowed: Sequence[Allowed | None]) -> Rows:
    """Rows of the index that are `allowed`, one of it a segment, None for all of it; ascending."""
    rows = [
        (np.arange(len(segment.store)) if part is None else np.flatnonzero(part.mask)) + segment.first_row
        for segment, part in zip(segments, allowed, strict=True)
    ]
    return rows[0] if len(rows) == 1 else np.concatenate(rows)
