"""How a report came about: what the runs are called, what they were trained on and for how long."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from smar.core.errors import InputError
from smar.core.settings import Settings
from smar.data.dataset import Dataset
from smar.evaluation.findings import Facts
from smar.evaluation.metrics import Judgements
from smar.evaluation.word_baseline import NAME as BM25
from smar.model.run_folder import RunManifest, finished_stages, run_settings
from smar.model.seen import Seen, pair_keys


@dataclass(frozen=True)
class NamedRun:
    """A run folder and what the report calls its own model."""

    path: Path
    name: str


def name_runs(runs: Sequence[Path], names: Sequence[str]) -> list[NamedRun]:
    """Name the runs: as given, else one run by its model's kind ("smar") and several by their folders.

    Raises:
        InputError: there are more or fewer names than runs, two are the same, or one cannot be a file's name.
    """
    if names and len(names) != len(runs):
        raise InputError(f"--names gives {len(names)} names ({', '.join(names)}) for {len(runs)} runs; give one a run.")
    if not names:
        names = [run_settings(runs[0]).model.kind] if len(runs) == 1 else [run.resolve().name for run in runs]
    names = [re.sub(r"\s+", "_", name) for name in names]
    for name in names:
        if not re.fullmatch(r"[\w.+=-]*\w[\w.+=-]*", name) or name == BM25:
            raise InputError(
                f"{name!r} cannot name a run: letters, digits and . _ + = - only, and not {BM25}. Give --names."
            )
        if names.count(name) > 1:
            raise InputError(f"two runs are called {name!r}; tell them apart, for example --names {name}-a,{name}-b.")
    return [NamedRun(run, name) for run, name in zip(runs, names, strict=True)]


def report_facts(
    runs: Sequence[NamedRun],
    dataset: Dataset,
    settings: Settings,
    judged: Judgements,
    qrels: str | None,
    extra: Sequence[tuple[str, object]] = (),
) -> Facts:
    """The report's head: counts, where relevance comes from, `extra` lines, and of each run dataset, steps, seconds."""
    counts = dataset.manifest.counts
    own = "judged pairs of the test part" if "judged_irrelevant" in counts else "test clicks"
    rows: list[tuple[str, object]] = [
        ("items", counts["items"]),
        ("training pairs", counts["pairs_train"]),
        ("relevant are", own if qrels is None else f"judgements of {Path(qrels).name}"),
        ("queries", len(judged.queries)),
        ("judgements of unknown items, left out", judged.unknown),
        *extra,
    ]
    if nothing := int((judged.relevance.counts == 0).sum()):
        rows.append(("queries without a relevant item, not counted", nothing))
    seconds: dict[str, float] = defaultdict(float)
    for run in runs:
        of = f"{run.name}: " if len(runs) > 1 else ""
        stages = finished_stages(run.path)
        rows.append((f"{of}trained on", trained_on(run.path, dataset)))
        rows.append((f"{of}steps", "; ".join(f"{stage.kind} {stage.stage} {stage.steps:,}" for stage in stages)))
        for stage in stages:
            seconds[of + stage.kind] += stage.seconds
    return Facts(settings.data.note, rows, dict(seconds), settings.evaluate.needs_image)


def trained_on(run: Path, dataset: Dataset) -> str:
    """The run's dataset and start, and how many test pairs that are new here it has learned all the same."""
    manifest, seen = RunManifest.read(run, "smar train"), Seen.read(run)
    start = f", going on from {manifest.parent.name}" if manifest.parent else ""
    if manifest.dataset == dataset.digest and not start:
        return "this dataset"
    name = "this dataset" if manifest.dataset == dataset.digest else "ANOTHER dataset"
    if seen is None:
        return f"{name}{start}: its training pairs may hold these test clicks"
    test = dataset.pairs("test")
    new = test.filter(pc.invert(test["seen_in_train"]))
    ids = dataset.items["item_id"].take(new["item_index"])
    learned = int(np.isin(pair_keys(new["query"].to_pylist(), list(map(str, ids.to_pylist()))), seen.pairs).sum())
    return f"{name}{start}: of {len(new):,} test pairs that are new here, {learned:,} were in its training"
