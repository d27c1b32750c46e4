"""What a run trains, as data: the model and its baselines, each in its stages with their own losses and steps."""

from dataclasses import dataclass
from pathlib import Path

from smar.core.sections.model import ModelSettings
from smar.core.sections.training import LossWeights, Schedule, StageSettings
from smar.core.settings import Settings

_ONLY = {"dpsr": LossWeights(text=1), "dpsr-i": LossWeights(image=1)}


@dataclass(frozen=True)
class Job:
    """One model to train: its name in the report, its settings as a run of its own, its folder, its stages by name."""

    name: str
    settings: Settings
    folder: Path
    stages: dict[str, Schedule]

    @property
    def model(self) -> ModelSettings:
        """What is built."""
        return self.settings.model


def jobs(settings: Settings, run: Path) -> list[Job]:
    """The run's own model, then its baselines under ``RUN/baselines/<name>``."""
    planned = [_job(settings.model.kind, settings, run)]
    for baseline in settings.train.baselines:
        planned.append(_job(baseline.label, settings.of_baseline(baseline), run / "baselines" / baseline.label))
    return planned


def _job(name: str, settings: Settings, folder: Path) -> Job:
    """`dpsr` and `dpsr-i` know one loss only; `clip` keeps those of stage 1, since it has no gate to train.

    Words alone have no stage 0, which trains the image tower.
    """
    train, kind = settings.train, settings.model.kind
    own: dict[str, StageSettings] = {"stage1": train.stage1, "stage2": train.stage2}
    if kind != "smar":
        weights = _ONLY.get(kind) or train.stage1.weights.model_copy(update={"adaptive": 0.0, "gate": 0.0})
        own = {name: stage.model_copy(update={"weights": weights}) for name, stage in own.items()}
    first: dict[str, Schedule] = {"stage0": train.stage0} if train.stage0.steps and kind != "dpsr" else {}
    return Job(name, settings, folder, {**first, **own})
