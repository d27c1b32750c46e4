"""Embedding folders: bound to their model and dataset, resumable, complete only with their manifest."""

import contextlib
import multiprocessing
import os
import select
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from preloaded import quick_spawn, start
from smar.core.errors import InputError
from smar.core.settings import load_settings
from smar.data.dataset import Dataset
from smar.data.prepare import prepare
from smar.demo.shop import generate_shop
from smar.embedding.embed import JOB_FILE, embed
from smar.embedding.shards import Shard, write_shards
from smar.model.encoder import Encoder, fingerprint
from smar.model.start import new_model
from smar.search.embeddings import Embeddings
from smar.training.setup import TrainingData, new_processor

SIZES = [
    *(f"model.{tower}.{key}" for tower in ("query", "text", "vision") for key in ("layers=1", "hidden=32", "heads=2")),
    "model.dim=16",
    "data.image_size=32",
    "data.workers=1",
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A prepared tiny generated shop and an untrained encoder for it, saved and loaded as a run's would be."""
    root = tmp_path_factory.mktemp("embed")
    generate_shop(root / "shop", items=120, searches=600)
    settings = load_settings(None, SIZES)
    tables = [str(root / "shop" / f"{name}.parquet") for name in ("items", "clicks")]
    prepare(settings.data, [tables[0]], [tables[1]], [], [], None, root / "dataset")
    dataset = Dataset.open(root / "dataset")
    processor = new_processor(settings, TrainingData.from_dataset(dataset, settings.data.text_fields))
    for seed, name in enumerate(("model", "other")):
        torch.manual_seed(seed)
        new_model(settings, settings.model, processor).save_pretrained(root / name)
        processor.save_pretrained(root / name)
    return SimpleNamespace(
        root=root,
        dataset=dataset,
        encoder=Encoder.from_pretrained(root / "model"),
        other=Encoder.from_pretrained(root / "other"),
    )


def test_shards_hold_the_encoders_vectors_in_item_order(shop, tmp_path):
    done = embed(shop.encoder, shop.dataset, tmp_path / "e", shard_rows=50)
    assert [entry.rows for entry in done.manifest.shards] == [50, 50, 20]
    folder = Embeddings(tmp_path / "e")
    shards = list(folder.shards())
    fields = shop.dataset.fields(("title", "category", "brand"))
    whole = list(shop.encoder.encode_items(fields, shop.dataset.images, shop.dataset.image_row))
    for name in ("text", "multimodal"):
        stored = np.concatenate([getattr(shard, name) for shard in shards])
        assert np.abs(stored - np.concatenate([getattr(part, name) for part in whole])).max() < 1e-5
    assert [item for shard in shards for item in shard.item_id] == shop.dataset.items["item_id"].to_pylist()
    assert done.manifest.fingerprint == fingerprint(shop.root / "model")
    assert sum(done.manifest.image_status.values()) == 120
    assert (tmp_path / "e" / "pictures.bin").stat().st_size == shop.dataset.pictures.stat().st_size


def test_a_second_call_keeps_the_shards_and_makes_absent_or_damaged_ones_again(shop, tmp_path):
    out = tmp_path / "e"
    first = embed(shop.encoder, shop.dataset, out, shard_rows=50)
    (out / "shard-00001.parquet").unlink()
    damaged = bytearray((out / "shard-00002.parquet").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (out / "shard-00002.parquet").write_bytes(damaged)
    (out / "manifest.json").unlink()
    with pytest.raises(InputError, match="smar embed"):
        Embeddings(out)
    second = embed(shop.encoder, shop.dataset, out, shard_rows=50)
    assert second.reused == 1
    assert second.manifest == first.manifest


def test_vectors_of_another_model_or_a_foreign_folder_are_refused(shop, tmp_path):
    embed(shop.encoder, shop.dataset, tmp_path / "e")
    with pytest.raises(InputError, match=shop.other.fingerprint):
        embed(shop.other, shop.dataset, tmp_path / "e")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not made by `smar embed`"):
        embed(shop.encoder, shop.dataset, tmp_path / "foreign")
    assert not (tmp_path / "foreign" / JOB_FILE).exists()


def test_the_fingerprint_tells_models_apart_and_ignores_the_folder(shop, tmp_path):
    assert shop.encoder.fingerprint != shop.other.fingerprint
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in (shop.root / "model").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert fingerprint(copy) == shop.encoder.fingerprint


CPUS = [torch.device("cpu")] * 2


def test_several_devices_write_the_shards_of_one_and_go_on_after_a_kill(shop, tmp_path):
    one = embed(shop.encoder, shop.dataset, tmp_path / "one", shard_rows=50)
    with quick_spawn("smar.runners.local.get_context"):
        two = embed(shop.encoder, shop.dataset, tmp_path / "two", shard_rows=50, devices=CPUS)
    assert two.manifest == one.manifest  # checksums of the shards among it
    for name in ("shard-00001.parquet", "shard-00002.parquet", "manifest.json"):
        (tmp_path / "two" / name).unlink()
    with quick_spawn("smar.runners.local.get_context"):
        again = embed(shop.encoder, shop.dataset, tmp_path / "two", shard_rows=50, devices=CPUS)
    assert (again.reused, again.manifest) == (1, one.manifest)
    with pytest.raises(InputError, match=shop.other.fingerprint):
        embed(shop.other, shop.dataset, tmp_path / "two", devices=CPUS)
    bare = Encoder(shop.encoder.model, shop.encoder.processor, shop.encoder.fingerprint)
    with pytest.raises(InputError, match="from_pretrained"):
        embed(bare, shop.dataset, tmp_path / "bare", shard_rows=50, devices=CPUS)


def write_for_ever(model, dataset, folder, told):
    parts = [Shard(slice(n, n + 1), folder / str(n)) for n in range(100)]
    for _ in write_shards(Encoder.from_pretrained(model), Dataset.open(dataset), parts, CPUS):
        told.send([child.pid for child in multiprocessing.active_children()])
        signal.pause()


def test_encoding_processes_end_with_a_killed_parent(shop, tmp_path):
    heard, told = multiprocessing.Pipe(duplex=False)
    (tmp_path / JOB_FILE).touch()
    process = start(write_for_ever, shop.root / "model", shop.dataset.path, tmp_path, told)
    told.close()
    children = heard.recv()
    process.kill()
    process.join()
    assert len(children) == 2
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            end = os.pidfd_open(pid)
            assert select.select([end], [], [], 60)[0], "it goes on without its parent"
            os.close(end)
