"""`SmarConfig`: two text towers, one vision tower and how they meet, composed like CLIP's configuration."""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from smar.core.errors import InputError
from smar.core.registry import IMAGE_ENCODERS, TEXT_ENCODERS
from smar.core.sections.losses import LossSettings
from smar.core.sections.model import Kind, ModelSettings, Pooling, TextSettings, VisionSettings
from smar.model.part import Head, Part

DIM, TEMPERATURE, QUERY_LENGTH, TEXT_LENGTH = 128, 1 / 30, 30, 100
"""What holds where neither the settings nor a checkpoint say something."""


@strict
class SmarConfig(PreTrainedConfig):  # type: ignore[misc]
    """Configuration of SMAR and of its baselines (reference: docs/paper.md, "Model").

    `kind` is `smar`, `dpsr` (query and item-text tower), `dpsr-i` (query and item-image tower) or `clip` (all three
    towers, added up instead of fused). `fusion` names a class of `smar.core.registry.FUSIONS`. `dim` is k.
    `threshold` is the image probability above which a routing service asks the pictures. `category_share`: P(category)
    of an item-side gate, with "" for every other category; None where the gate asks the query. `heads`: the `Head` of
    each tower by name. `residual`: what the multimodal vector begins as, `sum` of text and picture or `text`; "" for
    nothing. `logit_bias` of a pair that was trained with a sigmoid: the probability that query and item belong together
    is ``sigmoid(cosine / temperature + logit_bias)``; no ranking depends on it. `image_fit`, `image_resample`: how the
    dataset's pictures were made square.
    """

    model_type = "smar"
    sub_configs_defaults = {
        "query_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="vit"),
    }

    query_config: PreTrainedConfig | dict[str, Any] | None = None
    text_config: PreTrainedConfig | dict[str, Any] | None = None
    vision_config: PreTrainedConfig | dict[str, Any] | None = None
    kind: Kind = "smar"
    dim: int = DIM
    pooling: Pooling = "cls"
    share_text: bool = False
    fusion: str = "cross"
    fusion_layers: int = 1
    query_length: int = QUERY_LENGTH
    text_length: int = TEXT_LENGTH
    query_prefix: str = ""
    item_prefix: str = ""
    text_fields: list[str] | None = None
    modality_dropout: float = 0.1
    temperature: float = TEMPERATURE
    logit_bias: float = 0.0
    learn_temperature: bool = False
    temperature_bounds: list[float] | None = None
    matryoshka: list[int] | None = None
    threshold: float = 0.5
    category_share: dict[str, float] | None = None
    initializer_range: float = 0.02
    heads: dict[str, dict[str, Any]] | None = None
    residual: str = ""
    image_fit: str = "pad"
    image_resample: str | None = None

    def head(self, tower: str) -> Head:
        """`Head` of `query_tower`, `text_tower` or `image_tower`; of a model saved before there were heads, too."""
        if self.heads:
            saved = self.heads[tower]
            return Head(**{**saved, "layers": tuple(tuple(layer) for layer in saved["layers"])})
        part: Any = {"query_tower": self.query_config, "text_tower": self.text_config}.get(tower, self.vision_config)
        hidden = getattr(part, "hidden_size", None)
        pooling = "mean" if hidden is None else self.pooling  # maps have no first token
        hidden = part.hidden_sizes[-1] if hidden is None else hidden
        return Head(pooling, hidden, hidden, ((self.dim, True, ""),))


def build_config(
    settings: ModelSettings,
    image_size: int,
    vocabulary: int,
    text_fields: tuple[str, ...],
    temperature: float | None = None,
    loss: LossSettings = LossSettings(),
    parts: Mapping[str, Part] | None = None,
    eos: int = -1,
) -> SmarConfig:
    """Configuration for `settings`: towers among `parts`, by name, keep what they come with, the others are made fresh.

    Raises:
        InputError: the settings contradict a checkpoint.
    """
    parts, lengths = parts or {}, _lengths(settings, parts or {})
    dim = _dim(settings, parts)
    heads, pair = _heads(settings, parts, dim, eos), parts.get("query_tower")
    kept = {name for name in parts if heads[name].kept}
    learned = pair.temperature if pair is not None and settings.pretrained else None
    text = parts.get("text_tower", pair)
    temperature, bounds = temperature or learned or TEMPERATURE, loss.temperature_bounds
    if loss.learn_temperature and not bounds[0] <= temperature <= bounds[1]:
        raise InputError(
            f"the temperature begins at {temperature:.4g}, outside train.loss.temperature_bounds {list(bounds)}: "
            "widen them."
        )
    prompts = ("", "") if text is None else text.prompts
    return SmarConfig(
        query_config=_text_config(settings.query, pair, vocabulary, max(lengths)),
        text_config=_text_config(settings.text, text, vocabulary, max(lengths)),
        vision_config=_vision_config(settings.vision, parts.get("image_tower"), image_size),
        kind=settings.kind,
        dim=dim,
        pooling="cls" if "cls" in {heads[name].pooling for name in heads if name != "image_tower"} else "mean",
        share_text=settings.share_text,
        fusion=settings.fusion,
        fusion_layers=settings.fusion_layers,
        query_length=lengths[0],
        text_length=lengths[1],
        query_prefix=prompts[0] if settings.query_prefix is None else settings.query_prefix,
        item_prefix=prompts[1] if settings.item_prefix is None else settings.item_prefix,
        text_fields=list(text_fields),
        modality_dropout=settings.modality_dropout,
        temperature=temperature,
        logit_bias=pair.logit_bias if learned and pair is not None else 0.0,
        learn_temperature=loss.learn_temperature,
        temperature_bounds=list(bounds),
        matryoshka=list(settings.matryoshka),
        heads={name: asdict(head) for name, head in heads.items()},
        residual=_residual(settings, parts, kept),
    )


def _lengths(settings: ModelSettings, parts: Mapping[str, Part]) -> tuple[int, int]:
    """Tokens kept of a query and of an item's text: what is asked for, and never more than the encoder can take."""

    def length(asked: int | None, fresh: int, tower: str) -> int:
        part = parts.get(tower)
        return (asked or fresh) if part is None else min(asked or part.length, part.most)

    text = "query_tower" if settings.share_text else "text_tower"
    return length(settings.query_length, QUERY_LENGTH, "query_tower"), length(settings.text_length, TEXT_LENGTH, text)


def _dim(settings: ModelSettings, parts: Mapping[str, Part]) -> int:
    """k: as asked for, or the text encoder's own."""
    own = [parts[name].head.dim for name in ("query_tower", "text_tower") if name in parts]
    if settings.pretrained and own and settings.dim not in (None, own[0]):
        raise InputError(
            f"model.dim={settings.dim} would replace the projections that align {settings.pretrained}, whose vectors "
            f"have {own[0]} numbers: leave model.dim out. Shorter vectors that stay aligned: model.matryoshka."
        )
    image = parts.get("image_tower")
    if settings.pretrained and own and image is not None and image.head.dim != own[0]:
        raise InputError(
            f"text and pictures of {settings.pretrained} have {own[0]} and {image.head.dim} numbers: it is no pair."
        )
    dim = settings.dim or (own[0] if own else DIM)
    if settings.matryoshka and settings.matryoshka[-1] >= dim:
        raise InputError(
            f"model.matryoshka ({list(settings.matryoshka)}) must stay below the embeddings' {dim} numbers."
        )
    return dim


def _heads(settings: ModelSettings, parts: Mapping[str, Part], dim: int, eos: int) -> dict[str, Head]:
    """The head of every tower that the kind has; a projection that does not fit is made fresh."""
    left_out = {"dpsr": "image_tower", "dpsr-i": "text_tower"}.get(settings.kind)
    sources = {part.source for name, part in parts.items() if name != "image_tower"}
    heads = {}
    for name, tower in settings.towers.items():
        part, wanted = parts.get(name), settings.pooling
        if name == left_out:
            continue
        if name == "image_tower" and wanted in ("last", "eos"):
            wanted = "own"  # pictures have no last token
        if part is None:
            maps = isinstance(tower, VisionSettings) and tower.kind == "resnet"
            pooling = "mean" if wanted == "own" or (maps and wanted == "cls") else wanted
            bag = isinstance(tower, TextSettings) and tower.kind == "bag"
            # a bag is compared before it is trained: a bias would be what all texts have in common
            heads[name] = Head(pooling, tower.hidden, tower.hidden, ((dim, not bag, ""),), eos=eos)
            continue
        head = part.head if wanted in ("own", part.head.pooling) else replace(part.head, pooling=wanted)
        foreign = name == "image_tower" and part.source not in sources  # aligned with no text tower of this model
        if head.pooling != part.head.pooling:
            head = replace(head, pooled=head.states)
        if foreign or head.pooled != part.head.pooled or head.dim != dim:
            head = replace(head, layers=((dim, True, ""),), kept=False)
        if settings.kind == "smar" and settings.fusion in ("gated", "concat") and head.pooled != head.states:
            raise InputError(
                f"model.fusion={settings.fusion} takes pooled states as wide as the others; those of {part.source} "
                f"have {head.pooled} and {head.states} numbers: choose another fusion."
            )
        heads[name] = head
    return heads


def _residual(settings: ModelSettings, parts: Mapping[str, Part], kept: set[str]) -> str:
    """What S_m begins as: nothing better is known before training than what the checkpoints know, or a bag's words."""
    if not parts.keys() & {"query_tower", "text_tower"} and settings.query.kind == settings.text.kind == "bag":
        return "sum"  # a picture that is its text's neighbour says what the title leaves out: docs/results.md
    text = [parts[name] for name in ("query_tower", "text_tower") if name in kept]
    if len(text) < 2 or text[0].source != text[1].source:
        return ""
    return "sum" if "image_tower" in kept else "text"


def _text_config(tower: TextSettings, part: Part | None, vocabulary: int, length: int) -> dict[str, Any]:
    if part is not None:
        return part.encoder.config.to_dict()  # type: ignore[no-any-return]
    return TEXT_ENCODERS[tower.kind](tower, vocabulary, length).to_dict()  # type: ignore[no-any-return]


def _vision_config(tower: VisionSettings, part: Part | None, image_size: int) -> dict[str, Any]:
    if part is not None:
        return part.encoder.config.to_dict()  # type: ignore[no-any-return]
    return IMAGE_ENCODERS[tower.kind](tower, image_size).to_dict()  # type: ignore[no-any-return]


def attention_heads(config: Any, hidden: int) -> int:
    """Attention heads of the fusion over states of this width: the text encoder's own where they fit."""
    heads = getattr(config, "num_attention_heads", None)
    return heads if isinstance(heads, int) and hidden % heads == 0 else math.gcd(hidden, 8)
