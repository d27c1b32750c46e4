"""Compaction: a new version made of what an index and its updates hold now."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from smar.core.errors import InputError
from smar.data.dataset import SUGGESTIONS_FILE
from smar.search.column_values import widened
from smar.search.embeddings import DEFAULT_FIELDS, QUERY_FOLDER, read_valid
from smar.search.local.build import RECALL_TARGET, Source, write_version
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.segment import Segment
from smar.search.local.updates import UpdateLog
from smar.search.local.vectors import EXACT_LIMIT
from smar.search.local.versions import building, current_version, locked, publish_version
from smar.search.ranked import Rows, Vectors

Frozen = tuple[EmbeddedIndex, UpdateLog, int]
"""A snapshot, its log, and the byte up to which the log is in the snapshot."""
_BLOCK = 65_536


def compact(folder: Path, freeze: Callable[[], Frozen], exact_limit: int = EXACT_LIMIT) -> str:
    """Build and publish; see `UpdatableIndex.compact`."""
    with locked(folder, "compaction.lock", wait=False):
        frozen, log, offset = freeze()
        with building(folder) as partial:
            target = frozen.manifest.recall_target or RECALL_TARGET
            write_version(_of_index(frozen), partial, exact_limit, target)
            with locked(folder):
                if current_version(folder) != frozen.path:
                    raise InputError(f"{folder} got another version during the compaction, which is given up.")
                UpdateLog(partial).copy(log, offset)
                return publish_version(folder, partial, compacted=True).name


def _of_index(index: EmbeddedIndex) -> Source:
    parts = [(segment, _alive(segment)) for segment in index.segments]
    tables = [segment.catalogue.table.take(rows) for segment, rows in parts]
    lengths = np.concatenate([segment.catalogue.picture_lengths[rows] for segment, rows in parts])
    offsets = np.where(lengths > 0, np.cumsum(lengths) - lengths, -1)
    payload = widened(pa.concat_tables(tables)).append_column("picture_offset", pa.array(offsets))

    def write_pictures(target: Path) -> None:
        with target.open("wb") as out:
            for segment, rows in parts:
                for row in rows[segment.catalogue.picture_lengths[rows] > 0]:
                    out.write(segment.catalogue.picture(int(row)) or b"")

    hybrid = index.manifest.hybrid
    return Source(
        fingerprint=index.fingerprint,
        kind=index.manifest.kind,
        dim=index.dim,
        items=len(index),
        blocks=_blocks(parts),
        payload=payload.append_column("picture_length", pa.array(lengths)),
        query=index.path / QUERY_FOLDER,
        suggestions=index.path / SUGGESTIONS_FILE,
        valid=read_valid(index.path),
        fields=DEFAULT_FIELDS if hybrid is None else hybrid.fields,
        language=None if hybrid is None else hybrid.language,
        write_pictures=write_pictures,
    )


def _alive(segment: Segment) -> Rows:
    return np.arange(len(segment.store)) if segment.dead is None else np.flatnonzero(~segment.dead)


def _blocks(parts: list[tuple[Segment, Rows]]) -> Iterator[Vectors]:
    for segment, rows in parts:
        for start in range(0, len(rows), _BLOCK):
            yield segment.store.vectors[rows[start : start + _BLOCK]]
