"""Building an index: what it becomes, what it refuses, and the inverted file against exact search."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from smar.core.errors import InputError
from smar.search.filter_parser import parse_filter
from smar.search.local.build import RECALL_TARGET, build_index
from smar.search.local.open_version import EmbeddedIndex
from smar.search.local.segment import Segment
from smar.search.local.vectors import Allowed, VectorStore
from smar.search.local.version_files import IndexManifest
from smar.search.local.versions import current_version
from smar.search.protocol import Mode, weigh
from smar.search.ranked import Queries
from tiny_index import rewrite_manifest, write_embeddings, write_query_encoder

ITEMS = 3000


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[EmbeddedIndex, EmbeddedIndex]:
    """The same 3,000 items behind an inverted file and behind an exact index."""
    root = tmp_path_factory.mktemp("large")
    source = write_embeddings(root / "embeddings", ITEMS)
    summary = build_index(source, root / "ivf", exact_limit=1000)
    assert summary.index_type.startswith("IVF")
    assert summary.recall is not None
    assert summary.recall >= RECALL_TARGET
    build_index(source, root / "flat")
    return EmbeddedIndex.open(root / "ivf"), EmbeddedIndex.open(root / "flat")


def exhaustive(index: EmbeddedIndex) -> EmbeddedIndex:
    """The same rows, all of them scanned."""
    (segment,) = index.segments
    return index.with_segments(
        [Segment(VectorStore(None, segment.store.vectors, None), segment.catalogue, words=segment.words)]
    )


def recall(found: list, exact: list) -> float:
    """Share of exact scores reached; by score, because items of equal score may replace each other."""
    shares = []
    for hits, best in zip(found, exact, strict=True):
        lowest = best[-1].score - 1e-6
        assert len(hits) == len(best)
        shares.append(sum(hit.score >= lowest for hit in hits) / len(best))
    return float(np.mean(shares))


def asked(index: EmbeddedIndex, *texts: str) -> list[Queries]:
    vectors = index.encoder.encode(texts)
    queries = Queries(vectors.embedding, weigh(vectors, Mode.ADAPTIVE))
    return [queries.part(slice(at, at + 1)) for at in range(len(texts))]


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    "text",
    [
        None,
        "price>100",
        "price>190",
        "category=Kettle and brand=Braun",
        "in_stock=false and price<8",
        'category="Kettle"',  # adverse to all queries but those for kettles
    ],
)
def test_inverted_file_recall(pair: tuple[EmbeddedIndex, EmbeddedIndex], mode: Mode, text: str | None) -> None:
    ivf, flat = pair
    # what was tuned on are beginnings of titles, too: there is no log
    titles = [title.split() for title in ivf.catalogue.table["title"].to_pylist()]
    rows = np.random.default_rng(5).permutation(ITEMS)[:200]
    beginnings = {" ".join(titles[row][: 1 + at % 4]).lower() for at, row in enumerate(rows)}
    queries = ivf.encoder.encode(sorted(beginnings))
    chosen = None if text is None else parse_filter(text, ivf.schema)
    # items that hold the same words are ranked by row, and the two indexes number their rows differently
    exact = exhaustive(ivf) if mode is Mode.HYBRID else flat
    assert recall(ivf.search(queries, 50, mode, chosen), exact.search(queries, 50, mode, chosen)) >= 0.95


def test_wide_filters_widen_the_search(
    pair: tuple[EmbeddedIndex, EmbeddedIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the exact scan of small filters switched off, the inverted file itself must answer them."""
    monkeypatch.setattr("smar.search.local.vectors.SCAN_FLOATS", 0)
    ivf, flat = pair
    queries = ivf.encoder.encode(["red shirt", "small watch"])
    for text in ("price>100", "category=Kettle", "price>195", "price>199.5"):
        chosen = parse_filter(text, ivf.schema)
        assert recall(ivf.search(queries, 50, filter=chosen), flat.search(queries, 50, filter=chosen)) >= 0.95


def test_adverse_filters_are_answered(
    pair: tuple[EmbeddedIndex, EmbeddedIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the items farthest from a query are allowed, so the lists next to it hold nothing that may be found."""
    monkeypatch.setattr("smar.search.local.vectors.SCAN_FLOATS", 0)
    (segment,) = pair[0].segments
    for query in asked(pair[0], "red shirt", "steel kettle"):
        scores = segment.store.vectors @ query.wide[0]
        for share in (0.05, 0.5, 0.9):
            mask = scores < np.quantile(scores, share)
            (found,) = segment.store.top(query, 50, Allowed.of(mask))
            best = np.sort(scores[mask])[::-1][:50]
            assert mask[found.rows].all()
            assert np.mean(scores[found.rows] >= best[-1] - 1e-6) >= 0.95


def test_dead_rows_cost_no_recall(pair: tuple[EmbeddedIndex, EmbeddedIndex]) -> None:
    (segment,) = pair[0].segments
    for query in asked(pair[0], "red shirt", "steel kettle"):
        scores = segment.store.vectors @ query.wide[0]
        order = np.argsort(-scores)
        (whole,) = segment.store.top(query, 50)
        reached = np.mean(scores[whole.rows] >= scores[order[49]] - 1e-6)  # by this query when nothing is dead
        for dead in (order[:600], order[:100:2], order[::3]):  # all the near ones; half of them; scattered
            mask = np.isin(np.arange(ITEMS), dead)
            (found,) = segment.store.top(query, 50, alive=Allowed.of(~mask))
            best = np.sort(scores[~mask])[::-1][:50]
            assert len(found) == 50
            assert not mask[found.rows].any()
            assert np.mean(scores[found.rows] >= best[-1] - 1e-6) >= reached - 0.06 - 1e-9


def test_recall_target_is_validated(embeddings: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"recall target is 1.5; allowed: above 0, at most 1"):
        build_index(embeddings, tmp_path / "index", recall=1.5)
    source = write_embeddings(tmp_path / "embeddings", 1500)
    low = build_index(source, tmp_path / "low", exact_limit=50, recall=0.5)
    high = build_index(source, tmp_path / "high", exact_limit=50, recall=1.0)
    assert low.probes is not None
    assert high.probes is not None
    assert low.probes.adaptive.lists < high.probes.adaptive.lists
    assert high.recall == 1.0


def test_manifest_describes_every_file(pair: tuple[EmbeddedIndex, EmbeddedIndex]) -> None:
    for index in pair:
        files = {path.relative_to(index.path).as_posix() for path in index.path.rglob("*") if path.is_file()}
        assert files == set(index.manifest.files) | {"manifest.json", "updates.log"}
        assert len(index) == index.manifest.items == ITEMS
    assert "vectors.npy" in pair[0].manifest.files
    assert "vectors.npy" not in pair[1].manifest.files


def test_replaces_an_index_but_nothing_else(embeddings: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    build_index(embeddings, out)
    first = IndexManifest.read(current_version(out), "smar index")
    build_index(embeddings, out)
    assert current_version(out).name == "v0002"
    assert IndexManifest.read(current_version(out), "smar index").files == first.files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="exists and is not an index"):
        build_index(embeddings, other)
    assert (other / "thesis.txt").exists()


def test_query_encoder_of_another_model_is_refused(embeddings: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(embeddings, tmp_path / "embeddings"))
    shutil.rmtree(source / "query")
    write_query_encoder(source / "query", fingerprint="beef" * 16)
    with pytest.raises(InputError, match=r"query/manifest.json.*beefbeef.*feedfeed"):
        build_index(source, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_damaged_embeddings_leave_no_index(embeddings: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(embeddings, tmp_path / "embeddings"))
    (source / "shard-00002.parquet").write_bytes(b"")
    with pytest.raises(InputError, match=r"shard-00002.parquet is damaged"):
        build_index(source, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_nothing_to_index(embeddings: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(embeddings, tmp_path / "embeddings"))
    payload = source / "payload.parquet"
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(payload).slice(0, 0), payload)
    rewrite_manifest(source, items=0, shards=[])
    with pytest.raises(InputError, match="holds no items"):
        build_index(source, tmp_path / "index")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be made small."""
    path = tmp_path / "disk"
    path.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", path], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here, which a full disk needs: {made.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


@pytest.mark.parametrize("exact_limit", [100, 100_000])
def test_a_full_disk_leaves_the_index_as_it_was(disk: Path, tmp_path: Path, exact_limit: int) -> None:
    """Whatever file it is that finds no room any more."""
    source, folder = write_embeddings(tmp_path / "embeddings"), disk / "index"
    build_index(source, folder, exact_limit)
    before, free = sorted(path.name for path in folder.iterdir()), shutil.disk_usage(disk).free
    for kilobytes in (0, 8, 40, 64, 90, 140, 260, 400):
        (disk / "filler").write_bytes(b"x" * (free - 1024 * kilobytes))
        with pytest.raises(OSError, match=r"No space left|disk full"):
            build_index(source, folder, exact_limit)
        (disk / "filler").unlink()
        assert sorted(path.name for path in folder.iterdir()) == before
        assert len(EmbeddedIndex.open(folder)) == 180
    build_index(source, folder, exact_limit)
    assert current_version(folder).name == "v0002"
