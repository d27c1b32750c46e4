"""Parts of a batch that fit: what activations take, what a step does out of memory, what the heap gives back."""

import gc
import subprocess
import sys
import weakref
from types import SimpleNamespace

import pytest
import torch
from tiny_batch import batch_of, gradients, largest_difference, tiny
from torch import nn

from smar.core.errors import TrainingError
from smar.core.processes import Heap
from smar.training import parts
from smar.training.parts import PartedTrainer, activation_bytes, fitting
from smar.training.word_bags import WordTrainer


def test_activations_are_counted_once_and_weights_are_not():
    layer, held = nn.Linear(64, 64), [torch.randn(10, 64, requires_grad=True)]
    size, alive = held[0].nbytes, weakref.ref(held[0])
    before = torch.get_rng_state()
    run = lambda: nn.functional.dropout(layer(held[0]), 0.5) + held[0].exp() * 2  # noqa: E731
    kept = activation_bytes(run, layer.parameters())
    # the input, the mask or the scaled mask of dropout, and exp's own result
    assert size * 2 <= kept <= size * 4
    assert torch.equal(before, torch.get_rng_state())
    held.clear()
    gc.collect()
    assert alive() is None


def test_activations_grow_with_the_examples_so_a_few_tell_how_many_fit(monkeypatch):
    model, _ = tiny()

    def count(n: int) -> int:
        ids = torch.randint(5, 30, (n, 9))
        run = lambda: model.encode_query_ids(ids, torch.ones_like(ids))  # noqa: E731
        return activation_bytes(run, [*model.parameters(), *model.buffers()])

    assert count(64) == pytest.approx(4 * count(16), rel=0.05)
    monkeypatch.setattr(parts, "BUDGET", count(40))
    ids = torch.randint(5, 30, (16, 9))
    fits = fitting(model, lambda: model.encode_query_ids(ids, torch.ones_like(ids)), 16, torch.device("cpu"))
    assert 36 <= fits <= 44
    # on a GPU: what is free, less gradients and optimizer states of all weights
    weights = sum(3 * p.nbytes for p in model.parameters())
    monkeypatch.setattr(parts, "free_memory", lambda _: weights + int(count(40) / parts.FILLED) + 100)
    assert fitting(model, lambda: model.encode_query_ids(ids, torch.ones_like(ids)), 16, torch.device("cuda")) == fits


class Step(PartedTrainer):
    """A trainer's step without `Trainer` around it; it is out of memory with more than two examples at once."""

    def __init__(self, model: nn.Module, most: int = 2) -> None:
        self.args = SimpleNamespace(device=torch.device("cpu"))
        self.heap, self.most, self.seen = Heap(), most, []
        self.examples, self.inner = 8, model

    def step(self, model, inputs, *args, **kwargs):
        self.seen.append(self.at_once or self.examples)
        noise = torch.rand(8)
        out = model(inputs["x"] + noise[:, None]).square().mean()
        out.backward()
        if self.seen[-1] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return out.detach()


def test_out_of_memory_halves_the_parts_and_does_the_step_again_as_if_nothing_had_been():
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train(), {"x": torch.randn(8, 3)}
    start = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(1)
    expected = Step(model, most=8).training_step(model, inputs), gradients(model), torch.get_rng_state()
    buffers = [value.clone() for value in model.buffers()]
    model.load_state_dict(start)
    torch.manual_seed(1)
    trainer = Step(model)
    loss = trainer.training_step(model, inputs)
    assert trainer.seen == [8, 4, 2]
    assert torch.equal(loss, expected[0])
    assert largest_difference(expected[1], gradients(model)) == 0
    assert torch.equal(expected[2], torch.get_rng_state())
    assert all(torch.equal(*pair) for pair in zip(buffers, model.buffers(), strict=True))


def test_a_single_example_that_does_not_fit_ends_the_run_with_advice():
    model = nn.Linear(3, 3)
    with pytest.raises(TrainingError, match=r"pretended.*train\.micro_batch"):
        Step(model, most=0).training_step(model, {"x": torch.randn(8, 3)})


def test_words_of_pictures_in_parts_have_the_gradient_of_the_whole():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 6))
    target = torch.rand(7, 6).softmax(-1)
    inputs = {"pixels": torch.randint(256, (7, 4, 4, 3), dtype=torch.uint8), "target": target}
    inputs["item_rows"] = torch.arange(7)

    class Plain(WordTrainer):
        def __init__(self, at_once):
            self.at_once, self.augment, self.heap = at_once, False, Heap()
            self.args = SimpleNamespace(device=torch.device("cpu"))
            self.processor = SimpleNamespace(pixels=lambda raw: raw.float() / 255)

    def run(at_once):
        trainer = Plain(at_once)
        trainer.examples = 7
        losses = []
        count = -(-7 // at_once)
        for part in range(count):
            loss = trainer.compute_loss(model, {name: value[part::count] for name, value in inputs.items()})
            loss.backward()
            losses.append(loss.detach())
        return sum(losses), gradients(model)

    whole, cut = run(7), run(3)
    assert float(cut[0]) == pytest.approx(float(whole[0]), rel=1e-5)
    assert largest_difference(whole[1], cut[1]) < 1e-5


PEAKS = """
import sys, time
import numpy as np
from smar.core.processes import PeakMemory, anonymous_bytes
np.save(sys.argv[1], np.zeros(60 << 20, np.uint8))
mapped = np.load(sys.argv[1], mmap_mode="r")
before = anonymous_bytes()
with PeakMemory() as peak:
    assert mapped.max() == 0  # every page of it is in memory now
assert peak.bytes - before < 40 << 20, (peak.bytes, before)
before = anonymous_bytes()
with PeakMemory() as peak:
    block = np.ones(80 << 20, np.uint8)
    end = time.monotonic() + 60  # a loaded machine may keep the watching thread waiting
    while before is not None and peak.bytes - before < 60 << 20 and time.monotonic() < end:
        time.sleep(0.01)
    del block
assert before is None or peak.bytes - before > 60 << 20, (peak.bytes, before)
"""


def test_the_peak_leaves_mapped_files_out(tmp_path):
    """In a small process: of a large one a busy system takes pages meanwhile."""
    done = subprocess.run([sys.executable, "-c", PEAKS, tmp_path / "file.npy"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_micro_batch_as_large_as_the_batch_keeps_its_activations(monkeypatch):
    """No part is encoded twice where the batch fits."""
    from smar.training import encode_batch

    model, _ = tiny()
    monkeypatch.setattr(encode_batch, "checkpoint", None)
    batch = batch_of(7, 15, torch.zeros(15, dtype=torch.bool))
    query, item = encode_batch.encode_batch(model, batch, 15, lambda own: own, model)
    assert len(query.embedding) == 7
    assert len(item.text) == 15
