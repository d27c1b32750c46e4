"""Run by test_distributed.py in two processes: gradients of a shared batch against those of the whole one."""

import os
import tempfile
from functools import partial
from pathlib import Path

import pytest
import torch
from tiny_batch import batch_of, gradients, largest_difference, loss_of, tiny

from smar.core.errors import InputError
from smar.training import distributed
from smar.training.distributed import average_gradients, check_shared, from_first, processes, rank, total, world
from smar.training.encode_batch import encode_batch


def encode(model, processor, part):
    if part["pixels"] is not None:
        part = {**part, "pixels": processor.pixels(part["pixels"])}
    return model(part)


def compare(pictures: torch.Tensor, queries: int, micro_batch: int | None) -> float:
    model, processor = tiny()
    batch, run = batch_of(queries, len(pictures), pictures), partial(encode, model, processor)
    loss_of(*run(batch), batch).backward()
    expected = gradients(model)
    loss_of(*encode_batch(model, batch, micro_batch, lambda own: own, run), batch).backward()
    average_gradients(model.parameters())
    return largest_difference(expected, gradients(model))


torch.set_num_threads(1)
with processes(torch.device("cpu")):
    assert world() == 2
    assert total(rank() + 1.0) == 3
    row = torch.arange(15)
    for name, pictures, queries, micro_batch in [
        ("plain", row % 3 > 0, 7, None),
        ("cached", row % 3 > 0, 7, 3),
        ("process 1 sees no picture", row % 2 == 0, 7, None),
        ("no picture at all", row < 0, 7, None),
        ("one query", row % 3 > 0, 1, None),
    ]:
        difference = compare(pictures, queries, micro_batch)
        if rank() == 0:
            print(f"{name}: {difference:.1e}", flush=True)
        assert difference < 1e-5, name
    shared = Path(from_first(tempfile.mkdtemp()))
    check_shared(shared / "run")
    assert not list((shared / "run").iterdir())
    own = shared / f"node{rank()}"  # as on two nodes whose disks are their own
    own.mkdir()
    os.chdir(own)
    distributed._SEEN_SECONDS = 0.5
    with pytest.raises(InputError, match="--out run is not one folder for all processes"):
        check_shared(Path("run"))
    if rank() == 0:
        print("a folder that is not shared is refused")
