"""The run folder as later stages see it: which dataset it belongs to, which stages are finished, its models."""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict

from smar.core.errors import InputError
from smar.core.files import Manifest, StrPath
from smar.core.settings import Settings, load_settings
from smar.model.device import CPU
from smar.model.encoder import Encoder, fingerprint

STAGES = ("stage0", "stage1", "stage2")
CONFIG_FILE = "config.yaml"


class Parent(BaseModel):
    """The finished run that another goes on from: its folder's name, its model's fingerprint, its dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    fingerprint: str
    dataset: str


class RunManifest(Manifest):
    """``RUN/manifest.json``: what the run was trained on; how many pictures that has; which run it goes on from."""

    format: str = "smar-run/1"
    dataset: str
    pictures: int | None = None
    parent: Parent | None = None


class Validated(BaseModel):
    """What validation said of a stage's weights: R@`k` after `step`, over `queries` queries among `items` items."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    k: int
    recall: float
    queries: int
    items: int


class StageRecord(Manifest):
    """``STAGE/manifest.json`` of a finished stage. `kind` is the model's name in the report: its kind, or its own.

    `steps` were trained; `validated.step` says which of them the weights are of. `seconds` and `cpu_seconds` add up
    over interruptions; `cpu_seconds` over processes and threads, too. `start`: SHA-256 of the pretrained encoders that
    the model's first stage began from.
    """

    kind: str
    stage: str
    steps: int
    pairs: int
    seconds: float
    cpu_seconds: float = 0.0
    loss: float | None = None
    pairs_per_second: float | None = None
    processes: int = 1
    validated: Validated | None = None
    start: str | None = None


def run_settings(run: StrPath, assignments: Sequence[str] = ()) -> Settings:
    """The complete configuration of a run, ``section.key=value`` texts applied; raises InputError where it is none."""
    run = Path(run)
    RunManifest.read(run, "smar train")
    return load_settings(run / CONFIG_FILE, assignments)


def load_encoder(run: StrPath, baseline: str | None = None, device: torch.device = CPU) -> Encoder:
    """The finished model of a run, or its baseline of the given name, on a device.

    Raises:
        InputError: the run is missing, unfinished or damaged.
    """
    run = Path(run)
    settings = run_settings(run)
    if baseline is not None and baseline not in (known := baselines(run)):
        raise InputError(f"{run} has no baseline {baseline}; it has {', '.join(known) or 'none'}.")
    folder = (run if baseline is None else run / "baselines" / baseline) / "stage2"
    if not (folder / "manifest.json").is_file():
        raise InputError(
            f"{run} is not finished: {folder} has no trained model. Run `smar train` with the same --out again."
        )
    return Encoder.from_pretrained(folder, settings.train.bf16, device)


def find_parent(run: StrPath) -> Path | None:
    """The folder that a warm-started run goes on from, where it lies beside the run as it was; None if not."""
    run = Path(run)
    parent = RunManifest.read(run, "smar train").parent
    if parent is None:
        return None
    folder = run.resolve().parent / parent.name
    return folder if fingerprint(folder / "stage2") == parent.fingerprint else None


def baselines(run: StrPath) -> list[str]:
    """Names of the baselines that the run holds, in the order of its configuration."""
    run = Path(run)
    names = [baseline.label for baseline in run_settings(run).train.baselines]
    return [name for name in names if (run / "baselines" / name).is_dir()]


def finished_stages(run: StrPath) -> list[StageRecord]:
    """Records of every finished stage: the run's own model, then its baselines by name."""
    run = Path(run)
    folders = [run, *(run / "baselines" / name for name in baselines(run))]
    stages = [folder / stage for folder in folders for stage in STAGES]
    return [StageRecord.read(stage, "smar train") for stage in stages if (stage / "manifest.json").is_file()]
