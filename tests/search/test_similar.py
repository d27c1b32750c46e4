"""Items like an item, and items near a vector, against every item scored one by one."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from smar.core.errors import InputError
from smar.search.filter_parser import parse_filter
from smar.search.items import Items
from smar.search.local.build import build_index
from smar.search.local.live import UpdatableIndex
from smar.search.local.neighbours import by_vector, similar
from tiny_index import DIM, FINGERPRINT, vectors_of, write_embeddings


def changed(index: UpdatableIndex) -> UpdatableIndex:
    """The same index with new, replaced and deleted items."""
    names = ["new/0", "new/1", "item/00004"]
    text, multimodal = np.random.default_rng(3).normal(size=(2, 3, DIM)).astype(np.float32)
    multimodal[0] = vectors_of(index.snapshot, "item/00007")[0]
    text, multimodal = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (text, multimodal))
    payload = pa.table({"item_id": names, "title": names, "category": ["Shirt"] * 3})
    index.upsert(Items(FINGERPRINT, payload, text, multimodal, [None] * 3))
    index.delete(["item/00008"])
    return index


@pytest.fixture(params=["exact", "inverted file"])
def index(request: pytest.FixtureRequest, index_path: Path, tmp_path: Path) -> UpdatableIndex:
    if request.param == "exact":
        return changed(UpdatableIndex.open(Path(shutil.copytree(index_path, tmp_path / "index"))))
    build_index(write_embeddings(tmp_path / "embeddings", 600), tmp_path / "index", exact_limit=100, recall=1.0)
    return changed(UpdatableIndex.open(tmp_path / "index"))


def everything(index: UpdatableIndex) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """S_m and S_t of every item."""
    found = {}
    for segment in index.snapshot.segments:
        for at, item_id in enumerate(segment.catalogue.table["item_id"].to_pylist()):
            if segment.dead is None or not segment.dead[at]:
                vector = segment.store.vectors[at]
                found[item_id] = (vector[:DIM].copy(), vector[DIM:].copy())
    return found


@pytest.mark.parametrize("item_id", ["item/00007", "new/0", "item/00004"])
def test_like_an_item(index: UpdatableIndex, item_id: str) -> None:
    items, snapshot = everything(index), index.snapshot
    own = items[item_id]
    np.testing.assert_array_equal(vectors_of(snapshot, item_id), own)
    expected = {name: (m @ own[0] + t @ own[1]) / 2 for name, (m, t) in items.items() if name != item_id}
    best = sorted(expected.values(), reverse=True)
    hits = snapshot.hits(similar(snapshot, item_id, 999))
    assert {hit.item_id for hit in hits} == expected.keys()
    assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-5)
    for hit in hits:
        multimodal, text = items[hit.item_id]
        assert hit.score == pytest.approx(float(expected[hit.item_id]), abs=1e-5)
        assert hit.multimodal_score == pytest.approx(float(multimodal @ own[0]), abs=1e-5)
        assert hit.text_score == pytest.approx(float(text @ own[1]), abs=1e-5)
        assert hit.payload["item_id"] == hit.item_id
    few = snapshot.hits(similar(snapshot, item_id, 3, parse_filter("category=Shirt", snapshot.schema)))
    assert len(few) == 3
    assert {hit.payload["category"] for hit in few} == {"Shirt"}
    assert item_id not in {hit.item_id for hit in few}


def test_near_a_vector(index: UpdatableIndex) -> None:
    items, snapshot = everything(index), index.snapshot
    vector = items["item/00007"][0]
    hits = snapshot.hits(by_vector(snapshot, vector, 1000))
    assert {hit.item_id for hit in hits} == items.keys()
    for hit in hits:
        assert hit.score == pytest.approx(float(items[hit.item_id][0] @ vector), abs=1e-5)
    assert {"item/00007", "new/0"} <= {hit.item_id for hit in hits if hit.score > 0.999}


def test_what_cannot_be_asked(index: UpdatableIndex) -> None:
    snapshot = index.snapshot
    with pytest.raises(InputError, match="no item 'item/00008'"):
        similar(snapshot, "item/00008")
    with pytest.raises(InputError, match="k is 1000; allowed: 1 to 999"):
        similar(snapshot, "new/0", 1000)
    for wrong in (np.ones(DIM, np.float32), np.full(DIM, np.nan, np.float32), np.ones((1, DIM), np.float32)):
        with pytest.raises(InputError, match="the vector has shape"):
            by_vector(snapshot, wrong)
