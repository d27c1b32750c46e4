"""The run folder as later stages see it: which dataset it belongs to, which stages are finished, its models."""

from pathlib import Path

from smar.errors import InputError
from smar.files import Manifest
from smar.model.configuration import KINDS
from smar.model.encoder import Encoder
from smar.settings import Settings, load_settings

STAGES = ("stage0", "stage1", "stage2")
CONFIG_FILE = "config.yaml"


class RunManifest(Manifest):
    """``RUN/manifest.json``: what the run was trained on."""

    format: str = "smar-run/1"
    dataset: str


class StageRecord(Manifest):
    """``STAGE/manifest.json`` of a finished stage."""

    kind: str
    stage: str
    steps: int
    pairs: int
    seconds: float
    loss: float | None = None


def run_settings(run: Path) -> Settings:
    """The complete configuration of a run; raises InputError where `run` is none."""
    RunManifest.read(run, "smar train")
    return load_settings(run / CONFIG_FILE)


def load_encoder(run: Path, kind: str | None = None) -> Encoder:
    """The finished model of a run, or its baseline of the given kind.

    Raises:
        InputError: the run is missing, unfinished or damaged.
    """
    settings = run_settings(run)
    folder = (run if kind is None else run / "baselines" / kind) / "stage2"
    if not (folder / "manifest.json").is_file():
        raise InputError(
            f"{run} is not finished: {folder} has no trained model. Run `smar train` with the same --out again."
        )
    return Encoder.from_pretrained(folder, bf16=settings.train.bf16)


def baselines(run: Path) -> list[str]:
    """Kinds of the baselines that the run holds."""
    return [kind for kind in KINDS if (run / "baselines" / kind).is_dir()]


def finished_stages(run: Path) -> list[StageRecord]:
    """Records of every finished stage: the run's own model, then its baselines by name."""
    folders = [run, *(run / "baselines" / kind for kind in baselines(run))]
    stages = [folder / stage for folder in folders for stage in STAGES]
    return [StageRecord.read(stage, "smar train") for stage in stages if (stage / "manifest.json").is_file()]
