"""Several seeds of one configuration: which runs they are, and the rows that are their means.

Runs are seeds of one configuration where dataset and settings are equal but for `train.seed`. Each row of such runs is
the mean of the seeds' rows; in tests and intervals a query counts once, with its mean over the seeds.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from smar.evaluation.facts import NamedRun
from smar.evaluation.systems import System
from smar.model.run_folder import RunManifest, run_settings


@dataclass(frozen=True)
class SeedGroup:
    """Runs (names) of one configuration with their seeds, and what the report calls them together."""

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]

    @property
    def row(self) -> str:
        """Name of the row of their own models."""
        return f"{self.name} ({len(self.runs)} seeds)"


def seed_groups(runs: Sequence[NamedRun]) -> list[SeedGroup]:
    """Runs that differ in their seed only, in order of the first ones; two runs of one seed are no seeds."""
    alike: dict[str, list[tuple[NamedRun, int]]] = {}
    for run in runs:
        seed, configuration = _configuration(run.path)
        alike.setdefault(configuration, []).append((run, seed))
    groups: list[SeedGroup] = []
    for members in alike.values():
        names, seeds = tuple(run.name for run, _ in members), tuple(seed for _, seed in members)
        if len(names) > 1 and len({*seeds}) == len(seeds):
            name = _common(members[0][0].path, names)
            clash = name in {group.name for group in groups}
            groups.append(SeedGroup(names[0] if clash else name, names, seeds))
    return groups


def _configuration(run: Path) -> tuple[int, str]:
    settings = run_settings(run)
    train = settings.train.model_copy(update={"seed": 0})
    parts = [part.model_dump_json() for part in (settings.data, settings.model, train)]
    manifest = RunManifest.read(run, "smar train")
    start = manifest.parent.dataset if manifest.parent else ""  # runs that go on from seeds are seeds
    return settings.train.seed, "\n".join([manifest.dataset, start, *parts])


def _common(first: Path, names: Sequence[str]) -> str:
    """The names without the seed where they are then the same ("run-s1", "run-s2": "run"), else the runs' folder."""
    start = {re.sub(r"(^|[-_.+=])(seed|s)?[-_.+=]*\d+$", "", name) for name in names}
    folder = re.sub(r"\s+", "_", first.resolve().parent.name)
    return (start.pop() if len(start) == 1 else "") or folder or names[0]


def join_seeds(systems: Sequence[System], groups: Sequence[SeedGroup]) -> list[System]:
    """The rows to show: in place of the seeds' rows their means, each where its first one stood.

    A row is joined where all runs of the group have it. It goes by its plain name where only this group has it.
    """
    taken = {group.name for group in groups}
    kinds = {(system.run, system.kind): system for system in systems}
    joined: dict[str, System] = {}
    for group in groups:
        for system in [system for system in systems if system.run == group.runs[0]]:
            members = [kinds.get((run, system.kind)) for run in group.runs]
            if None in members:
                continue
            mean = tuple(member.name for member in members if member)
            alone = {run for run, kind in kinds if kind == system.kind} <= {*group.runs} and system.kind not in taken
            plain = system.kind if alone else f"{group.name}/{system.kind}"
            name = f"{plain} ({len(mean)} seeds)" if system.kind else group.row
            joined[mean[0]] = replace(system, name=name, run=group.row, mean_of=mean)
    hidden = {name for system in joined.values() for name in system.mean_of}
    shown = [joined.get(system.name, system) for system in systems]
    return [system for system in shown if system.name not in hidden]
