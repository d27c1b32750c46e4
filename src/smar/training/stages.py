"""What a run trains, as data: the model and its baselines, each in its stages with their own losses and steps."""

from dataclasses import dataclass
from pathlib import Path

from smar.settings import LossWeights, ModelSettings, Schedule, Settings, StageSettings

_ONLY = {"dpsr": LossWeights(text=1), "dpsr-i": LossWeights(image=1)}


@dataclass(frozen=True)
class Job:
    """One model to train: its settings, the folder it goes to, and its stages by name."""

    model: ModelSettings
    folder: Path
    stages: dict[str, Schedule]

    @property
    def kind(self) -> str:
        """`smar`, `dpsr` or `dpsr-i`."""
        return self.model.kind


def jobs(settings: Settings, run: Path) -> list[Job]:
    """The run's own model, then its baselines under ``RUN/baselines/<kind>``."""
    stages: dict[str, Schedule] = {"stage1": settings.train.stage1, "stage2": settings.train.stage2}
    if settings.train.stage0.steps:
        stages = {"stage0": settings.train.stage0, **stages}
    planned = [_job(settings.model, run, stages, None)]
    for baseline in settings.train.baselines:
        model = settings.model.model_copy(update={"kind": baseline.kind})
        planned.append(_job(model, run / "baselines" / baseline.kind, stages, baseline.steps))
    return planned


def _job(model: ModelSettings, folder: Path, stages: dict[str, Schedule], steps: tuple[int, int] | None) -> Job:
    """A baseline keeps the stages' rates and batches, but knows one loss only; words alone have no stage 0."""
    own = {}
    budget = {} if steps is None else dict(zip(("stage1", "stage2"), steps, strict=True))
    for name, stage in stages.items():
        update: dict[str, object] = {"steps": budget.get(name, stage.steps)}
        if model.kind != "smar" and isinstance(stage, StageSettings):
            update["weights"] = _ONLY[model.kind]
        if name != "stage0" or model.kind != "dpsr":
            own[name] = stage.model_copy(update=update)
    return Job(model, folder, own)
