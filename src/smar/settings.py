"""The run configuration: one frozen, validated tree, read from YAML and from ``--set section.key=value``.

Every option is one line of YAML. An unknown key, a wrong type or a value out of range is refused when the file is
read, with the key's full name, never hours later in training.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import Field, NonNegativeInt, ValidationError, model_validator

from smar.errors import InputError
from smar.overrides import overridden
from smar.sections import LossSettings, NegativeSettings, Section


class ColumnMap(Section):
    """Our column name -> the column's name in the user's table; names not listed are taken as they are."""

    items: dict[str, str] = {}
    clicks: dict[str, str] = {}
    images: dict[str, str] = {}
    queries: dict[str, str] = {}


class FetchSettings(Section):
    """How pictures given as URLs are downloaded."""

    timeout: float = Field(10.0, gt=0, description="seconds for one request")
    retries: int = Field(2, ge=0)
    parallel: int = Field(16, ge=1)


class DataSettings(Section):
    """`smar prepare`: tables -> pairs, qrels, packed pictures."""

    note: str = Field("", description="what kind of data this is; printed on every report")
    columns: ColumnMap = ColumnMap()
    text_fields: tuple[str, ...] = Field(("title", "category", "brand"), min_length=1)
    drop_columns: tuple[str, ...] = Field((), description="item columns that are not carried into the dataset")
    slice_columns: tuple[str, ...] = Field(("category",), description="item columns whose values are report slices")
    images_root: Path | None = Field(None, description="folder that relative picture paths start from")
    image_size: int = Field(64, ge=16, le=512, description="side of the packed square picture, in pixels")
    pictures_per_item: int = Field(1, ge=1, le=32, description="decodable pictures of an item that are packed at most")
    image_fit: Literal["pad", "squash", "crop"] = "pad"
    thumbnail_size: int = Field(256, ge=0, description="longest side of the picture kept for the page; 0 keeps none")
    max_image_bytes: int = Field(20_000_000, ge=1)
    max_image_pixels: int = Field(64_000_000, ge=1)
    workers: int | None = Field(None, ge=1, description="picture decoding processes; all cores when not given")
    fetch: FetchSettings = FetchSettings()
    memory_limit: str = Field("2GB", pattern=r"^\d+(\.\d+)?\s?[KMGT]i?B$")
    test_share: float = Field(0.1, gt=0, lt=1, description="last share of the log's time, when no date is given")
    valid_share: float = Field(0.03, gt=0, lt=1, description="last share of the time before the test period")
    order_weight: float = Field(2.0, ge=0, description="what an order adds to a click's weight of 1")
    position_bias: bool = Field(True, description="divide clicks by the position's relative click rate")
    max_position_weight: float = Field(5.0, ge=1)
    repeat_pairs: Literal["keep", "drop"] = Field("keep", description="test pairs that were clicked in training, too")


class TowerSettings(Section):
    """One encoder: a pretrained one by name or path, or a fresh transformer of the given size."""

    pretrained: str | None = Field(None, description="Hugging Face name or local path")
    frozen: bool = False
    learning_rate: float | None = Field(None, gt=0, description="of the encoder; the stage's own when not given")
    layers: int = Field(2, ge=1)
    hidden: int = Field(128, ge=8)
    heads: int = Field(4, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    init: float = Field(
        0.05, gt=0, description="standard deviation of fresh weights; BERT's 0.02 suits 768-wide towers"
    )

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self

    @model_validator(mode="after")
    def _frozen_is_pretrained_and_has_no_rate(self) -> Self:
        if self.frozen and (self.pretrained is None or self.learning_rate is not None):
            raise ValueError(
                "frozen: true keeps pretrained weights as they are: give pretrained, and no learning_rate (what an "
                "earlier stage learned is kept by train.stage1.freeze_image and train.stage2.freeze_image)"
            )
        return self


class VisionSettings(TowerSettings):
    """The image tower.

    `resnet`: three convolutional stages of `layers` blocks each, up to `hidden` channels, one token per 16 x 16 pixels;
    from scratch it learns colour and shape in far fewer steps than a transformer. `vit`: `layers` transformer layers
    over square patches. Fewer `stages` make a finer grid: 2 give one token per 8 x 8 pixels. `adapter` transformer
    layers on top keep training where the encoder itself is frozen.
    """

    kind: Literal["resnet", "vit"] = "resnet"
    layers: int = Field(1, ge=1)
    stages: int = Field(3, ge=2, le=4, description="stages of a resnet; one token is 2 ** (stages + 1) pixels wide")
    patch: int = Field(8, ge=2, description="side of a vit's patch in pixels; must divide data.image_size")
    adapter: int = Field(0, ge=0, le=4, description="trainable transformer layers over the encoder's patch states")


Kind = Literal["smar", "dpsr", "dpsr-i", "clip"]


class ModelSettings(Section):
    """What is built: SMAR or one of its baselines (reference: paper.md, "Model")."""

    kind: Kind = "smar"
    dim: int = Field(128, ge=8, description="k, the size of every embedding")
    matryoshka: tuple[int, ...] = Field((), description="shorter sizes: prefixes of the embeddings trained beside it")
    query: TowerSettings = TowerSettings()
    text: TowerSettings = TowerSettings()
    vision: VisionSettings = VisionSettings()
    pooling: Literal["mean", "cls"] = Field(
        "mean", description="cls is the paper's; mean learns several times faster from scratch"
    )
    share_text: bool = Field(True, description="query and item text share one encoder, each with its own projection")
    fusion: Literal["cross", "reverse", "both", "merge", "gated", "concat"] = "cross"
    fusion_layers: int = Field(1, ge=1)
    vocabulary: int = Field(8000, ge=100, description="WordPiece tokens, fitted on catalogue and training queries")
    query_length: int = Field(30, ge=4)
    text_length: int = Field(100, ge=4)
    modality_dropout: float = Field(0.1, ge=0, lt=1, description="share of training items whose picture is hidden")

    @property
    def towers(self) -> dict[str, TowerSettings]:
        """The encoders' settings by the name that each tower has in the model."""
        return {"query_tower": self.query, "text_tower": self.text, "image_tower": self.vision}

    @model_validator(mode="after")
    def _shared_towers_are_equal(self) -> Self:
        if self.share_text and self.query != self.text:
            raise ValueError("model.query and model.text differ: set model.share_text=false, or make them equal")
        return self

    @model_validator(mode="after")
    def _prefixes_rise(self) -> Self:
        if any(a >= b for a, b in pairwise((0, *self.matryoshka, self.dim))):
            raise ValueError(f"matryoshka ({list(self.matryoshka)}) must rise, each below dim ({self.dim})")
        return self

    @model_validator(mode="after")
    def _fusion_has_layers(self) -> Self:
        if self.fusion in ("gated", "concat") and self.fusion_layers > 1:
            raise ValueError(
                f"model.fusion_layers ({self.fusion_layers}) counts attention layers; {self.fusion} has none"
            )
        return self


class LossWeights(Section):
    """Weights of a stage's losses: alpha, beta, gamma of stage 1; the adaptive score and the gate of stage 2."""

    text: float = Field(0.0, ge=0)
    image: float = Field(0.0, ge=0)
    multimodal: float = Field(0.0, ge=0)
    adaptive: float = Field(0.0, ge=0)
    gate: float = Field(0.0, ge=0)
    alignment: float = Field(0.0, ge=0, description="item picture against item text; needs no clicks")


class Stage1Weights(LossWeights):
    """Multi-task pre-training: alpha = gamma = 1; beta is lower because the picture alone is the weak task."""

    text: float = Field(1.0, ge=0)
    image: float = Field(0.5, ge=0)
    multimodal: float = Field(1.0, ge=0)


class Stage2Weights(LossWeights):
    """Adaptive fine-tuning; the towers' own losses keep both scores calibrated for every query."""

    text: float = Field(1.0, ge=0)
    multimodal: float = Field(1.0, ge=0)
    adaptive: float = Field(1.0, ge=0)
    gate: float = Field(0.2, ge=0)


class Schedule(Section):
    """Length and rates of a stage."""

    steps: int = Field(800, ge=0)
    batch_size: int = Field(256, ge=2)
    learning_rate: float = Field(6e-4, gt=0)
    pretrained_learning_rate: float = Field(5e-5, gt=0, description="for towers that start from pretrained weights")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps")
    weight_decay: float = Field(0.01, ge=0)


class Stage0Settings(Schedule):
    """The image tower alone learns to name the words of pictures; absent with 0 steps (see `smar.training.words`)."""

    steps: int = Field(0, ge=0)


class StageSettings(Schedule):
    """One training stage as data."""

    weights: LossWeights = LossWeights()
    freeze_image: bool = Field(False, description="keep the image encoder as the stage before left it")


class Stage1Settings(StageSettings):
    """Multi-task pre-training."""

    weights: Stage1Weights = Stage1Weights()


class Stage2Settings(StageSettings):
    """Adaptive fine-tuning on clicks."""

    steps: int = Field(300, ge=0)
    weights: Stage2Weights = Stage2Weights()


_ROWS = ("smar", "multimodal")
"""What the report calls the run's own model."""


class BaselineSettings(Section):
    """A model trained beside the run's own: `{kind: dpsr}`, or a name and what differs from the run's `model` section.

    `steps` (stage 1, stage 2) and `learning_rate` give it a budget of its own.
    """

    name: str = Field("", pattern=r"^([a-z0-9][a-z0-9_-]*)?$", description="in the report; the kind when not given")
    kind: Kind | None = Field(None, description="the run's own when not given")
    model: dict[str, Any] = Field({}, description="settings of the model section that differ")
    steps: tuple[int, int] | None = Field(None, description="the model's own steps when not given")
    learning_rate: float | None = Field(None, gt=0, description="of fresh weights in both stages")

    @property
    def label(self) -> str:
        """Name of the baseline in folders and reports."""
        return self.name or str(self.kind)

    @model_validator(mode="after")
    def _has_a_name(self) -> Self:
        if not self.name and self.kind in (None, "smar"):
            raise ValueError("a baseline needs a name, or a kind of its own (dpsr, dpsr-i, clip)")
        if self.name in _ROWS or (self.name in get_args(Kind) and self.name != self.kind):
            raise ValueError(f"the report calls another model {self.name}: give the baseline another name")
        if "kind" in self.model:
            raise ValueError("give kind beside name, not inside model")
        return self


class PictureSettings(Section):
    """What makes the picture count in training (see `smar.training.pictures`)."""

    alignment_items: int = Field(128, ge=0, description="random items of the catalogue beside a batch's own")
    token_dropout: float = Field(
        0.0, ge=0, lt=1, description="share of an item's words hidden from the multimodal path"
    )
    same_category: float = Field(0.0, ge=0, le=1, description="share of the batches with pairs of one category")
    category_column: str = "category"
    augment: bool = Field(False, description="flip, zoom and shift pictures; colours stay")
    precompute: bool = Field(True, description="run a frozen image encoder once, not in every step")


class TrainSettings(Section):
    """`smar train`."""

    stage0: Stage0Settings = Stage0Settings()
    stage1: Stage1Settings = Stage1Settings()
    stage2: Stage2Settings = Stage2Settings()
    loss: LossSettings = LossSettings()
    negatives: NegativeSettings = NegativeSettings()
    baselines: tuple[BaselineSettings, ...] = (BaselineSettings(kind="dpsr"), BaselineSettings(kind="dpsr-i"))
    pictures: PictureSettings = PictureSettings()
    temperature: float = Field(1 / 30, gt=0)
    bf16: bool = True
    threads: int | None = Field(None, ge=1)
    save_steps: int = Field(200, ge=1, description="a killed run loses at most this many steps")
    seed: int = Field(0, ge=0)
    micro_batch: int | None = Field(None, ge=1, description="gradient caching: examples encoded at once; null is off")
    evaluate_steps: int = Field(200, ge=0, description="steps between validations; 0 validates never")
    patience: int | None = Field(None, ge=1, description="validations without gain that end a stage; null: never")
    validation_queries: int = Field(1000, ge=1)
    validation_items: int = Field(5000, ge=100)

    @model_validator(mode="after")
    def _losses_fit(self) -> Self:
        low, high = self.loss.temperature_bounds
        if self.loss.learn_temperature and not low <= self.temperature <= high:
            raise ValueError(f"temperature ({self.temperature}) is outside loss.temperature_bounds ({low}, {high})")
        if self.loss.kind == "hinge" and self.negatives.logq:
            raise ValueError("negatives.logq corrects a softmax: set loss.kind=softmax or negatives.logq=false")
        return self

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> Self:
        if self.patience is not None and not self.evaluate_steps:
            raise ValueError("train.patience counts validations, and train.evaluate_steps=0 turns them off")
        return self


class EvaluateSettings(Section):
    """`smar evaluate`."""

    k: int = Field(50, ge=1)
    dim: int | None = Field(None, ge=1, description="first numbers of a vector that rank; all when not given")
    bootstrap: int = Field(1000, ge=100, description="resamples behind each 95 % interval")
    needs_image: float = Field(0.5, ge=0, le=1, description="from this share on a query counts as needing the picture")
    slice_queries: int = Field(20, ge=1, description="slices with fewer queries are not reported")
    controls: bool = Field(True, description="paper.md's controls; two more passes over the catalogue")
    bm25: bool = Field(True, description="a row of BM25 over the text fields")
    trec: bool = Field(True, description="write judgements and rankings as TREC files, too")


class AblateSettings(Section):
    """`smar ablate`: the rest of the configuration is the row `base`, every variant changes some of its settings."""

    steps: tuple[NonNegativeInt, NonNegativeInt] | None = Field(None, description="budget of stage 1 and stage 2")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="each variant is trained once with every seed")
    evaluate_on: Literal["test", "valid"] = "test"
    builtin: bool = Field(True, description="begin with the paper's ablations, see smar.ablation.variants")
    variants: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")], dict[str, Any]] = {}


class Settings(Section):
    """The whole configuration."""

    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    ablate: AblateSettings = AblateSettings()

    @model_validator(mode="after")
    def _patches_fit(self) -> Self:
        vision = self.model.vision
        if vision.pretrained is None and vision.kind == "vit" and self.data.image_size % vision.patch:
            raise ValueError(
                f"data.image_size ({self.data.image_size}) must be a multiple of model.vision.patch ({vision.patch})"
            )
        return self

    @model_validator(mode="after")
    def _prefix_fits(self) -> Self:
        if (self.evaluate.dim or 0) > self.model.dim:
            raise ValueError(f"evaluate.dim ({self.evaluate.dim}) must not exceed model.dim ({self.model.dim})")
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
        train, vision = self.train, self.model.vision
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
        tree[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {assignment}: the value is not YAML ({error}).") from None


_UNSEEN_BY_TRAINING = {"note", "workers", "memory_limit", "fetch", "images_root"}


def _refuse_other_data(given: DataSettings, prepared: dict[str, Any], assignments: Sequence[str]) -> None:
    """The file's data section must be what the dataset was prepared with: anything else would do nothing."""
    overridden = {text.partition("=")[0].strip().split(".")[1] for text in assignments if text.startswith("data.")}
    keys = sorted(given.model_fields_set - _UNSEEN_BY_TRAINING - overridden)
    values = given.model_dump(mode="json")
    other = [f"data.{key} is {values[key]!r}, in the dataset {prepared.get(key)!r}" for key in keys]
    other = [text for text, key in zip(other, keys, strict=True) if values[key] != prepared.get(key)]
    if other:
        raise InputError(
            f"the dataset was prepared with other settings: {'; '.join(other)}. "
            "Run `smar prepare` again, or mend the file."
        )


def load_settings(
    path: Path | None = None, assignments: Sequence[str] = (), data: dict[str, Any] | None = None
) -> Settings:
    """Read a YAML file (all defaults when None), apply ``section.key=value`` assignments, validate.

    Args:
        path: the YAML file.
        assignments: ``section.key=value`` texts; a later one wins.
        data: the data section that a dataset was prepared with: it stands unless `assignments` say otherwise.

    Raises:
        InputError: the file is missing or not YAML, or a key or value is wrong; the message names each one.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            raise InputError(f"configuration {path} does not exist.") from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"configuration {path} cannot be read as YAML: {error}") from None
        if not isinstance(tree, dict):
            raise InputError(f"configuration {path} must hold sections (data, model, train, evaluate).")
    try:
        if data is not None:
            _refuse_other_data(DataSettings.model_validate(tree.get("data", {})), data, assignments)
            tree["data"] = data
        for assignment in assignments:
            _merge(tree, assignment)
        return Settings.model_validate(tree)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r})" for e in error.errors()]
        raise InputError("the configuration is not valid:\n" + "\n".join(lines)) from None


def save_settings(settings: Settings, path: Path) -> None:
    """Write the complete configuration as YAML that `load_settings` reads back unchanged."""
    path.write_text(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
