"""`smar ablate`: plan, train what is missing, measure, and write the table after every row."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from smar.core.errors import TrainingError
from smar.core.files import StrPath
from smar.core.progress import console
from smar.data.dataset import Dataset
from smar.evaluation.ablation.rows import collect_rows
from smar.evaluation.ablation.table import print_rows, write_table
from smar.evaluation.ablation.variants import Plan, chosen, make_plan
from smar.evaluation.ablation.variants_run import Job, make_jobs, run_jobs
from smar.model.device import all_devices


@dataclass(frozen=True)
class AblateSummary:
    """Rows in the table, rows that the configuration plans, variants trained or measured by this call, its seconds."""

    rows: int
    planned: int
    trained: int
    seconds: float


def _jobs(
    config: StrPath,
    dataset_path: StrPath,
    out: StrPath,
    only: Sequence[str],
    qrels: StrPath | None,
    assignments: Sequence[str],
) -> tuple[Dataset, Plan, list[Job], list[Job]]:
    """The dataset, the plan, all jobs and the chosen ones."""
    config = Path(config)
    dataset_path = Path(dataset_path)
    out = Path(out)
    qrels = None if qrels is None else Path(qrels)
    dataset = Dataset.open(dataset_path)
    plan = make_plan(config, assignments, dataset)
    wanted = {variant.name for variant in chosen(plan, only)}
    jobs = make_jobs(plan, plan.variants, dataset, out, qrels)
    return dataset, plan, jobs, [job for job in jobs if job.variant.name in wanted]


def ablate(
    config: StrPath,
    dataset_path: StrPath,
    out: StrPath,
    *,
    only: Sequence[str] = (),
    workers: int = 1,
    qrels: StrPath | None = None,
    assignments: Sequence[str] = (),
    device: str = "auto",
) -> AblateSummary:
    """Train and measure the variants that have no row yet, and write ``ablation.md``, ``ablation.json`` and charts.

    Args:
        config: YAML file; its section `ablate` lists the variants.
        dataset_path: made by `smar prepare`.
        out: folder of the table; every variant has its run below it.
        only: names of the variants to train; all when empty. Rows finished earlier are in the table, too.
        workers: variants trained at the same time, each by a process of one thread.
        qrels: judgements to measure beside the clicks.
        assignments: ``section.key=value`` texts, stronger than the file, weaker than a variant.
        device: `auto`, `cpu` or `cuda`: what trains and encodes.

    Raises:
        InputError: configuration, dataset, a variant or a folder of an earlier call is wrong; nothing was trained.
        TrainingError: variants failed; the others have their rows.
    """
    all_devices(device)  # refused before anything is read
    started, out = time.perf_counter(), Path(out)
    dataset, plan, jobs, wanted = _jobs(config, dataset_path, out, only, qrels, assignments)
    waiting = [job for job in wanted if not job.finished()]
    failed: list[str] = []
    for number, (job, fault) in enumerate(run_jobs(waiting, workers, device), start=1):
        if fault:
            failed.append(f"{job.name}: {fault}")
        console.print(f"{number} of {len(waiting)}: {job.name} {fault or 'done'}", markup=False, soft_wrap=True)
        if number < len(waiting):
            write_table(out, plan, dataset, collect_rows(plan, jobs))
    rows = collect_rows(plan, jobs)
    if rows:
        write_table(out, plan, dataset, rows)
        print_rows(rows, plan)
    if failed:
        raise TrainingError("these variants have no row: " + "; ".join(failed))
    return AblateSummary(len(rows), len(plan.variants), len(waiting), time.perf_counter() - started)


def print_plan(
    config: StrPath,
    dataset_path: StrPath,
    out: StrPath,
    *,
    only: Sequence[str] = (),
    qrels: StrPath | None = None,
    assignments: Sequence[str] = (),
) -> None:
    """Print the variants that `ablate` would train, and the built-in ones left out; nothing is written."""
    _, plan, _, wanted = _jobs(config, dataset_path, out, only, qrels, assignments)
    table = Table(box=None, pad_edge=False)
    for name in ("variant", "seed", "steps", "state", "changes"):
        table.add_column(name, overflow="fold")
    for job in wanted:
        train = job.settings.train
        changes = ", ".join(f"{key}={value}" for key, value in job.variant.changes.items())
        steps = f"{train.stage1.steps} + {train.stage2.steps}"
        table.add_row(job.variant.name, str(job.seed), steps, job.state, changes)
    console.print(table, markup=False)
    for name, reason in plan.left_out:
        console.print(f"left out: {name}: {reason}", markup=False, soft_wrap=True)
