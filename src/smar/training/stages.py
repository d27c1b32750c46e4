"""What a run trains, as data: the model and its baselines, each in two stages with its own losses and steps."""

from dataclasses import dataclass
from pathlib import Path

from smar.model.run import STAGES
from smar.settings import LossWeights, ModelSettings, Settings, StageSettings

_ONLY = {"dpsr": LossWeights(text=1), "dpsr-i": LossWeights(image=1)}


@dataclass(frozen=True)
class Job:
    """One model to train: its name in the report, its settings as a run of its own, its folder, its stages by name."""

    name: str
    settings: Settings
    folder: Path
    stages: dict[str, StageSettings]

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
    """`dpsr` and `dpsr-i` know one loss only; `clip` keeps the three of stage 1, since it has no gate to train."""
    train, kind = settings.train, settings.model.kind
    stages: dict[str, StageSettings] = dict(zip(STAGES, (train.stage1, train.stage2), strict=True))
    if kind != "smar":
        weights = _ONLY.get(kind) or train.stage1.weights.model_copy(update={"adaptive": 0.0, "gate": 0.0})
        stages = {name: stage.model_copy(update={"weights": weights}) for name, stage in stages.items()}
    return Job(name, settings, folder, stages)
