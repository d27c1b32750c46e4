"""What a run trains, as data: the model and its baselines, each in two stages with its own losses and steps."""

from dataclasses import dataclass
from pathlib import Path

from smar.settings import LossWeights, ModelSettings, Settings, StageSettings

_ONLY = {"dpsr": LossWeights(text=1), "dpsr-i": LossWeights(image=1)}


@dataclass(frozen=True)
class Job:
    """One model to train: its settings, the folder it goes to, and its stages by name."""

    model: ModelSettings
    folder: Path
    stages: dict[str, StageSettings]

    @property
    def kind(self) -> str:
        """`smar`, `dpsr` or `dpsr-i`."""
        return self.model.kind


def jobs(settings: Settings, run: Path) -> list[Job]:
    """The run's own model, then its baselines under ``RUN/baselines/<kind>``."""
    stages = {"stage1": settings.train.stage1, "stage2": settings.train.stage2}
    planned = [_job(settings.model, run, stages, None)]
    for baseline in settings.train.baselines:
        model = settings.model.model_copy(update={"kind": baseline.kind})
        planned.append(_job(model, run / "baselines" / baseline.kind, stages, baseline.steps))
    return planned


def _job(model: ModelSettings, folder: Path, stages: dict[str, StageSettings], steps: tuple[int, int] | None) -> Job:
    """A baseline keeps the stages' rates and batches, but knows one loss only."""
    own = {}
    for position, (name, stage) in enumerate(stages.items()):
        update: dict[str, object] = {} if model.kind == "smar" else {"weights": _ONLY[model.kind]}
        if steps is not None:
            update["steps"] = steps[position]
        own[name] = stage.model_copy(update=update)
    return Job(model, folder, own)
