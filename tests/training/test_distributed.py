"""Two real processes on this machine equal one process with the doubled batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from smar.model.run_folder import StageRecord
from smar.training import distributed
from tiny_line import Line, smar

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
STEPS = 20


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    """Two processes; `--standalone` takes a free port of 127.0.0.1."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    paths = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
    command = [*launcher, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def test_helpers_do_nothing_in_one_process():
    rows = torch.randn(3, 2, requires_grad=True)
    assert distributed.gather_rows(rows, [3]) is rows
    assert (distributed.world(), distributed.rank(), distributed.total(2.5)) == (1, 0, 2.5)
    rows.sum().backward()
    distributed.average_gradients([rows])
    assert torch.equal(rows.grad, torch.ones(3, 2))


def test_gradients_of_two_processes_are_those_of_the_whole_batch():
    done = torchrun(HERE / "two_processes.py")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "process 1 sees no picture" in done.stdout
    assert "a folder that is not shared is refused" in done.stdout


def training(line: Line, out: Path, batch_size: int) -> list[object]:
    """A stage without chance and without batch normalisation; a small rate, for AdamW makes noise of tiny gradients."""
    stage = f"{{steps: {STEPS}, batch_size: {batch_size}, learning_rate: 0.0001}}"
    options = [
        *("model.vision.kind=vit", "model.modality_dropout=0", "train.bf16=false", "train.baselines=[]"),
        *(f"train.stage1={stage}", "train.stage2.steps=1", "train.save_steps=15", "train.evaluate_steps=10"),
    ]
    words = [word for option in options for word in ("--set", option)]
    return ["train", line.dataset, "--out", out, "--config", line.config, *words]


def test_torchrun_trains_the_model_of_one_process(line: Line, tmp_path: Path):
    two, one = tmp_path / "two", tmp_path / "one"
    done = torchrun("-m", "smar", *training(line, two, 16))
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("next: smar evaluate") == 1
    single = smar(*training(line, one, 32))
    assert single.code == 0, single.err
    theirs, ours = (load_file(run / "stage1" / "model.safetensors") for run in (one, two))
    assert max(float((theirs[name] - ours[name]).abs().max()) for name in theirs) < 1e-5
    start = load_file(next(iter(one.glob("stage2/model.safetensors"))))
    assert start.keys() == ours.keys()
    records = [StageRecord.read(run / "stage1", "smar train") for run in (one, two)]
    assert [record.pairs for record in records] == [STEPS * 32] * 2
    assert [record.processes for record in records] == [1, 2]
    assert records[0].validated == records[1].validated
    assert not list(two.rglob("checkpoint-*"))
