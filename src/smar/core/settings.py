"""The run configuration: one frozen, validated tree, read from YAML and from ``--set section.key=value``.

Every option is one line of YAML. An unknown key, a wrong type or a value out of range is refused when the file is
read, with the key's full name, never hours later in training.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from smar.core.errors import InputError
from smar.core.files import StrPath
from smar.core.overrides import faults, merged, overridden
from smar.core.registry import load_plugins
from smar.core.sections.data import AUTO, DataSettings
from smar.core.sections.evaluation import AblateSettings, EvaluateSettings
from smar.core.sections.model import ModelSettings
from smar.core.sections.section import Section
from smar.core.sections.training import BaselineSettings, TrainSettings

try:  # libyaml, ten times as fast; PyYAML may have been built without it
    from yaml import CSafeLoader
except ImportError:
    from yaml import SafeLoader as CSafeLoader  # type: ignore[assignment]


class Settings(Section):
    """The whole configuration.

    >>> settings = Settings(train={"stage1": {"steps": 500}})
    >>> settings.train.stage1.steps, settings.model.fusion
    (500, 'cross')
    """

    plugins: tuple[str, ...] = Field((), description="modules that register fusions, losses and encoders")
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    ablate: AblateSettings = AblateSettings()

    @model_validator(mode="after")
    def _category_gate_is_fitted(self) -> Self:
        if self.model.gate == "category" and self.train.gate.mode not in ("counterfactual", "category"):
            raise ValueError(
                f"model.gate=category is not fitted with train.gate.mode={self.train.gate.mode}: "
                "set train.gate.mode=counterfactual"
            )
        return self

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        vision, pretrained = self.model.vision, self.model.towers["image_tower"].pretrained
        if pretrained is None and vision.kind == "vit" and self.data.image_size % vision.patch:
            raise ValueError(
                f"data.image_size ({self.data.image_size}) must be a multiple of model.vision.patch ({vision.patch})"
            )
        return self

    @model_validator(mode="after")
    def _prefix_fits(self) -> Self:
        if (self.evaluate.dim or 0) > (self.model.size or math.inf):
            raise ValueError(f"evaluate.dim ({self.evaluate.dim}) must not exceed model.dim ({self.model.size})")
        return self

    @model_validator(mode="after")
    def _baselines_are_models(self) -> Self:
        names = [self.model.kind, *(baseline.label for baseline in self.train.baselines)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"two models are called {', '.join(twice)}: give each of train.baselines a name of its own, and none "
                f"that of model.kind ({self.model.kind}); train.baselines=[] trains none"
            )
        for baseline in self.train.baselines:
            self.of_baseline(baseline)
        return self

    def of_baseline(self, baseline: BaselineSettings) -> "Settings":
        """The settings of a baseline as a run of its own; raises ValueError where its changes do not fit."""
        kind = {} if baseline.kind is None else {"kind": baseline.kind}
        stages: dict[str, Any] = {name: {} for name in ("stage1", "stage2")}
        for number, stage in enumerate(stages.values()):
            if baseline.steps is not None:
                stage["steps"] = baseline.steps[number]
            if baseline.learning_rate is not None:
                stage["learning_rate"] = baseline.learning_rate
        try:
            changes = {"model": {**baseline.model, **kind}, "train": {"baselines": (), **stages}}
            return overridden(self, changes)
        except ValueError as error:
            raise ValueError(f"train.baselines, {baseline.label}: {error}") from None

    @model_validator(mode="after")
    def _frozen_images_were_trained(self) -> Self:
        train, vision = self.train, self.model.towers["image_tower"]
        if train.stage0.steps and vision.frozen:
            raise ValueError(
                "train.stage0 trains the image encoder, model.vision.frozen forbids it: leave one out. "
                "train.stage1.freeze_image keeps what stage 0 learned"
            )
        if train.stage1.freeze_image and not (train.stage0.steps or vision.pretrained):
            raise ValueError(
                "train.stage1.freeze_image would keep random weights: give train.stage0.steps or "
                "model.vision.pretrained, or train the encoder in stage 1 and freeze it in stage 2"
            )
        return self


def _merge(tree: dict[str, Any], assignment: str) -> None:
    key, sign, text = assignment.partition("=")
    if not sign or not key.strip():
        raise InputError(f"--set takes section.key=value, for example --set train.seed=1; got {assignment!r}.")
    *parents, last = key.strip().split(".")
    for name in parents:
        node = tree.setdefault(name, {})
        if not isinstance(node, dict):
            raise InputError(f"--set {assignment}: {name!r} is a value, not a section.")
        tree = node
    try:
        tree[last] = yaml.load(text, Loader=CSafeLoader)
    except yaml.YAMLError as error:
        raise InputError(f"--set {assignment}: the value is not YAML ({error}).") from None


_UNSEEN_BY_TRAINING = {"note", "workers", "memory_limit", "fetch", "images_root"}


def _refuse_other_data(given: DataSettings, prepared: dict[str, Any], assignments: Sequence[str]) -> None:
    """The file's data section must be what the dataset was prepared with: anything else would do nothing."""
    overridden = {text.partition("=")[0].strip().split(".")[1] for text in assignments if text.startswith("data.")}
    keys = sorted(given.model_fields_set - _UNSEEN_BY_TRAINING - overridden)
    values = given.model_dump(mode="json")
    other = [f"data.{key} is {values[key]!r}, in the dataset {prepared.get(key)!r}" for key in keys]
    other = [text for text, key in zip(other, keys, strict=True) if values[key] not in (prepared.get(key), AUTO)]
    if other:
        raise InputError(
            f"the dataset was prepared with other settings: {'; '.join(other)}. "
            "Run `smar prepare` again, or mend the file."
        )


Config = StrPath | Mapping[str, Any] | Settings | None
"""A configuration: a YAML file, its content, or settings; None for the defaults."""


def _tree(config: Config) -> dict[str, Any]:
    if isinstance(config, Settings):
        return config.model_dump(mode="json", exclude_unset=True)
    if config is None or isinstance(config, Mapping):
        return merged({}, config or {})
    path = Path(config)
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=CSafeLoader) or {}
    except FileNotFoundError:
        raise InputError(f"configuration {path} does not exist.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"configuration {path} cannot be read as YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"configuration {path} must hold sections (data, model, train, evaluate).")
    return tree


def load_settings(
    path: Config = None,
    assignments: Sequence[str] = (),
    data: dict[str, Any] | None = None,
    base: Settings | None = None,
) -> Settings:
    """Read a configuration (all defaults when None), apply ``section.key=value`` assignments, validate.

    Args:
        path: the YAML file, its content as a mapping, or settings, of which counts what they were given.
        assignments: ``section.key=value`` texts; a later one wins.
        data: the data section that a dataset was prepared with: it stands unless `assignments` say otherwise.
        base: what holds where the file says nothing, in place of the defaults; its data section is left out.

    Raises:
        InputError: the file is missing or not YAML, or a key or value is wrong; the message names each one.
    """
    tree = _tree(path)
    try:
        if data is not None:
            _refuse_other_data(DataSettings.model_validate(tree.get("data", {})), data, assignments)
            tree["data"] = data
        if base is not None:
            tree = merged(base.model_dump(mode="json", exclude={"data"}), tree)
        for assignment in assignments:
            _merge(tree, assignment)
        if isinstance(plugins := tree.get("plugins"), list | tuple):
            load_plugins([name for name in plugins if isinstance(name, str)])
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise InputError("the configuration is not valid:\n  " + "\n  ".join(faults(error))) from None


def save_settings(settings: Settings, path: StrPath) -> None:
    """Write the complete configuration as YAML that `load_settings` reads back unchanged."""
    path = Path(path)
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
