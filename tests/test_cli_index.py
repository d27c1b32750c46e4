"""`smar index` on an index that exists: update, delete, compact, roll back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from smar.search.local.live import UpdatableIndex
from smar.search.protocol import Mode
from tiny_line import Line, smar


@pytest.fixture
def index(line: Line, tmp_path: Path) -> Path:
    return line.copy("index", tmp_path)


def new_items(line: Line, tmp_path: Path) -> Path:
    """Some items of the shop under new ids and one as it is, with another price."""
    table = pq.read_table(line.shop / "items.parquet").slice(0, 5)
    ids = [f"new-{at}" for at in range(4)] + [table["item_id"][4].as_py()]
    shutil.copytree(line.shop / "images", tmp_path / "images")
    pq.write_table(table.set_column(table.column_names.index("item_id"), "item_id", [ids]), tmp_path / "items.parquet")
    return tmp_path / "items.parquet"


def test_update_encodes_what_embed_did(line: Line, index: Path, tmp_path: Path) -> None:
    source = new_items(line, tmp_path)
    before = UpdatableIndex.open(index).snapshot
    done = smar("index", index, "--update", source, "--run", line.run)
    assert done.code == 0, done.err
    assert done.says("items", "5", "pictures")
    after = UpdatableIndex.open(index).snapshot
    assert len(after) == len(before) + 4
    queries = after.encoder.encode(["red dress", "kettle"])
    original = pq.read_table(line.shop / "items.parquet")["item_id"].to_pylist()
    for hits in after.search(queries, len(after)):
        scores = {hit.item_id: (hit.text_score, hit.multimodal_score) for hit in hits}
        for at in range(4):  # the same item, encoded in a batch of its own
            np.testing.assert_allclose(scores[f"new-{at}"], scores[original[at]], atol=1e-4)
    for at in range(4):
        pictures = [after.catalogue.picture(after.catalogue.row_of(name)) for name in (f"new-{at}", original[at])]
        assert pictures[0] == pictures[1]
    found = smar("search", index, "red dress", "--json", "-k", "200")
    assert json.loads(found.out)["hits"]
    assert json.loads(found.out)["unknown"] == 0


def test_a_search_says_that_it_does_not_know_the_words(index: Path) -> None:
    unknown = ["红色连衣裙", "赤いドレス", "लाल पोशाक"]
    found = [smar("search", index, query) for query in unknown]
    assert all("100% of the query is unknown" in one.out for one in found)
    assert "unknown" not in smar("search", index, "red dress").out
    vectors = UpdatableIndex.open(index).snapshot.encoder.encode(unknown)
    alike = vectors.embedding @ vectors.embedding.T
    assert (alike[np.triu_indices(3, 1)] < 0.999).all()
    assert len({one.out.split("\n", 2)[2] for one in found}) == 3


def test_delete_compact_and_roll_back(line: Line, index: Path, tmp_path: Path) -> None:
    ids = pq.read_table(line.shop / "items.parquet")["item_id"].to_pylist()
    (tmp_path / "ids.txt").write_text("\n".join([*ids[:3], "unknown"]) + "\n")
    done = smar("index", index, "--delete", tmp_path / "ids.txt")
    assert done.code == 0, done.err
    assert done.says("deleted", "3", "ids that were not there", "1", "items", "297")
    assert smar("index", index, "--compact").says("version", "v0002", "297")
    assert len(UpdatableIndex.open(index).snapshot) == 297
    assert smar("index", line.embeddings, "--out", index).says("version", "v0003")
    assert len(UpdatableIndex.open(index).snapshot) == 300
    assert smar("index", index, "--rollback").says("serves", "v0002")
    assert len(UpdatableIndex.open(index).snapshot) == 297


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--update", "items.parquet"), "--update ITEMS and --run RUN belong together"),
        (("--compact", "--run", "run"), "--update ITEMS and --run RUN belong together"),
        (("--rollback", "--images", "x"), "--images belongs to --update"),
        (("--compact", "--recall", "0.9"), "--recall and --query belong to --out"),
        (("--rollback",), "no version before v0001"),
        (("--delete", "nowhere.txt"), "--delete nowhere.txt cannot be read"),
    ],
)
def test_refusals(index: Path, words: tuple, message: str) -> None:
    failed = smar("index", index, *words)
    assert failed.code == 2
    assert failed.says(message)


def test_an_index_of_another_model_is_not_updated(line: Line, tmp_path: Path) -> None:
    from smar.search.local.build import build_index
    from tiny_index import write_embeddings

    build_index(write_embeddings(tmp_path / "embeddings", 12), tmp_path / "other")
    failed = smar("index", tmp_path / "other", "--update", line.shop / "items.parquet", "--run", line.run)
    assert failed.code == 2
    assert failed.says("their vectors do not go together")


def test_update_of_a_model_that_mixes_by_category_stores_the_mixture(line: Line, tmp_path: Path) -> None:
    run = line.copy("run", tmp_path)
    config = json.loads((run / "stage2" / "config.json").read_text())
    (run / "stage2" / "config.json").write_text(json.dumps(config | {"category_share": {"": 0.5}}))
    assert smar("embed", run, line.dataset, "--out", tmp_path / "embeddings").code == 0
    index = tmp_path / "index"
    assert smar("index", tmp_path / "embeddings", "--out", index).code == 0
    done = smar("index", index, "--update", new_items(line, tmp_path), "--run", run)
    assert done.code == 0, done.err
    snapshot = UpdatableIndex.open(index).snapshot
    original = pq.read_table(line.shop / "items.parquet")["item_id"].to_pylist()
    (hits,) = snapshot.search(snapshot.encoder.encode(["red dress"]), len(snapshot), Mode.MULTIMODAL)
    rows = {hit.item_id: hit.row for hit in hits}
    for at in range(4):
        new, old = snapshot.vectors(rows[f"new-{at}"]), snapshot.vectors(rows[original[at]])
        np.testing.assert_allclose(new, old, atol=1e-4)  # in another batch
        assert np.linalg.norm(new[0]) < 0.97, "a mixture is shorter than S_m, which is a unit vector"
