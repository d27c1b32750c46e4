"""Runs that differ in their seed only are one row; all others stay apart."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from smar.evaluation.facts import NamedRun
from smar.evaluation.scores import Rankings
from smar.evaluation.seeds import SeedGroup, join_seeds, seed_groups
from smar.evaluation.systems import RankedRun, System, name_systems
from smar.model.run_folder import RunManifest

NOTHING = Rankings(np.zeros((0, 1), np.int64), np.zeros(0, np.int64))


def run(folder: Path, seed: int, dataset: str = "d", **train: object) -> NamedRun:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"train": {"seed": seed, **train}}))
    RunManifest(dataset=dataset).write(folder)
    return NamedRun(folder, folder.name)


def test_equal_settings_and_dataset_make_seeds(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "run-s1", 1),
        run(tmp_path / "other", 1, temperature=0.2),
        run(tmp_path / "run-s2", 2),
        run(tmp_path / "elsewhere", 3, dataset="e"),
        run(tmp_path / "run-s13", 13),
    ]
    assert seed_groups(runs) == [SeedGroup("run", ("run-s1", "run-s2", "run-s13"), (1, 2, 13))]
    assert seed_groups(runs[:2]) == []
    assert seed_groups([*runs, run(tmp_path / "copy", 2)]) == []  # two runs of one seed are no seeds


@pytest.mark.parametrize(
    ("names", "want"),
    [
        (("base/seed-0", "base/seed-1"), "base"),
        (("x/run", "x/run-2"), "run"),
        (("v2_seed_1", "v2_seed_2"), "v2"),
        (("shop/one", "shop/two"), "shop"),
        (("p/s1", "p/s22"), "p"),
    ],
)
def test_what_the_row_is_called(tmp_path: Path, names: tuple[str, ...], want: str) -> None:
    (group,) = seed_groups([run(tmp_path / name, seed) for seed, name in enumerate(names)])
    assert (group.name, group.row) == (want, f"{want} (2 seeds)")


def ranked(name: str, *others: str) -> RankedRun:
    return RankedRun(name, NOTHING, dict.fromkeys(others, NOTHING), None, 0.5)


def test_every_row_of_the_seeds_is_joined_where_its_first_one_stood() -> None:
    first = [System("bm25", NOTHING, None)]
    seeds = [ranked(name, "dpsr", "multimodal", "shuffled", "oracle-gate") for name in ("r-1", "r-2")]
    alone = join_seeds(name_systems(seeds, first), [SeedGroup("r", ("r-1", "r-2"), (1, 2))])
    names = [
        "bm25",
        "dpsr (2 seeds)",
        "multimodal (2 seeds)",
        "r (2 seeds)",
        "oracle-gate (2 seeds)",
        "shuffled (2 seeds)",
    ]
    assert [s.name for s in alone] == names
    assert [s.run for s in alone] == [None, *["r (2 seeds)"] * 5]
    assert alone[1].mean_of == ("r-1/dpsr", "r-2/dpsr")
    assert [(s.control, s.bound) for s in alone[4:]] == [(True, True), (True, False)]
    mixed = name_systems([ranked("b", "dpsr"), *seeds, ranked("dpsr", "x")], first)
    joined = join_seeds(mixed, [SeedGroup("r", ("r-1", "r-2"), (1, 2))])
    assert [s.name for s in joined][:7] == [
        *("bm25", "b/dpsr", "b", "r/dpsr (2 seeds)", "multimodal (2 seeds)", "r (2 seeds)", "x"),
    ]
    assert len({s.name for s in joined}) == len(joined)


def test_a_row_that_one_seed_lacks_is_not_joined() -> None:
    systems = name_systems([ranked("r-1", "dpsr"), ranked("r-2")])
    joined = join_seeds(systems, [SeedGroup("r", ("r-1", "r-2"), (1, 2))])
    assert [s.name for s in joined] == ["dpsr", "r (2 seeds)"]
