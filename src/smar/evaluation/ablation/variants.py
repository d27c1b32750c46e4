"""The rows of an ablation: the configuration itself (`base`), the built-in variants, and the user's own.

Every variant is read and validated like a configuration file before anything trains.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from smar.core.errors import InputError, one_of
from smar.core.sections.evaluation import AblateSettings
from smar.core.settings import Settings, load_settings
from smar.data.dataset import Dataset

BASE = "base"
WORDS = ("note", "curve")
"""Keys of a variant that are no setting: a remark for the table, and the line of the curve chart that it lies on."""
DATA_KEYS = ("data.text_fields",)
"""Settings of the data section that training reads from the prepared dataset as it likes."""
FIXED = {
    "train.seed": "ablate.seeds says which seeds every variant is trained with",
    "train.threads": "every variant is trained by one thread, so that equal runs are equal bit for bit",
    "train.baselines": "add a variant with model.kind: dpsr or dpsr-i",
}


@dataclass(frozen=True)
class Variant:
    """One row: `changes` (full key -> value) against the base, and the complete settings that follow from them."""

    name: str
    changes: Mapping[str, Any]
    settings: Settings
    note: str = ""
    curve: str = ""


@dataclass(frozen=True)
class Plan:
    """The base's settings, the variants in the order of the table, and (name, reason) of built-in ones left out."""

    settings: Settings
    variants: tuple[Variant, ...]
    left_out: tuple[tuple[str, str], ...]


def builtin(base: Settings) -> dict[str, dict[str, Any]]:
    """The paper's ablations and our own techniques, each on and off; the side that the base is on falls out later.

    Pre-training tasks are left out of stage 1 only: they are what the paper calls pre-training. With a stage left out
    the other one takes its steps.
    """
    one, two = base.train.stage1, base.train.stage2
    fresh = not any(tower.pretrained for tower in base.model.towers.values())  # whose own pooling is the mean
    steps, rates = one.steps + two.steps, "train.stage{}.weights.{}"
    variants: dict[str, dict[str, Any]] = {
        "dpsr": {"model.kind": "dpsr", "note": "words only"},
        "dpsr-i": {"model.kind": "dpsr-i", "note": "pictures only"},
        "no-text-task": {rates.format(1, "text"): 0, "note": "pre-training without L_t"},
        "no-image-task": {rates.format(1, "image"): 0, "note": "pre-training without L_i"},
        "no-multimodal-task": {rates.format(1, "multimodal"): 0, "note": "pre-training without L_m"},
        "equal-tasks": {rates.format(1, t): 1 for t in ("text", "image", "multimodal")}
        | {"note": "alpha = beta = gamma = 1"},
        "no-stage1": {"train.stage1.steps": 0, "train.stage2.steps": steps, "note": "no pre-training"},
        "no-stage2": {"train.stage1.steps": steps, "train.stage2.steps": 0, "note": "no fine-tuning: untrained gate"},
        "no-adaptive-loss": {rates.format(2, "adaptive"): 0, "note": "the mixed score is not trained on"},
        "no-gate-loss": {rates.format(2, "gate"): 0, "note": "the gate learns from the mixed score alone"},
        "adaptive-loss-only": {rates.format(2, t): 0 for t in ("text", "image", "multimodal", "gate")}
        | {"note": "stage 2 as published"},
        "no-modality-dropout": {"model.modality_dropout": 0},
        "modality-dropout": {"model.modality_dropout": 0.1},
        "cls-pooling": {"model.pooling": "cls", "note": "the paper's pooling"},
        "mean-pooling": {"model.pooling": "own" if fresh and base.model.pooling == "own" else "mean"},
        "separate-text": {"model.share_text": False, "note": "query and item text have an encoder each"},
        "shared-text": {"model.share_text": True},
        "vit": {"model.vision.kind": "vit", "note": "the image tower is a transformer"},
        "resnet": {"model.vision.kind": "resnet", "note": "the image tower is convolutional"},
        "two-fusion-layers": {"model.fusion_layers": 2},
    }
    if len(base.data.text_fields) > 1:
        variants["first-field-only"] = {"data.text_fields": [base.data.text_fields[0]], "note": "less item text"}
    return variants | _techniques(base)


def _techniques(base: Settings) -> dict[str, dict[str, Any]]:
    """Fusions, losses and negatives that can be chosen; sizes follow the base's dimensions and batch."""
    dim, batch = base.model.size, base.train.stage1.batch_size
    fusions = {"cross-attention": "cross", **{f"{name}-fusion": name for name in ("reverse", "both", "merge", "gated")}}
    return {
        "no-cross-attention": {"model.fusion": "concat", "note": "an MLP over both pooled vectors"},
        **{name: {"model.fusion": fusion} for name, fusion in fusions.items()},
        "one-direction": {"train.loss.symmetric": 0},
        "both-directions": {"train.loss.symmetric": 1},
        "fixed-temperature": {"train.loss.learn_temperature": False},
        "learned-temperature": {"train.loss.learn_temperature": True},
        "no-matryoshka": {"model.matryoshka": []},
        **({"matryoshka": {"model.matryoshka": [dim // 4, dim // 2], "note": "measured at full size"}} if dim else {}),
        "no-uniform-negatives": {"train.negatives.uniform": 0},
        "uniform-negatives": {"train.negatives.uniform": batch},
        **_pictures(),
        "gate-counterfactual": {"train.gate.mode": "counterfactual", "note": "fitted to clicks that no tower saw"},
        "gate-by-category-label": {"train.gate.mode": "category"},
        "gate-end-to-end": {"train.gate.mode": "soft", "note": "its level and threshold are chosen on validation"},
        "gate-of-items": {
            "model.gate": "category",
            "train.gate.mode": "counterfactual",
            "note": "P(category), a share of every item",
        },
    }


def _pictures() -> dict[str, dict[str, Any]]:
    """What makes the picture count, each on and off."""
    align, options = "train.stage1.weights.alignment", "train.pictures."
    frozen = {"train.stage1.freeze_image": True, "train.stage2.freeze_image": True}
    return {
        "no-alignment": {align: 0},
        "alignment": {align: 1, "note": "title against picture over the whole catalogue"},
        "no-augmentation": {options + "augment": False},
        "augmentation": {options + "augment": True},
        "no-stage0": {"train.stage0.steps": 0} | dict.fromkeys(frozen, False),
        "stage0": {"train.stage0.steps": 200, "note": "200 steps of naming words"},
        "stage0-frozen": {"train.stage0.steps": 200, **frozen, "note": "after them the image encoder rests"},
        "image-tower-learns": dict.fromkeys(frozen, False),
        "finer-grid": {"model.vision.stages": 2, "note": "one token per 8 x 8 pixels"},
    }


def make_plan(config: Path, assignments: Sequence[str], dataset: Dataset) -> Plan:
    """Read the configuration and every variant of it.

    Raises:
        InputError: a variant has an unknown key, a wrong value, a key that an ablation sets itself, or changes nothing.
    """
    prepared = dataset.manifest.settings
    given = load_settings(config, assignments, data=deepcopy(prepared))
    fixed = [*assignments, "train.baselines=[]", "train.threads=1", f"train.seed={given.ablate.seeds[0]}"]
    if given.ablate.steps is not None:
        fixed += [f"train.stage{n}.steps={steps}" for n, steps in enumerate(given.ablate.steps, start=1)]

    def read(changes: Mapping[str, Any]) -> Settings:
        texts = [f"{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in changes.items()]
        settings = load_settings(config, [*fixed, *texts], data=deepcopy(prepared))
        return settings.model_copy(update={"ablate": AblateSettings()})

    base = read({})
    own = given.ablate.variants
    listed = {BASE: {}, **(builtin(base) if given.ablate.builtin else {}), **own}
    variants: list[Variant] = []
    left_out: list[tuple[str, str]] = []
    for name, entry in listed.items():
        changes = {key: value for key, value in entry.items() if key not in WORDS}
        try:
            _check(name, changes, dataset)
            settings = read(changes)
            if name != BASE and settings == base:
                raise InputError("the base has these settings already.")
        except InputError as error:
            if name in own:
                raise InputError(f"ablate.variants.{name}: {error}") from None
            left_out.append((name, str(error)))
            continue
        variants.append(Variant(name, changes, settings, *(str(entry.get(word, "")) for word in WORDS)))
    return Plan(given, tuple(variants), tuple(left_out))


def _check(name: str, changes: Mapping[str, Any], dataset: Dataset) -> None:
    if name == BASE and changes:
        raise InputError("the base is the configuration itself: change it there; only note and curve may stand here.")
    for key, value in changes.items():
        if key in FIXED:
            raise InputError(f"{key} cannot be varied: {FIXED[key]}.")
        if not key.startswith(("model.", "train.")) and key not in DATA_KEYS:
            raise InputError(
                f"{key!r} cannot be varied; allowed: model.*, train.*, {', '.join(DATA_KEYS)}, and the words "
                f"{', '.join(WORDS)}. Other data settings belong to `smar prepare`: ablate on a second dataset."
            )
        if key in DATA_KEYS and isinstance(value, list):
            for column in value:
                if column not in dataset.items.column_names:
                    raise one_of(str(column), dataset.items.column_names, key)


def chosen(plan: Plan, only: Sequence[str]) -> Iterator[Variant]:
    """The variants named in `only`, in the order of the table; all when it is empty.

    Raises:
        InputError: a name is none of the plan's.
    """
    names = [variant.name for variant in plan.variants]
    for name in only:
        if name not in names:
            reasons = [f"It was left out: {reason}" for left, reason in plan.left_out if left == name]
            raise one_of(name, names, "--only", " ".join(reasons))
    return (variant for variant in plan.variants if not only or variant.name in only)
