"""One encoder of a checkpoint, and how its states become one vector."""

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Head:
    """How an encoder is fed and how its states become one vector.

    `encoder` names its class in transformers ("": what `AutoModel` makes of the configuration). `states` and `pooled`
    are the widths of token or patch states and of the pooled state; `pooling` is `mean`, `cls`, `last`, `eos`, `map` or
    `pooler`, the encoder's own. `layers` of the projection: width, bias, activation after it; none where the pooled
    state is the vector; `kept` if they came with the encoder, weights and all. Text that the encoder knows only at a
    fixed length is filled up to `pad_to` tokens with `pad`, on the left if `pad_left`, and its padding hidden if
    `masked`. `patch` is the side in pixels of the squares that an encoder wants to have cut out already.
    """

    pooling: str
    states: int
    pooled: int
    layers: tuple[tuple[int, bool, str], ...] = ()
    kept: bool = False
    encoder: str = ""
    pad_to: int = 0
    pad: int = 0
    pad_left: bool = False
    masked: bool = True
    eos: int = -1
    patch: int = 0

    @property
    def dim(self) -> int:
        """Width of the vector."""
        return self.layers[-1][0] if self.layers else self.pooled


@dataclass(frozen=True)
class Part:
    """One encoder of a checkpoint.

    `head` says how its own vectors come about, `projection` holds the weights of the head's layers. A text encoder has
    the tokens that it takes by itself (`length`) and at most (`most`), and what it wants before queries and items
    (`prompts`). `missing` are weights that the checkpoint lacks. `temperature` and `logit_bias` are a pair's.
    """

    source: str
    encoder: Any
    head: Head
    projection: nn.Module
    missing: frozenset[str] = frozenset()
    length: int = 0
    most: int = 0
    prompts: tuple[str, str] = ("", "")
    temperature: float | None = None
    logit_bias: float = 0.0
