"""Going on from a finished run with new data: what is taken over, what is refused, and what it costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.core.overrides import overridden
from smar.core.settings import Settings
from smar.data.dataset import Dataset
from smar.model.modeling import SmarModel
from smar.model.processing import SmarProcessor
from smar.model.run_folder import Parent, RunManifest, load_encoder, run_settings
from smar.model.seen import Seen, keys
from smar.model.tokenizer import BYTES
from smar.model.warm_weights import LENGTHS, contradictions, grows, warm_config, warm_model, warm_processor
from smar.training.jobs import Job, jobs
from smar.training.setup import TrainingData

SHARE = 4
"""A warm start takes every SHARE-th of the steps of a run from scratch."""


def warm_settings(run: StrPath) -> Settings:
    """What a run that goes on from `run` is trained with where nobody says otherwise: its settings and fewer steps.

    A stage has a quarter of the steps, rounded up: the towers know the shop and have to learn what is new. That is a
    choice for what it costs and no tuned figure. A run that is a warm start itself hands its own steps on.

    Raises:
        InputError: there is no run.
    """
    settings = run_settings(run)
    if RunManifest.read(run, "smar train").parent is not None:
        return settings
    train = settings.train
    steps = {name: {"steps": _fewer(getattr(train, name).steps)} for name in ("stage0", "stage1", "stage2")}
    shorter = [
        baseline.model_copy(update={"steps": baseline.steps and tuple(map(_fewer, baseline.steps))}).model_dump()
        for baseline in train.baselines
    ]
    return overridden(settings, {"train": {**steps, "baselines": shorter}})


def _fewer(steps: int) -> int:
    return math.ceil(steps / SHARE)


@dataclass(frozen=True)
class WarmStart:
    """A finished run that another one goes on from."""

    path: Path
    settings: Settings
    manifest: RunManifest
    parent: Parent
    seen: Seen | None

    @classmethod
    def open(cls, run: StrPath) -> "WarmStart":
        """Open a run; raises InputError where it is none, unfinished or damaged."""
        run = Path(run)
        manifest, settings = RunManifest.read(run, "smar train"), run_settings(run)
        parent = Parent(name=run.resolve().name, fingerprint=load_encoder(run).fingerprint, dataset=manifest.dataset)
        return cls(run, settings, manifest, parent, Seen.read(run))

    @property
    def known(self) -> Seen:
        """What the run and those before it have seen, as far as it is known."""
        return self.seen or Seen()

    def folder(self, job: Job) -> Path:
        """The finished model that a job goes on from."""
        return {own.name: own.folder for own in jobs(self.settings, self.path)}[job.name] / "stage2"

    def check(self, dataset: Dataset, settings: Settings, planned: Sequence[Job]) -> None:
        """Raise InputError where the run's models cannot go on with these data and settings."""
        before = {job.name: job for job in jobs(self.settings, self.path)}
        self._refuse(contradictions(self.settings, settings))
        if new := [job.name for job in planned if job.name not in before]:
            raise InputError(
                f"{self.path} has no model {', '.join(new)} to go on from; it has {', '.join(before)}. Leave it out of "
                "train.baselines, or train it in a run from scratch, without --from."
            )
        for job in planned[1:]:
            found = contradictions(before[job.name].settings, job.settings)
            self._refuse([f"baseline {job.name}, {text}" for text in found])
        self._check_pictures(dataset, planned)
        if settings.model.gate == "category" and "category" not in settings.data.text_fields:
            raise InputError(
                f"{self.path} has model.gate=category and {dataset.path} no category among its text fields "
                f"({', '.join(settings.data.text_fields)}): prepare it with one, or set model.gate=query."
            )
        for job in planned:
            self._check_model(before[job.name], job)

    def _refuse(self, wrong: Sequence[str]) -> None:
        if wrong:
            raise InputError(
                f"these settings contradict the weights of {self.path}: {'; '.join(wrong)}. Leave them as they are, or "
                "train without --from."
            )

    def _check_model(self, before: Job, job: Job) -> None:
        if not (before.folder / "stage2" / "manifest.json").is_file():
            raise InputError(f"{self.path} is not finished: its model {job.name} is missing. Finish it first.")
        config = warm_config(before.folder / "stage2", job.settings, job.model)
        for name in LENGTHS:
            known, asked = getattr(config, name), getattr(job.model, name)
            if asked != getattr(before.model, name) and (asked or 0) > known:
                raise InputError(
                    f"model.{name}={asked} is more than the {known} tokens that {before.folder} was trained on: "
                    "a warm start can keep or lower it."
                )

    def _check_pictures(self, dataset: Dataset, planned: Sequence[Job]) -> None:
        seeing = [job.name for job in planned if job.model.kind != "dpsr"]
        size, new = self.settings.data.image_size, dataset.manifest.image_size
        if not seeing:
            return
        if size != new:
            raise InputError(
                f"{self.path} looks at pictures of {size} pixels, {dataset.path} was packed at {new}: prepare it again "
                f"with --set data.image_size={size}."
            )
        if self.manifest.pictures != 0 and not dataset.manifest.counts["images_packed"]:
            raise InputError(
                f"{self.path} learned from pictures ({', '.join(seeing)}) and {dataset.path} has none: trained on it, "
                "the model would forget what a picture says. Prepare it with --images, or train a model of words from "
                "scratch: --set model.kind=dpsr --set train.baselines=[] without --from."
            )

    def processor(self, job: Job, data: TrainingData) -> SmarProcessor:
        """The processor of a job: that of its finished model, with tokens for words that are new."""
        known = self.known.words
        fresh = ~np.isin(keys(data.frequent_words), known)
        words = {word: count for (word, count), new in zip(data.frequent_words.items(), fresh, strict=True) if new}
        return warm_processor(self.folder(job), job.model, words)

    def model(self, job: Job, processor: SmarProcessor) -> SmarModel:
        """The model that a job begins with."""
        return warm_model(self.folder(job), job.settings, job.model, processor)

    def notes(self, data: TrainingData, settings: Settings, processor: SmarProcessor) -> list[tuple[str, str]]:
        """What someone should know of the start: (what, value)."""
        before = SmarProcessor.from_pretrained(self.path / "stage2")
        tokens, now = len(before.tokenizer), len(processor.tokenizer)
        most = settings.model.vocabulary + len(BYTES) + settings.model.new_words
        notes = [("goes on from", f"{self.parent.name} (model {self.parent.fingerprint})")]
        if grows(before, settings.model):
            notes.append(("tokens for new words", f"{now - tokens:,}; {now:,} in all, {max(most, tokens):,} at most"))
        else:
            notes.append(
                (
                    "tokens for new words",
                    "none: the tokenizer, of a pretrained encoder, is kept and reads them as pieces",
                )
            )
        fields, new = self.settings.data.text_fields, settings.data.text_fields
        changed = [f"{name} is new" for name in new if name not in fields]
        changed += [f"{name} is gone" for name in fields if name not in new]
        notes += [("item text", f"{', '.join(changed)}; it is now {', '.join(new)}")] if changed else []
        if self.settings.data.image_fit != settings.data.image_fit:
            fits = (self.settings.data.image_fit, settings.data.image_fit)
            notes.append(("pictures", "were fitted by {} and are now by {}".format(*fits)))
        if self.manifest.pictures == 0 and data.dataset.manifest.counts["images_packed"]:
            notes.append(("pictures", "the run before had none: the towers see them for the first time"))
        if self.seen is None:
            notes.append(
                (
                    "seen before",
                    "unknown, the run is of an older smar: its pairs may be held out here, and words count as new",
                )
            )
        return notes
