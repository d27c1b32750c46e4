"""`smar train`: stages, baselines, and what every stage shares."""

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from smar.core.sections.losses import LossSettings, NegativeSettings
from smar.core.sections.model import Kind
from smar.core.sections.section import Section


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
    """Adaptive fine-tuning: only the mixed score, so that each tower learns the queries that the gate gives it."""

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
    """The image tower alone learns to name the words of pictures (`smar.training.word_bags`); absent with 0 steps."""

    steps: int = Field(0, ge=0)


class StageSettings(Schedule):
    """One training stage as data."""

    weights: LossWeights = LossWeights()
    catalogue: float = Field(0.0, ge=0, le=4, description="queries made of the catalogue's words, for each pair")
    freeze_image: bool = Field(False, description="keep the image encoder as the stage before left it")


class Stage1Settings(StageSettings):
    """Multi-task pre-training."""

    weights: Stage1Weights = Stage1Weights()
    catalogue: float = Field(1.0, ge=0, le=4)


class Stage2Settings(StageSettings):
    """Adaptive fine-tuning on clicks."""

    steps: int = Field(300, ge=0)
    catalogue: float = Field(1.0, ge=0, le=4)
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
    """What makes the picture count in training (see `smar.training.augmentation`)."""

    alignment_items: int = Field(128, ge=0, description="random items of the catalogue beside a batch's own")
    augment: bool = Field(False, description="flip, zoom and shift pictures; colours stay")
    precompute: bool = Field(True, description="run a frozen image encoder once, not in every step")


class GateSettings(Section):
    """How the gate learns (docs/model.md); all but `none` end with a level and a threshold from validation.

    `counterfactual`: the label is "the multimodal score beats the text score", measured on pairs that the towers did
    not train on, averaged per query. `category`: the same label, averaged over the category of the clicked items.
    `soft`: end to end in stage 2. `none`: as `soft`, and nothing is chosen on validation.
    """

    mode: Literal["counterfactual", "category", "soft", "none"] = "counterfactual"
    words: bool = Field(True, description="the words (BM25) are a third voice beside text and multimodal vectors")
    holdout: float = Field(0.05, ge=0, le=0.5, description="share of queries, and of items, kept from the towers")
    max_pairs: int = Field(20_000, ge=1, description="held-out and validation pairs used at most, each")

    @property
    def fold(self) -> float:
        """Share of queries and items that are kept from the towers; none where nothing is fitted on them."""
        return 0.0 if self.mode == "none" else self.holdout


class TrainSettings(Section):
    """`smar train`."""

    stage0: Stage0Settings = Stage0Settings()
    stage1: Stage1Settings = Stage1Settings()
    stage2: Stage2Settings = Stage2Settings()
    loss: LossSettings = LossSettings()
    negatives: NegativeSettings = NegativeSettings()
    gate: GateSettings = GateSettings()
    baselines: tuple[BaselineSettings, ...] = (BaselineSettings(kind="dpsr"), BaselineSettings(kind="dpsr-i"))
    pictures: PictureSettings = PictureSettings()
    temperature: float | None = Field(None, gt=0, description="when not given the pretrained pair's own, else 1/30")
    bf16: bool = True
    threads: int | None = Field(None, ge=1)
    save_steps: int = Field(200, ge=1, description="a killed run loses at most this many steps")
    seed: int = Field(0, ge=0)
    license: str = Field("other", min_length=1, description="of the weights, as model hubs name it; for the card")
    activation_checkpointing: bool = Field(False, description="encoders compute activations twice and keep few")
    micro_batch: int | None = Field(None, ge=1, description="examples encoded at once; null: as many as fit")
    evaluate_steps: int = Field(200, ge=0, description="steps between validations; 0 validates never")
    patience: int | None = Field(None, ge=1, description="validations without gain that end a stage; null: never")
    validation_queries: int = Field(1000, ge=1)
    validation_items: int = Field(5000, ge=100)

    @model_validator(mode="after")
    def _losses_fit(self) -> Self:
        low, high = self.loss.temperature_bounds
        if self.loss.learn_temperature and self.temperature and not low <= self.temperature <= high:
            raise ValueError(f"temperature ({self.temperature}) is outside loss.temperature_bounds ({low}, {high})")
        return self

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> Self:
        if self.patience is not None and not self.evaluate_steps:
            raise ValueError("train.patience counts validations, and train.evaluate_steps=0 turns them off")
        return self
