"""Where tables come from: servers, Arrow files, folders of `datasets`, and tables of a program."""

import functools
import gzip
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import datasets
import duckdb
import fsspec
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from shop_tables import picture, read, run, settings, write_table

from smar.core.errors import InputError
from smar.data.prepare import PrepareSummary, prepare
from smar.data.sources import as_list, find_files

ITEMS = pa.table({
    "item_id": [f"i{n}" for n in range(6)],
    "title": [f"title {n}" for n in range(6)],
    "price": [1.5 * n for n in range(6)],
    "size": pa.array([1, 2, None, 4, 5, 6], pa.int32()),
})  # fmt: skip
CLICKS = pa.table({"query": [f"q{n}" for n in range(40)], "item_id": [f"i{n % 6}" for n in range(40)]})


def made(folder: Path, items: Any, clicks: Any = CLICKS, **changes: Any) -> PrepareSummary:
    return prepare(settings(**changes), items, clicks, out=folder / "out")


def arrow(path: Path, table: pa.Table, stream: bool = False) -> Path:
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)
    return path


def saved(folder: Path, table: pa.Table) -> Path:
    datasets.Dataset(table).save_to_disk(folder, num_shards=2)
    return folder


KINDS = {
    "arrow file": lambda folder: arrow(folder / "items.arrow", ITEMS),
    "arrow stream": lambda folder: str(arrow(folder / "items.arrow", ITEMS, stream=True)),
    "feather": lambda folder: pyarrow.feather.write_feather(ITEMS, folder / "a.feather") or folder / "a.feather",
    "save_to_disk": lambda folder: saved(folder / "saved", ITEMS),
    "pyarrow": lambda folder: ITEMS,
    "record batches": lambda folder: pa.RecordBatchReader.from_batches(ITEMS.schema, ITEMS.to_batches(4)),
    "two tables": lambda folder: [ITEMS.slice(0, 2), ITEMS.slice(2).to_pandas(types_mapper=pd.ArrowDtype)],
    "pandas": lambda folder: ITEMS.to_pandas(types_mapper=pd.ArrowDtype).iloc[::1],
    "pandas with an index": lambda folder: ITEMS.to_pandas(types_mapper=pd.ArrowDtype).set_index("item_id"),
    "polars": lambda folder: pl.from_arrow(ITEMS),
    "duckdb": lambda folder: duckdb.from_arrow(ITEMS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_table_is_read_alike(tmp_path: Path, kind: str) -> None:
    given = KINDS[kind](tmp_path)
    found = find_files(as_list(given), "items", tmp_path)
    assert found.format == "parquet"
    table = pa.concat_tables([pq.read_table(file) for file in found.local], promote_options="permissive")
    assert table.select(ITEMS.column_names).cast(ITEMS.schema).equals(ITEMS)
    assert table.schema.field("size").type == pa.int32()


def test_tables_of_a_program_make_a_dataset(tmp_path: Path) -> None:
    summary = made(tmp_path, ITEMS.to_pandas(), pl.from_arrow(CLICKS))
    assert (summary.counts["items"], summary.counts["clicks"]) == (6, 40)
    assert [row["price"] for row in read(tmp_path, "items.parquet")] == ITEMS["price"].to_pylist()


def test_what_is_no_table_is_told_which_kinds_there_are(tmp_path: Path) -> None:
    for wrong in ({"item_id": ["a"]}, pl.from_arrow(ITEMS).lazy(), datasets.Dataset(ITEMS), 5):
        with pytest.raises(InputError, match=r"is no table that can be read. Allowed: paths, .* pandas, polars"):
            made(tmp_path, wrong)
    with pytest.raises(InputError, match=r"pandas.DataFrame, cannot be read .*item_id"):
        made(tmp_path, pd.DataFrame({"item_id": ["a", 1], "title": ["a", "b"]}))
    (tmp_path / "a.arrow").write_bytes(b"no table at all")
    with pytest.raises(InputError, match=r"a.arrow cannot be read .* Allowed: Arrow IPC"):
        made(tmp_path, str(tmp_path / "a.arrow"))
    whole = arrow(tmp_path / "b.arrow", ITEMS, stream=True).read_bytes()
    (tmp_path / "b.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"b.arrow cannot be read"):
        made(tmp_path, str(tmp_path / "b.arrow"))
    assert not (tmp_path / "out").exists()


def test_pictures_of_a_saved_dataset(tmp_path: Path) -> None:
    """The Image feature is a struct of bytes and path; with a path alone the file lies beside the table."""
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "b.jpg").write_bytes(picture("blue"))
    cells = [{"bytes": picture("red"), "path": None}, {"bytes": None, "path": str(tmp_path / "saved" / "b.jpg")}, None]
    kind = datasets.Features(
        {"item_id": datasets.Value("string"), "title": datasets.Value("string"), "image": datasets.Image()}
    )
    columns = {"item_id": ["i0", "i1", "i2"], "title": ["a", "b", "c"], "image": cells}
    datasets.Dataset.from_dict(columns, features=kind).save_to_disk(tmp_path / "saved")
    summary = made(tmp_path, tmp_path / "saved")
    assert summary.image_status["ok"] == 2
    assert [row["image_status"] for row in read(tmp_path, "items.parquet")] == ["ok", "ok", "missing"]


def test_the_parts_of_a_dataset_dict_are_the_split(tmp_path: Path) -> None:
    parts = {"train": CLICKS.slice(0, 30), "validation": CLICKS.slice(30, 4), "test": CLICKS.slice(34)}
    datasets.DatasetDict({name: datasets.Dataset(part) for name, part in parts.items()}).save_to_disk(tmp_path / "dict")
    summary = made(tmp_path, ITEMS, tmp_path / "dict")
    assert [summary.counts[f"pairs_{part}"] for part in ("train", "valid", "test")] == [30, 4, 6]
    summary = made(tmp_path, ITEMS, tmp_path / "dict" / "train")
    assert summary.counts["log_rows"] == 30
    next((tmp_path / "dict" / "test").glob("*.arrow")).unlink()
    with pytest.raises(InputError, match=r"no complete folder of `datasets.save_to_disk`.*is missing"):
        made(tmp_path, ITEMS, tmp_path / "dict")


def test_pictures_of_a_table_in_memory_start_at_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(picture())
    monkeypatch.chdir(tmp_path)
    summary = made(tmp_path, ITEMS.append_column("image", [["a.jpg"] * 6]))
    assert summary.image_status["ok"] == 6


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A real web server, and the folder that it shows."""
    folder = tmp_path_factory.mktemp("www")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}", folder
        httpd.shutdown()
        thread.join()


def test_tables_of_a_web_server(tmp_path: Path, server: tuple[str, Path]) -> None:
    address, folder = server
    pq.write_table(ITEMS, folder / "items.parquet")
    log = write_table(folder / "log" / "a.csv", CLICKS.slice(0, 20).to_pylist())
    (folder / "log" / "b.csv.gz").write_bytes(gzip.compress(b"query,item_id\n" + b"z,i1\n" * 3))
    made(tmp_path, f"{address}/items.parquet?token=a*b", f"{address}/log/")
    assert [row["size"] for row in read(tmp_path, "items.parquet")] == ITEMS["size"].to_pylist()
    pairs = [row for part in ("train", "valid", "test") for row in read(tmp_path, f"pairs/{part}.parquet")]
    assert len(pairs) == 21
    summary = made(tmp_path, f"{address}/items.parquet", [f"{address}/log/a.csv", str(log)])
    assert summary.counts["log_rows"] == 40
    assert not list(tmp_path.glob("out.partial"))
    with pytest.raises(InputError, match=r"--items http://127.0.0.1:\d+/none.csv: cannot be read \(FileNotFoundError"):
        made(tmp_path, f"{address}/none.csv")


def test_globs_and_folders_of_an_object_store(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for number in range(2):
        with store.open(f"/sources/items/part-{number}.parquet", "wb") as file:
            pq.write_table(ITEMS.slice(3 * number, 3), file)
    store.pipe("/sources/items/_SUCCESS", b"")
    store.pipe("/sources/items/notes.txt", b"no table")
    for path in ("memory://sources/items", "memory://sources/items/part-*.parquet", "memory://sources/**/part*"):
        found = find_files([path], "items", tmp_path / path.replace("/", ""))
        assert [file.name for file in found.local] == ["part-0.parquet", "part-1.parquet"]
        assert found.format == "parquet"
    for path in ("memory://sources/none-*.csv", "memory://nothing"):
        with pytest.raises(InputError, match=r"--items memory://.*(no table is there|cannot be read)"):
            find_files([path], "items", tmp_path)
    saved(tmp_path / "saved", ITEMS)
    store.put(str(tmp_path / "saved"), "/sources/saved", recursive=True)
    summary = made(tmp_path, "memory://sources/saved")
    assert summary.counts["items"] == 6


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("s3://shop/items.parquet", r"--items s3://shop/items.parquet: .*s3fs.* pip install 'smar\[s3\]'"),
        ("gs://shop/items.parquet", r"--items gs://shop/items.parquet: .*gcsfs.* pip install 'smar\[gs\]'"),
        (
            "ftps+x://shop/items.parquet",
            r"ftps\+x:// is no known kind of address. Allowed: https://, s3://, gs://, hf://",
        ),
    ],
)
def test_a_missing_back_end_is_named(tmp_path: Path, path: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("s3fs", "gcsfs"):  # which `make test-cluster` may have installed
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=message):
        find_files([path], "items", tmp_path)


def test_the_hub_needs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match=r"--items hf://datasets/shop/items/a.parquet: cannot be read"):
        find_files(["hf://datasets/shop/items/a.parquet"], "items", tmp_path)


@pytest.mark.parametrize("name", ["log.tsv", "log.tsv.gz", "log.csv"])
def test_a_file_without_a_header(tmp_path: Path, name: str) -> None:
    delimiter = "," if "csv" in name else "\t"
    text = "".join(f"red {n}{delimiter}i{n % 4}\n" for n in range(20)).encode()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else b"\xef\xbb\xbf" + text)
    summary = run(tmp_path, ITEMS.to_pylist(), tmp_path / name, header={"clicks": ("query", "item_id")})
    assert (summary.counts["log_rows"], summary.counts["rejects"]) == (20, 0)
    with pytest.raises(InputError, match=r"data.header.items is for CSV and TSV files; --items is parquet"):
        run(tmp_path, ITEMS.to_pylist(), tmp_path / name, header={"items": ("a", "b")})
