"""What is built: towers, fusion, gate."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from smar.core.registry import FUSIONS, IMAGE_ENCODERS, TEXT_ENCODERS
from smar.core.sections.section import Section


class TowerSettings(Section):
    """One encoder: a pretrained one by name or path, or a fresh one of the given size."""

    pretrained: str | None = Field(None, description="Hugging Face name (NAME@REVISION pins it) or local path")
    frozen: bool = False
    learning_rate: float | None = Field(None, gt=0, description="of the encoder; the stage's own when not given")
    layer_decay: float = Field(1.0, gt=0, le=1, description="of the rate from each layer to the one before it")
    unfreeze_last: int | None = Field(None, ge=1, description="train the last layers of a pretrained encoder only")
    lora: int = Field(0, ge=0, description="rank of adapters that are trained in place of a pretrained encoder")
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


class TextSettings(TowerSettings):
    """A text tower.

    `bert`: `layers` transformer layers. `bag`: every token has a vector of its own and nothing else
    (`smar.model.bag`); it knows the catalogue's words before its first step, and a step costs a tenth.
    """

    kind: Annotated[str, AfterValidator(TEXT_ENCODERS.check)] = "bert"


class VisionSettings(TowerSettings):
    """The image tower.

    `resnet`: three convolutional stages of `layers` blocks each, up to `hidden` channels, one token per 16 x 16 pixels;
    from scratch it learns colour and shape in far fewer steps than a transformer. `vit`: `layers` transformer layers
    over square patches. Fewer `stages` make a finer grid: 2 give one token per 8 x 8 pixels.
    """

    kind: Annotated[str, AfterValidator(IMAGE_ENCODERS.check)] = "resnet"
    layers: int = Field(1, ge=1)
    stages: int = Field(3, ge=2, le=4, description="stages of a resnet; one token is 2 ** (stages + 1) pixels wide")
    patch: int = Field(8, ge=2, description="side of a vit's patch in pixels; must divide data.image_size")


Kind = Literal["smar", "dpsr", "dpsr-i", "clip"]
Pooling = Literal["mean", "cls"]


class ModelSettings(Section):
    """What is built: SMAR or one of its baselines (reference: docs/paper.md, "Model")."""

    kind: Kind = "smar"
    pretrained: str | None = Field(None, description="dual encoder such as CLIP that all towers start from")
    dim: int | None = Field(None, ge=8, description="k; when not given the pretrained text encoder's own, else 128")
    matryoshka: tuple[int, ...] = Field((), description="shorter sizes: prefixes of the embeddings trained beside it")
    query: TextSettings = TextSettings()
    text: TextSettings = TextSettings()
    vision: VisionSettings = VisionSettings()
    pooling: Literal["own", "mean", "cls", "eos", "last", "map"] = Field(
        "own", description="the checkpoint's own, mean for fresh encoders; cls is the paper's"
    )
    share_text: bool = Field(True, description="query and item text share one encoder, each with its own projection")
    fusion: Annotated[str, AfterValidator(FUSIONS.check)] = "cross"
    fusion_layers: int = Field(1, ge=1)
    gate: Literal["query", "category"] = Field("query", description="the gate asks the query, or the item's category")
    vocabulary: int = Field(
        8000, ge=100, description="tokens fitted on catalogue and training queries, bytes not counted"
    )
    new_words: int = Field(1000, ge=0, description="tokens that warm starts may add to the vocabulary, all together")
    query_length: int | None = Field(None, ge=4, description="when not given the pretrained encoder's own, else 30")
    text_length: int | None = Field(None, ge=4, description="when not given the pretrained encoder's own, else 100")
    query_prefix: str | None = Field(None, description="put before queries; when not given the checkpoint's own")
    item_prefix: str | None = Field(None, description="put before items; when not given the checkpoint's own")
    modality_dropout: float = Field(0.1, ge=0, lt=1, description="share of training items whose picture is hidden")

    @property
    def size(self) -> int | None:
        """k, where it is known without looking into a checkpoint."""
        return self.dim or (None if any(tower.pretrained for tower in self.towers.values()) else 128)

    @property
    def towers(self) -> dict[str, TowerSettings]:
        """The encoders' settings by the name that each tower has in the model; a pair's name stands in all three."""
        towers = {"query_tower": self.query, "text_tower": self.text, "image_tower": self.vision}
        if self.pretrained is None:
            return towers
        return {name: tower.model_copy(update={"pretrained": self.pretrained}) for name, tower in towers.items()}

    @model_validator(mode="after")
    def _pairs_stay_pairs(self) -> Self:
        if self.pretrained and any(t.pretrained for t in (self.query, self.text, self.vision)):
            raise ValueError(
                "model.pretrained gives all towers their weights: leave it out, or model.query, text and "
                "vision.pretrained (in a baseline: null)"
            )
        if any(tower.frozen and (tower.pretrained is None or tower.learning_rate) for tower in self.towers.values()):
            raise ValueError(
                "frozen: true keeps pretrained weights as they are: give pretrained, and no learning_rate (what an "
                "earlier stage learned is kept by train.stage1.freeze_image and train.stage2.freeze_image)"
            )
        for tower in self.towers.values():
            partly = [bool(tower.frozen), tower.unfreeze_last is not None, bool(tower.lora)]
            if sum(partly) > 1 or (any(partly) and tower.pretrained is None):
                raise ValueError(
                    "frozen, unfreeze_last and lora each say what is trained of a pretrained encoder: give one of "
                    "them, and pretrained"
                )
        return self

    @model_validator(mode="after")
    def _shared_towers_are_equal(self) -> Self:
        if self.share_text and self.query != self.text:
            raise ValueError("model.query and model.text differ: set model.share_text=false, or make them equal")
        return self

    @model_validator(mode="after")
    def _prefixes_rise(self) -> Self:
        if any(a >= b for a, b in pairwise((0, *self.matryoshka, *([self.size] if self.size else [])))):
            raise ValueError(f"matryoshka ({list(self.matryoshka)}) must rise, each below dim ({self.size})")
        return self

    @model_validator(mode="after")
    def _fusion_has_layers(self) -> Self:
        if self.fusion in ("gated", "concat") and self.fusion_layers > 1:
            raise ValueError(
                f"model.fusion_layers ({self.fusion_layers}) counts attention layers; {self.fusion} has none"
            )
        return self
