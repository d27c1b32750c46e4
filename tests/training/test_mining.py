"""Mined negatives: ranks against sorting everything, bounded memory, parts that survive an interruption."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from smar.core.errors import InputError
from smar.core.sections.losses import NegativeSettings
from smar.data.dataset import Dataset
from smar.training import mining
from smar.training.batches import KnownPositives, Pairs
from smar.training.mining import Ranks, best_unliked, mine
from smar.training.setup import TrainingData


@settings(max_examples=40)
@given(
    seed=st.integers(0, 9999), items=st.integers(1, 30), skip=st.integers(0, 4), more=st.integers(1, 8), data=st.data()
)
def test_ranks_equal_sorting_everything(seed, items, skip, more, data):
    rng = np.random.default_rng(seed)
    query, vectors = rng.normal(size=(4, 5)), rng.normal(size=(items, 5))
    liked = rng.random((4, items)) < 0.2
    place, item = liked.nonzero()
    got = best_unliked(
        torch.from_numpy(query),
        torch.from_numpy(vectors),
        (place, item),
        Ranks(skip, skip + more),
        item_block=data.draw(st.integers(1, 31)),
    )
    assert got.shape == (4, more)
    for row in range(4):
        allowed = [i for i in range(items) if not liked[row, i]]
        ranked = sorted(allowed, key=lambda i: -float(query[row] @ vectors[i]))
        expected = ranked[skip : skip + more]
        assert got[row].tolist() == expected + [-1] * (more - len(expected))


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, tuple | list) else [out]
        self.elements = max([self.elements, *(t.numel() for t in made if isinstance(t, torch.Tensor))])
        return out


def test_no_tensor_is_larger_than_a_block_of_scores():
    query, vectors = torch.randn(16, 4), torch.randn(5000, 4)
    nothing = (np.empty(0, np.int64), np.empty(0, np.int64))
    with Largest() as seen:
        best_unliked(query, vectors, nothing, Ranks(2, 20), item_block=100)
    assert 16 * 100 <= seen.elements <= max(16 * 100, 2 * 16 * 20, 5000 * 4 // 10)
    with Largest() as seen:
        best_unliked(query, vectors, nothing, Ranks(2, 20), item_block=5000)
    assert seen.elements == 16 * 5000  # what the bound would let through, were there no blocks


@pytest.fixture(scope="module")
def trained(line):
    dataset = Dataset.open(line.dataset)
    data = TrainingData.from_dataset(dataset, dataset.text_fields)
    return line.run / "stage1", data, KnownPositives(data.pairs, len(data.queries))


RANKS = NegativeSettings(hard=1, hard_skip=2, hard_depth=12)


def mine_copy(trained, folder):
    stage, data, known = trained
    if not folder.exists():
        shutil.copytree(stage, folder, ignore=shutil.ignore_patterns("logs"))
    return mine(folder, data, known, RANKS, bf16=False)


def test_an_interrupted_mining_goes_on_after_its_last_part(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(mining, "ENCODED", 40)
    whole = mine_copy(trained, tmp_path / "whole")
    _, data, known = trained
    assert whole.shape == (len(data.queries), 10)
    place, liked = known.of(np.arange(len(data.queries)))
    assert not (whole[place] == liked[:, None]).any()
    assert (whole >= 0).all()

    blocks, real = [], mining.best_unliked

    def stops_in_the_third(*words):
        blocks.append(1)
        if len(blocks) == 3:
            raise KeyboardInterrupt
        return real(*words)

    with monkeypatch.context() as patch:
        patch.setattr(mining, "best_unliked", stops_in_the_third)
        with pytest.raises(KeyboardInterrupt):
            mine_copy(trained, tmp_path / "stopped")
    parts = list((tmp_path / "stopped/hard").glob("parts-*/queries-*.npy"))
    assert len(parts) == 2
    assert not (tmp_path / "stopped/hard/manifest.json").exists()

    counted = []
    monkeypatch.setattr(mining, "best_unliked", lambda *words: counted.append(1) or real(*words))
    again = mine_copy(trained, tmp_path / "stopped")
    assert len(counted) == -(-len(data.queries) // 40) - 2
    assert np.array_equal(again, whole)
    assert not list((tmp_path / "stopped/hard").glob("parts-*"))
    assert np.array_equal(mine_copy(trained, tmp_path / "stopped"), whole)
    assert len(counted) == -(-len(data.queries) // 40) - 2, "finished negatives are read, not mined again"


def test_damaged_negatives_are_refused(trained, tmp_path):
    mine_copy(trained, tmp_path / "stage1")
    file = tmp_path / "stage1/hard/hard.npy"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"hard\.npy is damaged.*Delete .*hard to mine"):
        mine_copy(trained, tmp_path / "stage1")


def test_known_positives_of_queries_come_in_their_order():
    pairs = Pairs(np.array([2, 0, 2, 1, 2]), np.array([5, 3, 1, 3, 4]), np.ones(5, np.float32))
    place, item = KnownPositives(pairs, 4).of(np.array([2, 3, 0]))
    assert list(zip(place.tolist(), item.tolist(), strict=True)) == [(0, 5), (0, 1), (0, 4), (2, 3)]
