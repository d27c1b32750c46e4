"""Losses and negatives."""

from typing import Literal, Self

from pydantic import Field, model_validator

from smar.core.sections.base import Section


class LossSettings(Section):
    """How scores become losses (reference: docs/paper.md, "loss")."""

    kind: Literal["softmax", "hinge"] = "softmax"
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
    """Negatives beside the batch's own items (reference: docs/paper.md, "negatives")."""

    uniform: int = Field(0, ge=0, description="random items of the whole catalogue, in every batch")
