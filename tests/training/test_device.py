"""Where a model runs: what is chosen and refused, what would lie on the wrong device; batches that grow and shrink."""

import multiprocessing
import os
import signal
import sys
from functools import partial

import numpy as np
import pytest
import torch
from tiny_batch import WEIGHTS, batch_of, tiny
from torch.overrides import TorchFunctionMode

from preloaded import start
from smar.core.errors import InputError
from smar.core.sections.training import PictureSettings
from smar.model import device, picture_batches
from smar.model.encoder import Encoder
from smar.model.picture_batches import BATCH, MOST, grown, read_ahead, readers_beside, shown
from smar.training.augmentation import vary
from smar.training.encode_batch import encode_batch
from smar.training.stage_losses import add_prefix_losses, stage_losses
from smar.training.trainer import hide_pictures

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@no_gpu
def test_without_a_gpu_auto_is_the_processor_and_cuda_says_what_was_seen():
    assert device.pick_device() == device.pick_device("cpu") == CPU
    assert device.all_devices("auto") == [CPU]
    with pytest.raises(InputError, match=r"torch [\d.]+\S* .*(without GPU support|none of them usable).*--device cpu"):
        device.pick_device("cuda")
    with pytest.raises(InputError, match="'tpu'; allowed: auto, cpu, cuda"):
        device.pick_device("tpu")


@no_gpu
@pytest.mark.parametrize(
    "words",
    [
        ("train", "{made}", "--out", "{new}"),
        ("embed", "{made}", "{made}", "--out", "{new}"),
        ("evaluate", "{made}", "{made}", "--out", "{new}"),
    ],
)
def test_commands_refuse_a_device_that_is_not_there(words, line, tmp_path, capfd):
    from smar.cli import main

    made = {"train": [line.dataset], "embed": [line.run, line.dataset], "evaluate": [line.run, line.dataset]}[words[0]]
    given = iter(made)
    arguments = [str(next(given)) if word == "{made}" else word.format(new=tmp_path / "new") for word in words]
    assert main([*arguments, "--device", "cuda"]) == 2
    assert "--device cuda: torch" in capfd.readouterr().err
    assert not (tmp_path / "new").exists()


def test_of_several_gpus_a_process_of_torchrun_takes_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device.all_devices("auto") == [torch.device("cuda", 0), torch.device("cuda", 1)]
    assert device.pick_device("cpu") == CPU
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device.pick_device("cuda") == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match=r"process 2 .* torch sees 2"):
        device.pick_device()


def test_bfloat16_only_where_the_device_computes_in_it(monkeypatch):
    for knows in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, knows=knows: knows)
        assert device.knows_bf16(GPU) is knows
    assert device.precision(GPU, True) == "float32 on cuda:0, which has no bfloat16"
    assert device.precision(CPU, False) == "float32 on cpu"
    model, processor = tiny()
    encoder = Encoder(model, processor, bf16=True)
    monkeypatch.setattr("smar.model.encoder.knows_bf16", lambda _: False)
    assert not encoder._autocast()._enabled


FACTORIES = {
    *(torch.arange, torch.zeros, torch.ones, torch.full, torch.empty, torch.rand, torch.randn, torch.randint),
    *(torch.tensor, torch.eye, torch.linspace, torch.randperm, torch.from_numpy, torch.as_tensor),
}


class OnDevice(TorchFunctionMode):
    """Notes every tensor with a dimension that is made without saying where: on a GPU it would lie on the processor."""

    def __init__(self):
        self.astray = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function in FACTORIES and out.dim() and "device" not in (kwargs or {}):
            frame = sys._getframe(1)
            self.astray.append(f"{function.__name__} in {frame.f_code.co_filename}:{frame.f_lineno}")
        return out


@pytest.mark.parametrize("vision", ["resnet", "vit"])
@pytest.mark.parametrize("options", [["model.fusion=both"], ["model.fusion=concat"], ["model.kind=clip"]])
def test_a_step_makes_every_tensor_on_the_models_device(vision, options):
    model, processor = tiny(f"model.vision.kind={vision}", "train.loss.learn_temperature=true", *options)
    pictures = torch.arange(9) % 3 > 0
    batch = batch_of(5, 9, pictures) | {"item_rows": torch.arange(9), "query_rows": torch.arange(5)}
    batch |= {"pictures": pictures.long()}
    settings = PictureSettings(augment=True)
    torch.manual_seed(0)
    with OnDevice() as mode:
        encode = lambda part: model(vary(part, settings, processor))  # noqa: E731
        query, item = encode_batch(
            model, batch, 9 if vision == "resnet" else 4, partial(hide_pictures, share=0.1), encode
        )
        temperature = model.temperature()
        mode.astray = [place for place in mode.astray if "processing.py" not in place or "tensor" not in place]
        losses = stage_losses(WEIGHTS, query, item, batch, temperature, part=8)
        losses = add_prefix_losses(losses, (4,), WEIGHTS, query, item, batch, temperature)
        sum(losses.values()).backward()
    assert not mode.astray


@pytest.mark.parametrize(
    ("used", "free", "size"), [(10, 10_000, MOST), (1000, 5000, 4 * BATCH), (1000, 100, BATCH), (0, 500, MOST)]
)
def test_a_batch_grows_to_the_free_memory(used, free, size):
    assert grown(BATCH, used, free) == size


def test_readers_are_few_and_have_room():
    assert readers_beside(CPU, 1000, 100, room=1 << 30) == 0
    cores = len(os.sched_getaffinity(0))
    assert readers_beside(GPU, 1000, 100, room=1 << 30) == min(4, cores - 1)
    assert readers_beside(GPU, 1000, 100 << 20, room=64 << 20) == 0  # a container's usual /dev/shm
    assert readers_beside(GPU, 1, 100, room=1 << 30) == readers_beside(GPU, 1000, 0, room=1 << 30) == 0


@pytest.fixture
def pictures(tmp_path):
    """A mapped file of 40 pictures, and rows of 50 items: one or two pictures each, or none."""
    draw = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", draw.integers(0, 256, (40, 16, 16, 3), np.uint8))
    rows = draw.integers(-1, 40, (50, 2))
    rows[:, 1] = np.where(rows[:, 0] < 0, -1, rows[:, 1])
    return np.load(tmp_path / "images.npy", mmap_mode="r"), rows


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_read_the_same_bytes_and_the_generator_does_not_notice(pictures, start, monkeypatch):
    images, rows = pictures
    monkeypatch.setattr(
        picture_batches, "DataLoader", partial(picture_batches.DataLoader, multiprocessing_context=start)
    )
    parts = [slice(at, min(at + 7, 50)) for at in range(0, 50, 7)]
    before = torch.get_rng_state()
    read = list(read_ahead(images, rows, parts, CPU, readers=2 if start == "fork" else 1))
    assert [part for part, _ in read] == parts
    assert all(np.array_equal(own, shown(images, rows[part])) for part, own in read)
    assert torch.equal(before, torch.get_rng_state())


def test_another_process_maps_the_file_instead_of_getting_its_bytes(pictures):
    from multiprocessing.reduction import ForkingPickler

    images, _ = pictures
    assert len(ForkingPickler.dumps(images)) < 1000 < images.nbytes
    again = ForkingPickler.loads(ForkingPickler.dumps(images))
    assert isinstance(again, np.memmap)
    assert np.array_equal(again, images)
    part = ForkingPickler.loads(ForkingPickler.dumps(images[3:5]))
    assert np.array_equal(part, images[3:5])


def items(model, count=50):
    texts = [[f"red dress {n}" for n in range(count)] for _ in model.config.text_fields]
    return texts


def test_vectors_are_the_same_with_readers_and_in_halves(pictures, monkeypatch):
    model, processor = tiny()
    encoder, (images, rows) = Encoder(model, processor), pictures
    fields = items(model)

    def vectors(**options):
        parts = list(encoder.encode_items(fields, images, rows, 20, **options))
        assert [len(part.text) for part in parts] == [20, 20, 10]
        return {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}

    plain = vectors()
    for name, value in vectors(readers=2).items():
        assert np.array_equal(value, plain[name])
    tried, encode = [], encoder.encode_item

    def short_of_memory(part, images, count):
        tried.append(len(count))
        if len(count) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return encode(part, images, count)

    monkeypatch.setattr(encoder, "encode_item", short_of_memory)
    for name, value in vectors().items():
        np.testing.assert_allclose(value, plain[name], atol=1e-6)
    assert tried[:3] == [20, 10, 5]  # and what did not fit is not tried again
    assert max(tried[3:]) <= 5
    monkeypatch.setattr(encoder, "encode_item", partial(_never))
    with pytest.raises(InputError, match="no memory for one item"):
        vectors()


def _never(*_):
    raise torch.OutOfMemoryError("CUDA out of memory (pretended)")


def read_for_ever(file, told):
    images, rows = np.load(file, mmap_mode="r"), np.zeros((10_000, 1), np.int64)
    for _ in read_ahead(images, rows, [slice(at, at + 10) for at in range(0, 10_000, 10)], CPU, 2):
        told.send([child.pid for child in multiprocessing.active_children()])
        signal.pause()


def test_readers_end_with_a_killed_encoder(pictures):
    images, _ = pictures
    heard, told = multiprocessing.Pipe(duplex=False)
    process = start(read_for_ever, images.filename, told)
    told.close()
    children = heard.recv()
    process.kill()
    process.join()
    assert len(children) == 2
    for pid in children:
        wait_for_end(pid)


def wait_for_end(pid):
    """Wait until a process that is no child of this one has ended."""
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    assert select.select([end], [], [], 60)[0], "it goes on without its parent"
    os.close(end)
