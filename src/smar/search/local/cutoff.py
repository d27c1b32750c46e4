"""Where the hits of a query stop being relevant: a score of its own for each query, below which nothing is shown.

Two logistic functions say so. Of what is known of a query and its best hits (`FEATURES`): whether anything here answers
it at all. Of the same and of a hit's score s: whether it is relevant, by

    score    (s - mean) / deviation, of the query's scores over a sample of the catalogue
    lead     (s - mean) / (best - mean), how much of the best hit's lead it has

Both grow with s, so the odds pass one at one score: the cut-off. `smar.search.local.cutoff_fit` fits the functions to
validation clicks and made-up queries.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from smar.search.protocol import Mode

if TYPE_CHECKING:
    pass

FEATURES = ("best", "outstanding", "drop", "further", "words", "unheld", "pictures", "length")
"""Best score; its distance from the mean; how far the 10th and the 50th lie below it, in deviations; the most of the
query's words, by rarity, that one of the ten best hits holds; share of words that no item holds; the gate's logit;
number of words."""
HEAD = 50
"""Hits that `FEATURES` are made of."""
LEAST = 1e-6
Floats = npt.NDArray[np.float64]


class ModeCutoff(BaseModel):
    """The functions of one mode, and what they are worth, measured on queries that they were not fitted on.

    `answered` are weights of `FEATURES` and a bias; `score`, `lead`, `weights` and `bias` are those of a hit.

    `precision`: of the queries of which a hit stays, in an even mix of the log's and of made-up ones, the share that
    were the log's. `recall`: of the log's queries the share of which a hit stays. `kept`: of their clicked hits the
    share that stays. `hits`: the median of how many stay.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    answered: tuple[float, ...] = Field(min_length=len(FEATURES) + 1, max_length=len(FEATURES) + 1)
    score: float = Field(ge=0)
    lead: float = Field(ge=0)
    weights: tuple[float, ...] = Field(min_length=len(FEATURES), max_length=len(FEATURES))
    bias: float
    precision: float
    recall: float
    kept: float
    hits: float


class Cutoff(BaseModel):
    """The cut-offs of a version by mode; `refused` says why others have none. Fitted to so many validation queries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queries: int
    modes: dict[Mode, ModeCutoff] = {}
    refused: dict[Mode, str] = {}


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a query was cut off, with the precision of `ModeCutoff`: at a score; None where nothing answers it."""

    score: float | None
    precision: float


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Of each query: `mean` and `deviation` of its scores over the catalogue, its `best` score [n], features [n, 8]."""

    mean: Floats
    deviation: Floats
    best: Floats
    features: Floats

    def answered(self, fit: ModeCutoff) -> Floats:
        """Log odds that anything answers each query [n]."""
        odds: Floats = self.features @ np.array(fit.answered[:-1]) + fit.answered[-1]
        return odds

    def line(self, fit: ModeCutoff) -> tuple[Floats, Floats]:
        """Level and slope [n] of the log odds, which are level + slope * (s - mean)."""
        lead = np.maximum(self.best - self.mean, LEAST)
        return fit.bias + self.features @ np.array(fit.weights), fit.score / self.deviation + fit.lead / lead
