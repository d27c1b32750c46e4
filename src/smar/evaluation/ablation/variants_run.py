"""Train and measure every variant, finished ones excepted; several at once in processes of one thread each.

FOLDER/<variant>/seed-<n>/             a run folder of `smar train`, and the row:
FOLDER/<variant>/seed-<n>/queries.parquet   metrics of each query by slice and mode
FOLDER/<variant>/seed-<n>/row.json          written last: what was measured, bound to settings, dataset and questions
"""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

import smar
from smar.core.errors import InputError, TrainingError
from smar.core.files import atomic, sha256
from smar.core.processes import end_with_parent
from smar.core.progress import console
from smar.core.settings import Settings, load_settings
from smar.data.dataset import Dataset
from smar.evaluation.ablation.questions import Answers, answer, collect
from smar.evaluation.ablation.variants import Plan, Variant
from smar.evaluation.encoded_items import encode_catalogue
from smar.evaluation.metrics import QueryMetrics
from smar.evaluation.qrels import question_files
from smar.model.device import pick_device
from smar.model.run_folder import CONFIG_FILE, load_encoder
from smar.training.train import open_run, train


class Row(BaseModel):
    """``row.json``: one variant trained with one seed. Training figures are sums over both stages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    variant: str
    seed: int
    code: str
    steps: tuple[int, ...]
    pairs: int
    seconds: float
    cpu_seconds: float
    parameters: int
    recall: dict[str, dict[str, float]]
    queries_sha256: str


@dataclass(frozen=True)
class Job:
    """One variant with one seed, the folder it goes to, and what it is measured by."""

    variant: Variant
    seed: int
    folder: Path
    dataset: Path
    digest: str
    evaluate_on: str
    qrels: Path | None

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.variant.name} (seed {self.seed})"

    @property
    def settings(self) -> Settings:
        """The variant's settings with this seed."""
        settings = self.variant.settings
        return settings.model_copy(update={"train": settings.train.model_copy(update={"seed": self.seed})})

    @property
    def key(self) -> str:
        """Identity of the measurement. Defaults are left out, so that an option added to smar later changes nothing."""
        judged = None if self.qrels is None else "".join(map(sha256, question_files(self.qrels)))
        fields = {"k", "dim", "needs_image", "slice_queries"}
        options = self.variant.settings.evaluate.model_dump(exclude_defaults=True, include=fields)
        parts = [options, self.digest, self.evaluate_on, judged]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def finished(self) -> Row | None:
        """The row, if it is there, whole, and of these settings and questions."""
        try:
            row = Row.model_validate_json((self.folder / "row.json").read_bytes())
            trained = load_settings(self.folder / CONFIG_FILE)
        except (FileNotFoundError, ValidationError, InputError):
            return None
        queries = self.folder / "queries.parquet"
        whole = queries.is_file() and sha256(queries) == row.queries_sha256
        parts = ("data", "model", "train")
        same = all(getattr(trained, part) == getattr(self.settings, part) for part in parts)
        return row if whole and same and row.key == self.key else None

    @property
    def state(self) -> str:
        """`finished`, `started` (goes on from its last checkpoint) or `to do`."""
        if self.finished():
            return "finished"
        return "started" if any(self.folder.glob("stage*")) else "to do"


def make_jobs(plan: Plan, variants: Sequence[Variant], dataset: Dataset, out: Path, qrels: Path | None) -> list[Job]:
    """Every variant with every seed."""
    options = plan.settings.ablate
    if qrels is not None and not qrels.is_file():
        raise InputError(f"--qrels {qrels} is no file.")
    return [
        Job(
            variant,
            seed,
            out / variant.name / f"seed-{seed}",
            dataset.path,
            dataset.digest,
            options.evaluate_on,
            qrels,
        )
        for variant in variants
        for seed in options.seeds
    ]


def run_jobs(jobs: Sequence[Job], workers: int, device: str = "auto") -> Iterator[tuple[Job, str]]:
    """Do the jobs and yield each as it ends, with what went wrong (empty: nothing). A failed one stops no other.

    Raises:
        InputError: a folder holds a run of other settings; nothing was trained then.
    """
    for job in jobs:
        open_run(Dataset.open(job.dataset), job.folder, job.settings)
    if workers == 1:
        for job in jobs:
            console.print(f"[bold]{job.name}[/bold]")
            yield job, _attempt(job, device)
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the workers
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin) as pool:
        waiting: dict[Future[str], Job] = {pool.submit(_attempt, job, device): job for job in jobs}
        try:
            for future in as_completed(waiting):
                died = isinstance(future.exception(), BrokenProcessPool)
                fault = "a process died, perhaps for lack of memory: try fewer --workers"
                yield waiting[future], fault if died else future.result()
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _begin() -> None:
    """A worker is silent, leaves Ctrl-C to its parent, and ends when its parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    console.quiet = True
    end_with_parent()


def _attempt(job: Job, device: str) -> str:
    try:
        perform(job, device)
    except (InputError, TrainingError, OSError, MemoryError) as error:
        return str(error) or type(error).__name__
    return ""


def perform(job: Job, device: str = "auto") -> Row:
    """Train one variant, or finish its training, then measure it."""
    dataset, options = Dataset.open(job.dataset), job.settings.evaluate
    stages = train(dataset, job.folder, job.settings, device=device).stages
    encoder = load_encoder(job.folder, device=pick_device(device))
    questions = collect(dataset, options, job.evaluate_on, job.qrels)
    catalogue = encode_catalogue(encoder, dataset, job.variant.name)
    answers = answer(encoder, dataset, catalogue, questions, options.k, options.dim)
    write_answers(job.folder / "queries.parquet", answers)
    recall: dict[str, dict[str, float]] = {}
    for (piece, mode), metrics in answers.items():
        recall.setdefault(mode, {})[piece] = float(metrics.recall.mean())
    row = Row(
        key=job.key,
        variant=job.variant.name,
        seed=job.seed,
        code=code_version(),
        steps=tuple(stage.steps for stage in stages),
        pairs=sum(stage.pairs for stage in stages),
        seconds=sum(stage.seconds for stage in stages),
        cpu_seconds=sum(stage.cpu_seconds for stage in stages),
        parameters=sum(weights.numel() for weights in encoder.model.parameters()),
        recall=recall,
        queries_sha256=sha256(job.folder / "queries.parquet"),
    )
    with atomic(job.folder / "row.json") as partial:
        partial.write_text(row.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return row


def write_answers(path: Path, answers: Answers) -> None:
    """One row for each slice, mode and query: slice, mode, query (its number), recall, precision, ndcg, rr."""
    names = [
        pa.array(np.repeat([key[at] for key in answers], [len(m.rows) for m in answers.values()])).dictionary_encode()
        for at in (0, 1)
    ]
    columns = [asdict(metrics) for metrics in answers.values()]
    numbers = {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}
    table = pa.table({"slice": names[0], "mode": names[1], **numbers}).rename_columns({"rows": "query"})
    with atomic(path) as partial:
        pq.write_table(table, partial, compression="zstd")


def read_answers(path: Path) -> Answers:
    """What `write_answers` wrote."""
    table = pq.read_table(path)
    pieces, modes = (table[name].to_numpy() for name in ("slice", "mode"))
    starts = np.flatnonzero((pieces[1:] != pieces[:-1]) | (modes[1:] != modes[:-1])) + 1
    bounds = [0, *starts.tolist(), len(table)]
    numbers = [table[name].to_numpy() for name in ("query", "recall", "precision", "ndcg", "rr")]
    return {
        (str(pieces[start]), str(modes[start])): QueryMetrics(*(column[start:end] for column in numbers))
        for start, end in pairwise(bounds)
    }


def code_version() -> str:
    """Commit of the source that runs, with ``-dirty`` where it was changed since; the release where git knows none."""
    package = Path(smar.__file__).parent
    git = ["git", "-C", str(package)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], check=True, capture_output=True)
        command = [*git, "describe", "--always", "--dirty", "--abbrev=10", "--exclude=*"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"smar {smar.__version__}"
