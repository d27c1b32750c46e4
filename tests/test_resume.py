"""Killed with SIGKILL in the middle, then run again: the result is the one of a run that nobody disturbed."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from preloaded import embed_until_killed, train_until_killed
from smar.data.dataset import Dataset
from smar.embedding.embed import embed
from smar.model.run_folder import StageRecord, load_encoder
from smar.training import checkpoints
from smar.training.checkpoints import Spent, seal
from tiny_line import Line, smar

pytestmark = pytest.mark.slow
SHARDS = 38
"""300 items, 8 in a shard."""


@pytest.fixture(scope="module")
def killed(line: Line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose process was killed after a checkpoint of its first stage."""
    run = tmp_path_factory.mktemp("killed") / "run"
    train_until_killed(1, "train", line.dataset, "--out", run, "--config", line.config)
    assert not (run / "stage2" / "manifest.json").exists()
    for sealed in run.glob("stage1/checkpoint-*/seal.json"):
        state = json.loads((sealed.parent / "trainer_state.json").read_text())
        assert state["epoch"] % 1, "the checkpoint lies at the end of an epoch"
    return run


def test_train_resumes_bit_for_bit(line: Line, killed: Path, tmp_path: Path) -> None:
    """A checkpoint that the kill cut off while it was written is named and left out."""
    run = Path(shutil.copytree(killed, tmp_path / "run"))
    sealed = next(run.glob("stage1/checkpoint-*/seal.json")).parent
    cut_off = Path(shutil.copytree(sealed, run / "stage1" / "checkpoint-900"))
    (cut_off / "seal.json").unlink()
    done = smar("train", line.dataset, "--out", run, "--config", line.config)
    assert done.code == 0, done.err
    assert done.says("checkpoint-900 was not finished when the run was stopped")
    assert done.says("smar stage1: going on from checkpoint-")
    models = sorted(path.relative_to(line.run) for path in line.run.rglob("stage*/model.safetensors"))
    assert len(models) == 6
    for model in models:
        assert (run / model).read_bytes() == (line.run / model).read_bytes(), f"{model} differs"
        resumed, whole = (StageRecord.read((root / model).parent, "smar train") for root in (run, line.run))
        assert resumed.validated == whole.validated
        assert (resumed.steps, resumed.pairs) == (whole.steps, whole.pairs)
    assert not list(run.rglob("checkpoint-*"))


def step(checkpoint: Path) -> int:
    return int(checkpoint.name.split("-")[1])


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "seal.json"])
def test_corrupt_checkpoint_is_refused(line: Line, killed: Path, tmp_path: Path, name: str) -> None:
    run = Path(shutil.copytree(killed, tmp_path / "run"))
    newest = max(run.glob("stage1/checkpoint-*"), key=lambda path: (path / "seal.json").exists() and step(path))
    content = bytearray((newest / name).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / name).write_bytes(content if name != "seal.json" else content[: len(content) // 2])
    failed = smar("train", line.dataset, "--out", run, "--config", line.config)
    assert failed.code == 2, failed.err
    assert failed.says(f"{newest} is corrupt", name, "Delete")


def interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_checkpoint_runs_no_code(
    line: Line, killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The seal is no signature; what PyTorch wrote is read by its restricted reader, or not at all."""
    run = Path(shutil.copytree(killed, tmp_path / "run"))
    newest = max(run.glob("stage1/checkpoint-*"), key=lambda path: (path / "seal.json").exists() and step(path))
    torch.save(Hostile(tmp_path / "mark"), newest / name)
    seal(newest, Spent())
    monkeypatch.setattr(checkpoints, "seal", interrupt)  # at the next checkpoint: further it need not come
    if name == "training_args.bin":
        assert smar("train", line.dataset, "--out", run, "--config", line.config).code == 130
    else:
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            smar("train", line.dataset, "--out", run, "--config", line.config)
    assert not (tmp_path / "mark").exists()


def test_embed_resumes(line: Line, tmp_path: Path) -> None:
    encoder, dataset = load_encoder(line.run), Dataset.open(line.dataset)
    whole = embed(encoder, dataset, tmp_path / "whole", shard_rows=8)
    out = tmp_path / "out"
    embed_until_killed(3, line.run, line.dataset, out, 8)
    assert not (out / "manifest.json").exists()
    unfinished = smar("index", out, "--out", tmp_path / "index")
    assert unfinished.code == 2
    assert unfinished.says("did not finish")
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.parquet")}
    resumed = embed(encoder, dataset, out, shard_rows=8)
    assert resumed.reused == len(before) == 3
    assert all((out / name).stat().st_mtime_ns == written for name, written in before.items())
    assert resumed.manifest == whole.manifest
    assert len(whole.manifest.shards) == SHARDS
    for shard in whole.manifest.shards:
        assert (out / shard.file).read_bytes() == (tmp_path / "whole" / shard.file).read_bytes()
