"""Shards and pictures as tasks of a real Ray of two CPUs, one worker killed in the middle of each."""

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smar.core.errors import InputError
from smar.core.settings import load_settings
from smar.data import picture_parts
from smar.data.dataset import Dataset
from smar.data.prepare import prepare
from smar.embedding import shards
from smar.embedding.embed import embed
from smar.model.run_folder import load_encoder
from smar.runners.run import run
from tiny_line import Line

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        source = Path(picture_parts.__file__).parents[2]
        patch.setenv("PYTHONPATH", os.pathsep.join([str(source), str(Path(__file__).parent)]))
        ray = pytest.importorskip("ray")  # which reads them
        ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
        yield
        ray.shutdown()


def die_once(mark: Path) -> None:
    """What a node does that loses its power: nothing is cleaned up, nobody is told."""
    try:
        mark.open("x").close()
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class MortalShardTask(shards.ShardTask):
    def __call__(self, shard: shards.Shard) -> shards.Done:
        if shard.part.start:
            die_once(shard.path.parent.with_suffix(".died"))
        return super().__call__(shard)


class MortalPictureTask(picture_parts.PictureTask):
    def __call__(self, part: picture_parts.Range) -> bool:
        if part.number == 2:
            die_once(self.store.with_suffix(".died"))
        return super().__call__(part)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shards_are_those_of_one_process(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "ShardTask", MortalShardTask)
    dataset, encoder = Dataset.open(line.root / "dataset"), load_encoder(line.root / "run")
    here = embed(encoder, dataset, tmp_path / "here", 60)
    there = embed(encoder, dataset, tmp_path / "there", 60, ["auto"], "ray")
    assert (there.manifest, there.reused) == (here.manifest, 0)  # checksums of the shards among it
    assert len(here.manifest.shards) == 5
    assert (tmp_path / "there.died").exists()
    assert embed(encoder, dataset, tmp_path / "there", 60, ["auto"], "ray").reused == 5


def test_pictures_are_those_of_one_process(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_parts, "PictureTask", MortalPictureTask)
    monkeypatch.setattr(picture_parts, "PART_ITEMS", 64)
    settings = load_settings(None, ["data.image_size=32", "data.workers=1"]).data
    tables = {name: str(line.root / "shop" / f"{name}.parquet") for name in ("items", "clicks")}
    prepare(settings, **tables, out=tmp_path / "here")
    prepare(settings, **tables, out=tmp_path / "there", runner="ray")
    assert (tmp_path / "there.died").exists()
    assert content(tmp_path / "there") == content(tmp_path / "here")


def broken(part: Any) -> None:
    if part == "mortal":
        os.kill(os.getpid(), signal.SIGKILL)
    raise InputError("it is wrong") if part == "wrong" else ValueError("a mistake")


def test_a_failure_names_its_part() -> None:
    with pytest.raises(InputError, match=r"mortal: the process that worked on it died 3 times"):
        list(run([broken], ["mortal"], 1, "", "ray"))
    with pytest.raises(InputError, match=r"wrong: on node .*: it is wrong"):
        list(run([broken], ["wrong"], 1, "", "ray"))
    with pytest.raises(ValueError, match="a mistake") as seen:
        list(run([broken], ["other"], 1, "", "ray"))
    assert "in other" in seen.value.__notes__
