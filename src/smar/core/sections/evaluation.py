"""`smar evaluate` and `smar ablate`."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt

from smar.core.sections.section import Section


class EvaluateSettings(Section):
    """`smar evaluate`."""

    k: int = Field(50, ge=1)
    dim: int | None = Field(None, ge=1, description="first numbers of a vector that rank; all when not given")
    bootstrap: int = Field(1000, ge=100, description="resamples behind each 95 % interval")
    needs_image: float = Field(0.5, ge=0, le=1, description="from this share on a query counts as needing the picture")
    slice_queries: int = Field(20, ge=1, description="slices with fewer queries are not reported")
    controls: bool = Field(True, description="docs/paper.md's controls; two more passes over the catalogue")
    bm25: bool = Field(True, description="a row of BM25 over the text fields")
    trec: bool = Field(True, description="write judgements and rankings as TREC files, too")


EvaluateOn = Literal["test", "valid"]


class AblateSettings(Section):
    """`smar ablate`: the rest of the configuration is the row `base`, every variant changes some of its settings."""

    steps: tuple[NonNegativeInt, NonNegativeInt] | None = Field(None, description="budget of stage 1 and stage 2")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="each variant is trained once with every seed")
    evaluate_on: EvaluateOn = "test"
    builtin: bool = Field(True, description="begin with the paper's ablations, see smar.evaluation.ablation.variants")
    variants: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")], dict[str, Any]] = {}
