"""Processes of their own that are forks of one which has loaded what trains and encodes: imports take seconds each."""

import contextlib
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["smar.training.train", "smar.embedding.embed", "smar.evaluation.ablation.variants_run"])
PATIENCE = 600
"""Seconds after which a process counts as hanging; a machine may be busy."""


@contextlib.contextmanager
def quick_spawn(get_context: str) -> Iterator[None]:
    """What the function of this name gives starts such processes where it would start new interpreters."""
    with pytest.MonkeyPatch.context() as patch:
        real = multiprocessing.get_context
        patch.setattr(get_context, lambda method=None: CONTEXT if method == "spawn" else real(method))
        yield


def start(function: Callable[..., object], *arguments: object) -> BaseProcess:
    """Call a function of a module in a process of its own; what it says goes nowhere."""
    process = CONTEXT.Process(target=_told, args=(os.devnull, function, *arguments))
    process.start()
    return process


def train_until_killed(checkpoints: int, *words: object) -> None:
    """Run a command in a process that SIGKILL ends as soon as so many checkpoints are sealed."""
    _until_killed(_train, checkpoints, words)


def embed_until_killed(shards: int, run: Path, dataset: Path, out: Path, shard_rows: int) -> None:
    """Embed a catalogue in a process that SIGKILL ends as soon as so many shards are written."""
    _until_killed(_embed, shards, run, dataset, out, shard_rows)


def _until_killed(function: Callable[..., None], *arguments: object) -> None:
    with tempfile.NamedTemporaryFile("r") as said:
        process = CONTEXT.Process(target=_told, args=(said.name, function, *arguments))
        process.start()
        process.join(PATIENCE)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, said.read()[-2000:]


def _told(path: str, function: Callable[..., None], *arguments: object) -> None:
    os.dup2(os.open(path, os.O_WRONLY), 2)
    function(*arguments)


def _last(work: Callable[..., object], times: int) -> Callable[..., None]:
    """This work, of which the process dies when it has done it so many times."""
    done: list[object] = []

    def working(*arguments: object) -> None:
        done.append(work(*arguments))
        if len(done) == times:
            os.kill(os.getpid(), signal.SIGKILL)

    return working


def command(words: "tuple[object, ...]") -> int:
    """`smar` with these words."""
    from smar.cli import main

    return main([str(word) for word in words])


def _train(checkpoints: int, words: "tuple[object, ...]") -> None:
    from smar.training import checkpoints as module

    module.seal = _last(module.seal, checkpoints)  # type: ignore[assignment]
    command(words)


def _embed(shards: int, run: Path, dataset: Path, out: Path, shard_rows: int) -> None:
    from smar.data.dataset import Dataset
    from smar.embedding import shards as module
    from smar.embedding.embed import embed
    from smar.model.run_folder import load_encoder

    module.write_shard = _last(module.write_shard, shards)
    embed(load_encoder(run), Dataset.open(dataset), out, shard_rows=shard_rows)
