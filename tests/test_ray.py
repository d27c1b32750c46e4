"""Shards, pictures and reports as tasks of a real Ray of two CPUs, one worker killed in the middle of each."""

import os
import secrets
import signal
import threading
import time
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
from smar.evaluation import encoded_items
from smar.model.run_folder import load_encoder
from smar.runners.run import run
from tiny_line import Line, smar

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


class LoggedShardTask(shards.ShardTask):
    """Writes down which process begins which shard; the first to begin the third one waits there to be killed."""

    def __call__(self, shard: shards.Shard) -> shards.Done:
        log = shard.path.parent.with_suffix(".begun")
        with log.open("a") as begun:
            begun.write(f"{os.getpid()} {shard.path.name}\n")
        if shard.part.start == 120 and log.read_text().count(shard.path.name) == 1:
            time.sleep(600)
        return super().__call__(shard)


class MortalCatalogueTask(encoded_items.CatalogueTask):
    def __call__(self, part: encoded_items.CataloguePart) -> tuple[int, encoded_items.Arrays]:
        if part.start:
            die_once(self.dataset.with_suffix(".died"))
        return super().__call__(part)


class BrokenCatalogueTask(encoded_items.CatalogueTask):
    def __call__(self, part: encoded_items.CataloguePart) -> tuple[int, encoded_items.Arrays]:
        raise InputError("it is wrong")


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


def test_a_worker_that_is_killed_costs_its_own_shard_only(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "ShardTask", LoggedShardTask)
    dataset, encoder = Dataset.open(line.root / "dataset"), load_encoder(line.root / "run")
    here, there, log = tmp_path / "here", tmp_path / "there", tmp_path / "there.begun"

    def kill() -> None:
        while not log.exists() or "shard-00002" not in log.read_text():
            time.sleep(0.05)
        owner = next(words[0] for words in map(str.split, log.read_text().splitlines()) if "00002" in words[1])
        os.kill(int(owner), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    embed(encoder, dataset, here, 60)
    embed(encoder, dataset, there, 60, ["cpu"], "ray")
    killer.join(1)
    begun = sorted(text.split()[1] for text in log.read_text().splitlines())
    assert begun == sorted([f"shard-{at:05d}.parquet" for at in range(5)] + ["shard-00002.parquet"])
    ours, theirs = ({name: own for name, own in content(one).items() if "query" not in name} for one in (here, there))
    assert theirs == ours


def report(line: Line, out: Path, runner: str) -> dict[str, bytes]:
    """Tables, rankings and metrics by query of a report; its page tells the time."""
    done = smar("evaluate", line.run, line.dataset, "--out", out, "--runner", runner, "--device", "cpu")
    assert done.code == 0, done.err
    return {name: own for name, own in content(out).items() if name.endswith((".json", ".csv", ".parquet", ".trec"))}


def test_a_report_is_that_of_one_process(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded_items, "CatalogueTask", MortalCatalogueTask)
    monkeypatch.setattr(encoded_items, "PART_ITEMS", 256)
    here, there = (report(line, tmp_path / runner, runner) for runner in ("local", "ray"))
    assert line.dataset.with_suffix(".died").exists()
    assert {"metrics.json", "per-query.parquet", "runs/smar.trec"} <= here.keys()
    assert there == here


def test_a_part_of_a_report_that_fails_is_named_with_its_items(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoded_items, "CatalogueTask", BrokenCatalogueTask)
    done = smar("evaluate", line.run, line.dataset, "--out", tmp_path / "report", "--runner", "ray")
    assert done.code == 2
    assert done.says("encode items (dpsr): rows 0 to", "of items.parquet: on node", "it is wrong")


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
