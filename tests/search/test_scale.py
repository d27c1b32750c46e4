"""What a catalogue of ten millions of items or gigabytes of text needs, at small sizes: limits are lowered instead."""

from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pytest

from smar.cli import main
from smar.core.errors import InputError
from smar.data import word_matrix
from smar.search import column_values, embeddings
from smar.search.column_values import one_array, widened
from smar.search.filter_parser import parse_filter
from smar.search.items import Items
from smar.search.local import build, forming, tuning
from smar.search.local.build import build_index
from smar.search.local.forming import Nearest
from smar.search.local.live import UpdatableIndex
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.ordered_table import ordered
from smar.search.local.room import window
from tiny_index import DIM, FINGERPRINT, write_embeddings

ITEMS = 3000


def new_item(name: str) -> Items:
    one = np.eye(1, DIM, dtype=np.float32)
    return Items(FINGERPRINT, pa.table({"item_id": [name]}), one, one, [None])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("scale") / "embeddings", ITEMS)


def test_a_column_beyond_two_gigabytes_gets_offsets_that_reach_through_it() -> None:
    chunk = pa.array(["x" * (1 << 20)] * 64)
    virtual = pa.chunked_array([chunk] * 33)  # 2.1 GB of which 64 MB are there
    table = widened(pa.table({"text": virtual, "row": range(len(virtual))}))
    assert table.schema.types == [pa.large_string(), pa.int64()]
    with pytest.raises(pa.ArrowInvalid, match="overflow"):
        one_array(virtual)
    assert table["text"].slice(2111).to_pylist() == [chunk[0].as_py()]
    lists = pa.table({"tags": pa.chunked_array([pa.array([chunk.to_pylist()])] * 33)})
    assert widened(lists).schema.types == [pa.large_list(pa.large_string())]
    assert widened(table.slice(0, 64)).equals(table.slice(0, 64))


def test_an_index_of_wide_columns_is_searched_filtered_changed_and_compacted(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_index(source, tmp_path / "usual")
    monkeypatch.setattr(column_values, "OFFSETS_REACH", 1000)
    build_index(source, tmp_path / "wide")
    usual, live = EmbeddedIndex.open(tmp_path / "usual"), UpdatableIndex.open(tmp_path / "wide")
    wide = live.snapshot
    assert pa.types.is_large_string(wide.catalogue.table.schema.field("title").type)
    title = usual.catalogue.table["title"][7].as_py()
    chosen = parse_filter(f'title="{title}"', wide.catalogue.table.schema)
    query = usual.encoder.encode(["red dress"])
    for filter in (None, chosen):
        found = wide.search(query, k=20, mode="hybrid", filter=filter)
        assert found == usual.search(query, k=20, mode="hybrid", filter=filter)
    rows = np.arange(20)
    assert wide.catalogue.json(rows) == usual.catalogue.json(rows)
    live.upsert(new_item("new/1"))
    live.refresh()
    before = live.snapshot.search(query, k=20, mode="hybrid")
    live.compact()
    live.refresh()
    assert live.snapshot.catalogue.row_of("new/1") is not None
    assert len(live.snapshot.catalogue) == ITEMS + 1
    assert {hit.item_id for [*hits] in before for hit in hits} <= set(
        live.snapshot.catalogue.table["item_id"].to_pylist()
    )
    assert pa.types.is_large_string(live.snapshot.catalogue.table.schema.field("title").type)


def files_of(version: Path) -> dict[str, bytes]:
    """All but what says when it was built."""
    found = {path.relative_to(version).as_posix(): path for path in version.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name != "manifest.json"}


def test_a_build_in_little_memory_writes_the_same_files(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, exact_limit in (("lists", 1000), ("exact", 10_000)):
        build_index(source, tmp_path / name, exact_limit=exact_limit)
        with monkeypatch.context() as little:
            little.setattr(build, "window", lambda *given: 50_000)  # 3,000 items take some 400,000 bytes
            little.setattr(embeddings, "_BATCH", 500)
            little.setattr(forming, "_ROWS", 64)
            little.setattr(forming, "_UNWRITTEN", 500)
            little.setattr(word_matrix, "_WORDS", 1000)
            build_index(source, tmp_path / name, exact_limit=exact_limit)
        usual, own = (files_of(tmp_path / name / version) for version in ("v0001", "v0002"))
        assert usual.keys() == own.keys()
        assert [file for file in usual if usual[file] != own[file]] == []


@pytest.mark.parametrize("order", [None, np.random.default_rng(0).permutation(1000)], ids=["as it is", "other order"])
def test_rows_come_in_order_whatever_fits(order: np.ndarray | None, tmp_path: Path) -> None:
    rows = range(1000)
    columns = {
        "text": pa.array([None if at % 7 == 0 else "é" * (at % 5) for at in rows]),
        "long": pa.array([f"{at}" for at in rows], pa.large_string()),
        "nothing": pa.array([""] * 1000),
        "bytes": pa.array([bytes(at % 3) for at in rows], pa.binary()),
        "number": pa.array([None if at % 2 else at / 3 for at in rows]),
        "flag": pa.array([at % 3 == 0 for at in rows]),
        "tags": pa.array([[f"{at}"] * (at % 3) for at in rows]),
        "kind": pa.array([str(at // 100) for at in rows]).dictionary_encode(),
        "none": pa.nulls(1000),
    }
    whole = pa.table(columns)
    table = pa.concat_tables([whole.slice(0, 3), whole.slice(3, 500), whole.slice(503, 0), whole.slice(503)])
    for memory in (None, 1 << 30, table.nbytes, 1):
        (folder := tmp_path / f"{memory}").mkdir()
        found = ordered(table, order, folder, memory)
        assert found.equals(whole if order is None else whole.take(pa.array(order)))
        assert {column.num_chunks for column in found.columns} == {1}
        found.validate(full=True)


def test_too_little_memory_is_refused_before_anything_is_read(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--memory 0.00GB is too little for 3,000 items of 64 numbers.*at least"):
        build_index(source, tmp_path / "index", memory=1_000_000)
    assert not (tmp_path / "index").exists()
    assert window(None, 10**7, 256, exact=False) is None
    assert 0 < (window(4 * 10**9, 10**7, 256, exact=False) or 0) < 4 * 10**9


def test_parts_of_the_vectors_are_read_in_the_files_order() -> None:
    class Seen:
        """A mapped file that notes which rows are read."""

        def __init__(self, rows: np.ndarray) -> None:
            self.held, self.read, self.nbytes, self.dtype, self.shape = rows, [], rows.nbytes, rows.dtype, rows.shape

        def __getitem__(self, places: object) -> np.ndarray:
            if isinstance(places, np.ndarray):
                self.read.append(places)
            return self.held[places]

    rows = np.arange(50_000, dtype=np.float32)[:, None]
    seen, order = Seen(rows), np.random.default_rng(0).permutation(len(rows))
    blocks = [block.copy() for block in forming._gathered(seen, order, 4 * 32_768)]  # type: ignore[arg-type]
    np.testing.assert_array_equal(np.concatenate(blocks)[:, 0], order)
    assert [len(block) for block in blocks] == [16_384, 16_384, 16_384, 848]
    falls = np.count_nonzero(np.diff(np.concatenate(seen.read)) < 0)
    assert falls == 1  # two passes over the file


def test_more_items_than_rows_have_numbers_for_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "MOST_ITEMS", ITEMS - 1)
    with pytest.raises(InputError, match="3,000 items are more than an embedded index can number"):
        build_index(source, tmp_path / "index")
    assert not (tmp_path / "index" / "current").exists()


def test_the_exact_best_do_not_depend_on_how_many_items_set_the_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    vectors, queries = (random.standard_normal(shape).astype(np.float32) for shape in ((20_000, 16), (9, 8)))
    shares = [np.full(9, share, np.float32) for share in (0.0, 0.5, 1.0)]
    usual = tuning.exact_for_shares(vectors, queries, shares, 20)
    monkeypatch.setattr(tuning, "_FLOOR_ITEMS", 100)
    few = tuning.exact_for_shares(vectors, queries, shares, 20)
    for one, other in zip(usual, few, strict=True):
        np.testing.assert_array_equal(one, other)


def test_of_many_lists_each_vector_is_compared_with_fewer_and_comes_to_the_nearest() -> None:
    random = np.random.default_rng(0)
    centres, vectors = (random.standard_normal((count, 8)).astype(np.float32) for count in (20_000, 2_000))
    nearest = Nearest(centres)
    assert nearest._around.shape == (int(6.4 * 20_000**0.5), int(5.6 * 20_000**0.5))
    exact = faiss.knn(vectors, centres, 1)[1][:, 0]
    assert np.mean(nearest(vectors) == exact) > 0.97


def test_memory_is_a_size_and_belongs_to_a_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["index", str(tmp_path), "--compact", "--memory", "4GB"]) == 2
    assert "--memory belongs to --out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["index", str(tmp_path), "--out", str(tmp_path / "index"), "--memory", "much"])
    assert "'much' is not a size such as 4GB" in capsys.readouterr().err
