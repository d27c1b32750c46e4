"""`smar index --update` with tables of the columns that change; words without their pictures."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smar.embedding.kept import _seen, _unit
from smar.embedding.update import open_for_update
from smar.model.encoder import ItemVectors
from smar.search.local.live import UpdatableIndex
from tiny_index import vectors_of
from tiny_line import Line, smar
from tiny_writer import png, row


@pytest.fixture
def index(line: Line, tmp_path: Path) -> Path:
    return line.copy("index", tmp_path)


def test_prices_alone(line: Line, index: Path, tmp_path: Path) -> None:
    before = UpdatableIndex.open(index)
    (tmp_path / "prices.csv").write_text("item_id;price\nF001;12,50\nF003;\nnew;3\nF004;cheap\n")
    done = smar("index", index, "--update", tmp_path / "prices.csv", "--run", line.run)
    assert done.code == 0, done.err
    assert done.says("rejected 'new': a new item needs a title", "price is no number: 'cheap'")
    after = UpdatableIndex.open(index)
    assert (after.changed, after.patched, len(after.snapshot)) == (0, 2, len(before.snapshot))
    for name, price in (("F001", 12.5), ("F003", None)):
        old, new = row(before, name), row(after, name)
        assert old is not None
        assert new == old | {"price": price}


def test_words_alone_and_new_items_beside_them(line: Line, index: Path, tmp_path: Path) -> None:
    before, encoder = open_for_update(index, line.run)
    same = row(before, "F003")
    assert same is not None
    titles = {"item_id": ["F001", "F003", "new"], "title": ["Green <b>kettle</b>", same["title"], "New thing"]}
    pq.write_table(pa.table(titles), tmp_path / "titles.parquet")
    done = smar("index", index, "--update", tmp_path / "titles.parquet", "--run", line.run)
    assert done.code == 0, done.err
    after = UpdatableIndex.open(index)
    assert after.changed == 2  # F003 has the words that it had
    old, new, created = row(before, "F001"), row(after, "F001"), row(after, "new")
    assert old is not None
    assert new == old | {"title": "Green kettle"}
    assert created is not None
    assert (created["title"], created["price"], created["image_status"]) == ("New thing", None, "missing")
    fields = [[new[field] or ""] for field in encoder.config.text_fields]
    text = encoder.encode_item(fields, np.zeros((0, 32, 32, 3), np.uint8), np.array([False])).text[0].numpy()
    served, words = vectors_of(after.snapshot, "F001")
    np.testing.assert_allclose(words, text, atol=1e-5)
    np.testing.assert_array_equal(served, vectors_of(before.snapshot, "F001")[0])
    catalogue = after.snapshot.catalogue
    assert catalogue.picture(catalogue.row_of("F001")) == before.snapshot.catalogue.picture(
        before.snapshot.catalogue.row_of("F001")
    )


def test_pictures_alone(line: Line, index: Path, tmp_path: Path) -> None:
    before = UpdatableIndex.open(index)
    pictures = pa.table({"item_id": ["F001", "new"], "image": [png("blue"), png("red")]})
    pq.write_table(pictures, tmp_path / "pictures.parquet")
    done = smar("index", index, "--update", tmp_path / "pictures.parquet", "--run", line.run)
    assert done.code == 0, done.err
    assert done.says("a new item needs a title")
    after = UpdatableIndex.open(index)
    assert row(after, "F001") == row(before, "F001")
    catalogue = after.snapshot.catalogue
    assert catalogue.picture(catalogue.row_of("F001")) == png("blue")
    served, text = vectors_of(after.snapshot, "F001")
    np.testing.assert_allclose(text, vectors_of(before.snapshot, "F001")[1], atol=1e-5)
    assert np.abs(served - vectors_of(before.snapshot, "F001")[0]).max() > 1e-3


def unit(seed: int) -> np.ndarray:
    return _unit(np.random.default_rng(seed).normal(size=(4, 8)))


@pytest.mark.parametrize("kind", ["smar", "clip", "dpsr", "dpsr-i", "category"])
def test_vectors_of_other_words_with_the_same_picture(kind: str) -> None:
    """Of each kind what the model itself gives, as far as the stored vectors tell."""
    text, image, words, fused, alone = map(unit, range(5))
    seen = np.array([True, True, True, False])
    shares = {"a": 0.25, "b": 0.75, "": 0.001}
    old, new = ["a", "a", "", "a"], ["a", "b", "a", "a"]

    def share(fields: list[list[str]]) -> np.ndarray:
        return np.array([shares[name] for name in fields[0]], np.float32)

    def mixed(names: list[str], multimodal: np.ndarray, of: np.ndarray) -> np.ndarray:
        part = share([names])[:, None]
        return part * multimodal + (1 - part) * of

    before = {
        "smar": fused,
        "clip": _unit(text + image),
        "dpsr": text,
        "dpsr-i": image,
        "category": mixed(old, fused, text),
    }
    expected = {
        "smar": fused,
        "clip": _unit(words + image),
        "dpsr": words,
        "dpsr-i": image,
        "category": mixed(new, np.where([[True], [True], [False], [True]], fused, alone), words),
    }
    config = SimpleNamespace(
        kind="smar" if kind == "category" else kind, category_share=shares if kind == "category" else None
    )
    vectors = ItemVectors(words, image, alone, np.zeros(4, bool), words if kind == "dpsr" else alone)
    stored = before[kind], image if kind == "dpsr-i" else text
    found = _seen(SimpleNamespace(config=config, share=share), ([old], [new]), vectors, stored, seen)
    np.testing.assert_allclose(found.served[:3], expected[kind][:3], atol=1e-5)
    np.testing.assert_array_equal(found.served[3], vectors.served[3])
    np.testing.assert_array_equal(found.text[:3], (image if kind == "dpsr-i" else words)[:3])
