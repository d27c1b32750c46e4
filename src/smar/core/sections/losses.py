"""Losses and negatives."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from smar.core.registry import LOSSES
from smar.core.sections.base import Section


class LossSettings(Section):
    """How scores become losses (reference: paper.md, "loss")."""

    kind: Annotated[str, AfterValidator(LOSSES.check)] = "softmax"
    margin: float = Field(0.1, gt=0, le=2, description="of the hinge: how far a positive must lie above a negative")
    symmetric: float = Field(0.0, ge=0, description="weight of the direction item -> query; 0 leaves it out")
    learn_temperature: bool = False
    temperature_bounds: tuple[float, float] = Field((0.01, 0.2), description="a learned temperature stays inside")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        low, high = self.temperature_bounds
        if not 0 < low < high:
            raise ValueError(f"temperature_bounds are [{low}, {high}]: give 0 < low < high")
        if self.kind == "hinge" and self.learn_temperature:
            raise ValueError("a hinge has no temperature to learn: set kind=softmax or learn_temperature=false")
        return self


class NegativeSettings(Section):
    """Negatives beside the batch's own items (reference: paper.md, "negatives")."""

    uniform: int = Field(0, ge=0, description="random items of the whole catalogue, in every batch")
    logq: bool = Field(False, description="subtract the log of each item's probability of being in the batch")
    memory: int = Field(0, ge=0, description="vectors kept of earlier batches")
    memory_warmup: float = Field(0.1, ge=0, lt=1, description="share of a stage's steps before vectors are kept")
    hard: int = Field(0, ge=0, description="mined hard negatives of every query, in stage 2")
    hard_skip: int = Field(10, ge=0, description="ranks left out: the best ones are often unclicked positives")
    hard_depth: int = Field(100, ge=1, description="hard negatives are ranked above this")

    @model_validator(mode="after")
    def _enough_ranks(self) -> Self:
        if self.hard_depth - self.hard_skip < max(self.hard, 1):
            raise ValueError(
                f"ranks {self.hard_skip} to {self.hard_depth} give no {max(self.hard, 1)} hard negatives: "
                "raise hard_depth or lower hard_skip"
            )
        return self
