"""Losses and negatives."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from smar.core.registry import LOSSES
from smar.core.sections.section import Section


class LossSettings(Section):
    """How scores become losses (reference: docs/paper.md, "loss")."""

    kind: Annotated[str, AfterValidator(LOSSES.check)] = "softmax"
    symmetric: float = Field(0.0, ge=0, description="weight of the direction item -> query; 0 leaves it out")
    learn_temperature: bool = False
    temperature_bounds: tuple[float, float] = Field((0.01, 0.2), description="a learned temperature stays inside")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        low, high = self.temperature_bounds
        if not 0 < low < high:
            raise ValueError(f"temperature_bounds are [{low}, {high}]: give 0 < low < high")
        return self


class NegativeSettings(Section):
    """Negatives beside the batch's own items (reference: docs/paper.md, "negatives")."""

    uniform: int = Field(0, ge=0, description="random items of the whole catalogue, in every batch")
