"""Shards of several calls: the bytes of one call, whoever made which part."""

import os
import signal
from pathlib import Path

import pytest

from preloaded import quick_spawn
from smar.commands.arguments import part
from smar.core.errors import InputError
from smar.data.dataset import Dataset
from smar.embedding import shards
from smar.embedding.embed import embed, embed_part
from smar.model.run_folder import load_encoder
from smar.runners.run import Part, run
from tiny_line import Line


def content(folder: Path) -> dict[str, bytes]:
    """Every file of the embeddings but the exported graph, whose bytes are no part of what is promised."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_parts_in_any_order_and_a_last_call_write_the_bytes_of_one(line: Line, tmp_path: Path) -> None:
    dataset, encoder = Dataset.open(line.root / "dataset"), load_encoder(line.root / "run")
    embed(encoder, dataset, tmp_path / "one", 100)
    made = [embed_part(encoder, dataset, tmp_path / "parts", part(text), 100) for text in ("3/4", "1/4", "4/4")]
    assert [(done.shards, done.reused) for done in made] == [(1, 0), (1, 0), (0, 0)]
    assert not (tmp_path / "parts" / "manifest.json").exists()
    (tmp_path / "parts" / "shard-00001.parquet.0123.partial").write_bytes(b"of a killed process")
    assert embed(encoder, dataset, tmp_path / "parts", 100).reused == 2
    assert content(tmp_path / "parts") == content(tmp_path / "one")


def test_a_part_of_another_shape_is_refused(line: Line, tmp_path: Path) -> None:
    dataset, encoder = Dataset.open(line.root / "dataset"), load_encoder(line.root / "run")
    embed_part(encoder, dataset, tmp_path / "e", Part(1, 3), 100)
    with pytest.raises(InputError, match="holds vectors of model"):
        embed_part(encoder, dataset, tmp_path / "e", Part(2, 3), 50)


def test_a_task_that_finds_no_job_says_that_the_folder_must_be_shared(tmp_path: Path) -> None:
    task = shards.ShardTask(tmp_path, tmp_path, "model", False, "cpu", None)
    shard = shards.Shard(slice(4096, 8192), tmp_path / "shard-00001.parquet")
    with pytest.raises(InputError, match=r"shard-00001.parquet \(rows 4,096 to 8,191 of items.parquet\): .* shared"):
        list(run([task], [shard], 1, ""))


def broken(part: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_time_after_time_is_named_with_its_part() -> None:
    with (
        quick_spawn("smar.runners.local.get_context"),
        pytest.raises(InputError, match=r"shard 7: the process that worked on it died 3 times"),
    ):
        list(run([broken] * 2, ["shard 7"], 1, ""))
