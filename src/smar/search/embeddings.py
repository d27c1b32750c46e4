"""Reading an embeddings folder: the manifest, and the shards, each checked before it is believed."""

import errno
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field

from smar.core.errors import InputError
from smar.core.files import Manifest, StrPath, verify, xxh3
from smar.data.text import normalise
from smar.search.column_values import widened
from smar.search.query import QueryManifest

PAYLOAD_FILE = "payload.parquet"
PICTURES_FILE = "pictures.bin"
QUERY_FOLDER = "query"
VALID_FILE = "valid.parquet"
"""Validation pairs query, item_id, weight: what nprobe, int8 and hybrid search are tuned and measured on."""
MADE_BY = "smar embed"
INTERNAL_COLUMNS = frozenset({"picture_offset", "picture_length"})
"""Payload columns that locate the picture; neither shown nor filtered on."""
_NORM_TOLERANCE = 1e-2  # vectors may have been stored through bf16
_ROWS = 8_192  # joined at a time
_READ = 1 << 20  # bytes of a column that are held
_BATCH = 65_536  # items that are mapped as one piece
_SAMPLE_QUERIES = 300  # more err hardly less
DEFAULT_FIELDS = ("title", "category", "brand")
"""Columns whose words are searched where embeddings do not say."""


class ShardEntry(BaseModel):
    """One shard file of the manifest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^[\w.-]+$")
    rows: int = Field(ge=0)
    xxh3: str


class EmbeddingManifest(Manifest):
    """``EMBEDDINGS/manifest.json``: written last, so its presence says that every shard is there."""

    format: Literal["smar-embeddings/3"] = "smar-embeddings/3"
    fingerprint: str
    kind: str
    gate: Literal["query", "category"] = "query"
    dim: int = Field(ge=1)
    items: int = Field(ge=0)
    shards: tuple[ShardEntry, ...]
    image_status: dict[str, int] = {}
    text_fields: tuple[str, ...] = ()
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard in item order: `text` and `multimodal` are float32 [rows, k], L2-normalised.

    With an item-side gate `multimodal` is the item's mixture P S_m + (1 - P) S_t, which is shorter.
    """

    item_id: list[str]
    text: npt.NDArray[np.float32]
    multimodal: npt.NDArray[np.float32]

    def joined(self) -> Iterator[npt.NDArray[np.float32]]:
        """[S_m ; S_t] of each item, in blocks [n, 2k] that are small enough for memory to be used again."""
        for start in range(0, len(self.text), _ROWS):
            rows = slice(start, start + _ROWS)
            yield np.concatenate([self.multimodal[rows], self.text[rows]], axis=1)


def not_unit(matrix: npt.NDArray[np.float32], mixed: bool = False) -> int | None:
    """First row [n, k] that is no unit vector; None when all are. A mixture of two unit vectors may be shorter."""
    off = np.sqrt(np.einsum("ij,ij->i", matrix, matrix)) - 1  # a fourth of what numpy's norm takes
    off = np.maximum(off, 0) if mixed else np.abs(off)
    fits = off <= _NORM_TOLERANCE  # written so that NaN fails too
    return None if np.all(fits) else int(np.argmax(~fits))


def _matrix(table: pa.Table, name: str, dim: int, path: Path, mixed: bool = False) -> npt.NDArray[np.float32]:
    kind = table.schema.field(name).type if name in table.column_names else pa.null()
    fits = pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32()
    if not fits or kind.list_size != dim:
        raise InputError(
            f"{path}: column {name} is {kind}, expected fixed_size_list<float>[{dim}]. Run `{MADE_BY}` again."
        )
    column = table[name].combine_chunks()
    if column.null_count:
        raise InputError(f"{path}: column {name} has {column.null_count} nulls. Run `{MADE_BY}` again.")
    matrix: npt.NDArray[np.float32] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, dim)
    if (row := not_unit(matrix, mixed)) is not None:
        raise InputError(f"{path}: row {row} of {name} is not a unit vector.")
    return matrix


class Embeddings:
    """An embeddings folder whose manifest and payload fit together.

    Raises:
        InputError: a file is missing, damaged or does not fit the manifest; the message names the file.
    """

    def __init__(self, path: StrPath, spill: Path | None = None) -> None:
        """`spill` is that of `read_payload`."""
        path = Path(path)
        self.path = path
        self.manifest = EmbeddingManifest.read(path, MADE_BY)
        rows = sum(shard.rows for shard in self.manifest.shards)
        if rows != self.manifest.items:
            raise InputError(
                f"{path / 'manifest.json'} names {rows} rows for {self.manifest.items} items. Run `{MADE_BY}` again."
            )
        self.payload = read_payload(path / PAYLOAD_FILE, self.manifest.items, MADE_BY, spill)

    def shards(self) -> Iterator[Shard]:
        """Each shard in item order, its checksum, shape and item ids verified."""
        start = 0
        for entry in self.manifest.shards:
            yield self.shard(entry, start)
            start += entry.rows

    def shard(self, entry: ShardEntry, start: int) -> Shard:
        """One shard, whose first item is that of row `start`; verified as `shards` does."""
        path = self.path / entry.file
        shard = self._read(path, entry)
        if shard.item_id != self.payload["item_id"].slice(start, entry.rows).to_pylist():
            raise InputError(f"{path}: its items are not those of {PAYLOAD_FILE}. Run `{MADE_BY}` again.")
        return shard

    def valid(self) -> pa.Table | None:
        """Validation pairs (query, item_id, weight), None where the embeddings were made without a log."""
        return read_valid(self.path)

    def _read(self, path: Path, entry: ShardEntry) -> Shard:
        verify(path, entry.xxh3, f"Delete it if it is there, and run `{MADE_BY}` again: it resumes.", xxh3)
        table = pq.read_table(path, use_threads=False)  # on two threads it takes as long, for half as much CPU again
        if table.num_rows != entry.rows:
            raise InputError(
                f"{path} has {table.num_rows} rows, the manifest says {entry.rows}. Run `{MADE_BY}` again."
            )
        dim = self.manifest.dim
        return Shard(
            table["item_id"].to_pylist(),
            _matrix(table, "text", dim, path),
            _matrix(table, "multimodal", dim, path, mixed=self.manifest.gate == "category"),
        )


def read_valid(folder: Path) -> pa.Table | None:
    """The validation pairs of an embeddings folder or index version, None when it has none."""
    path = folder / VALID_FILE
    if not path.exists():
        return None
    try:
        table = pq.read_table(path)
        return table.select(["query", "item_id", "weight"])
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read: {error}. Run `{MADE_BY}` again.") from None


def sample_clicks(valid: pa.Table, most: int) -> dict[str, set[str]]:
    """Clicked items of at most `most` validation queries, in a random order that is always the same."""
    clicked: dict[str, set[str]] = {}
    for query, item_id in zip(valid["query"].to_pylist(), valid["item_id"].to_pylist(), strict=True):
        clicked.setdefault(query, set()).add(item_id)
    queries = sorted(clicked)
    return {queries[at]: clicked[queries[at]] for at in np.random.default_rng(0).permutation(len(queries))[:most]}


def check_items(table: pa.Table, items: int, path: Path, made_by: str) -> None:
    """Raise InputError when the table of the file `path` is not one of `items` items."""
    if "item_id" not in table.column_names or table.num_rows != items:
        raise InputError(
            f"{path} has {table.num_rows} rows and columns {table.column_names}; expected item_id and {items} rows. "
            f"Run `{made_by}` again."
        )


def read_payload(path: Path, items: int, made_by: str, spill: Path | None = None) -> pa.Table:
    """Read the item columns and check that there is one row per item; InputError names the file.

    With `spill`, a folder, they are mapped from a file without a name there, so that they take no memory.
    Columns that have a value everywhere are written as such. Later items may lack one, so that is taken off here.
    """
    try:
        table = widened(pq.read_table(path)).combine_chunks() if spill is None else widened(_spilled(path, spill))
    except FileNotFoundError:
        raise InputError(f"{path} is missing. Run `{made_by}` again.") from None
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:  # of `spill`: the file is not at fault
            raise
        raise InputError(f"{path} cannot be read as Parquet: {error}. Run `{made_by}` again.") from None
    check_items(table, items, path, made_by)
    return table.cast(pa.schema([field.with_nullable(True) for field in table.schema], table.schema.metadata))


def _spilled(path: Path, folder: Path) -> pa.Table:
    with tempfile.NamedTemporaryFile(dir=folder) as place, pq.ParquetFile(path, buffer_size=_READ) as source:
        with pa.OSFile(place.name, "wb") as sink, pa.ipc.new_stream(sink, source.schema_arrow) as out:
            for batch in source.iter_batches(_BATCH):
                out.write_batch(batch)
        return pa.ipc.open_stream(pa.memory_map(place.name)).read_all()


def check_fingerprint(path: Path, fingerprint: str, dim: int) -> None:
    """Refuse a query encoder folder at `path` made by another model than `fingerprint`."""
    query = QueryManifest.read(path, "smar index")
    if query.fingerprint != fingerprint or query.dim != dim:
        raise InputError(
            f"{path / 'manifest.json'}: the query encoder is of model {query.fingerprint} (dim {query.dim}), "
            f"the vectors are of model {fingerprint} (dim {dim}); their scores would mean nothing. "
            "Embed and index again."
        )


def sample_queries(valid: pa.Table | None, payload: pa.Table) -> list[str]:
    """Validation queries; without them beginnings of titles, the nearest thing to a query that every catalogue has."""
    random = np.random.default_rng(0)
    if valid is not None and valid.num_rows:
        queries = sorted(set(valid["query"].to_pylist()))
        return [queries[at] for at in random.permutation(len(queries))[:_SAMPLE_QUERIES]]
    column = "title" if "title" in payload.column_names else "item_id"
    titles = payload[column].take(random.permutation(payload.num_rows)[:_SAMPLE_QUERIES]).to_pylist()
    return [normalise(" ".join((title or "").split()[: 1 + at % 4])) for at, title in enumerate(titles)]
